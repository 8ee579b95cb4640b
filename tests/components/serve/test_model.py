from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from components import bundle
from components.errors import BundleError
from components.serve.model import (
    MAX_CHARACTERS,
    MAX_CONTENTS,
    BundleModel,
    TooMuch,
    checked_images,
    checked_texts,
)
from components.store import LocalStore
from components.tasks import TASKS
from components.tasks.image_classification import encode_png
from components.tasks.text_classification import TextClassification, TextClassifier


def test_predicts_what_the_bundle_predicts(world):
    digest = world.publish(1)
    model = BundleModel.load(world.store, digest)
    texts = ["the film was good", "", "awful and dull " * 50]
    expected = TextClassifier.load(world.make(1)).predict(texts)
    predictions = model.predict(texts)
    for prediction, row in zip(predictions, expected, strict=True):
        assert list(prediction["probabilities"]) == ["negative", "positive"]
        np.testing.assert_allclose(list(prediction["probabilities"].values()), row, rtol=1e-6)
        assert prediction["label"] == ("negative", "positive")[row.argmax()]
        assert prediction["confidence"] == max(prediction["probabilities"].values())
    model.warm_up()


def test_altered_and_absent_bundles_are_refused(world):
    digest = world.publish(1)
    with pytest.raises(BundleError):
        BundleModel.load(world.store, "0" * 64)
    world.file(digest, "config.json").write_text("{}")
    with pytest.raises(BundleError, match="altered"):
        BundleModel.load(world.store, digest)


def test_a_model_with_other_labels_than_described_is_refused(world, tmp_path):
    import shutil

    folder = tmp_path / "bundle"
    shutil.copytree(world.make(1), folder)
    (folder / bundle.MANIFEST).unlink()
    description = bundle.Description.from_json((folder / bundle.DESCRIPTION).read_text())
    task = description.task.model_copy(update={"labels": ("no", "yes")})
    bundle.seal(folder, description.model_copy(update={"task": task}))
    digest = bundle.publish(world.store, folder)
    with pytest.raises(BundleError, match="answers no, yes"):
        BundleModel.load(world.store, digest)


def test_a_model_that_answers_nonsense_is_refused(world, monkeypatch):
    model = BundleModel.load(world.store, world.publish(1))
    monkeypatch.setattr(
        TextClassifier, "answers", lambda self, outputs: np.full((len(outputs), 2), np.nan)
    )
    with pytest.raises(BundleError, match="not all finite"):
        model.warm_up()


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ([], ValueError, "no text"),
        ([1], ValueError, "text 0 is not a string but a number"),
        (["a", None], ValueError, "text 1 is not a string but null"),
        (["\ud800"], ValueError, "lone surrogate"),
        (["a"] * (MAX_CONTENTS + 1), TooMuch, "too many"),
        (["a" * (MAX_CHARACTERS + 1)], TooMuch, "characters"),
    ],
)
def test_what_is_no_text_is_refused(values, error, says):
    with pytest.raises(error, match=says):
        checked_texts(values)


def test_needs_no_kserve():
    code = "import sys, components.serve.model as m; sys.exit('kserve' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


PNG = encode_png(np.zeros((8, 8), np.uint8))


def test_models_of_every_kind_answer_what_their_bundles_answer(learnt, case_of, kind, tmp_path):
    store, case = LocalStore(tmp_path / "objects"), case_of(kind)
    model = BundleModel.load(store, bundle.publish(store, learnt(kind)))
    contents = pd.read_parquet(case.prepared / "rows.parquet")["text"].tolist()[:5]
    assert model.checked(contents) == contents
    own = TASKS[kind].load(learnt(kind))
    answers = own.predict(contents)
    assert model.answer_names == case.task.answer_names
    np.testing.assert_allclose(model.answers(contents), answers, atol=1e-6)
    for prediction, expected in zip(model.predict(contents), own.responses(answers), strict=True):
        assert prediction.keys() == expected.keys() == model.sample.keys()
        for key, value in expected.items():
            same = pytest.approx(value, abs=1e-6) if not isinstance(value, str) else value
            assert prediction[key] == same
    model.warm_up()


def test_answers_come_in_the_order_of_the_task(make_classifier, seal_bundle, tmp_path):
    store, task = LocalStore(tmp_path / "objects"), TextClassification(labels=("b", "a"))
    classifier = make_classifier(1, ("a", "b"))
    classifier.save(tmp_path / "bundle")
    seal_bundle(tmp_path / "bundle", task=task)
    model = BundleModel.load(store, bundle.publish(store, tmp_path / "bundle"))
    own = classifier.predict(["good"])[0]
    np.testing.assert_allclose(model.answers(["good"])[0], own[::-1])
    (prediction,) = model.predict(["good"])
    assert list(prediction["probabilities"]) == ["b", "a"]
    assert prediction["probabilities"]["a"] == pytest.approx(own[0])
    assert prediction["label"] == ("a", "b")[own.argmax()]


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ([], ValueError, "no image"),
        ([1], ValueError, "image 0 is not a string but a number"),
        ([PNG, {"b64": PNG}], ValueError, "image 1 is not a string but an object"),
        ([PNG, "no base64"], ValueError, "image 1: not an image"),
        (["aGVsbG8="], ValueError, "image 0: not an image: none of PNG, JPEG"),
        (["é"], ValueError, "image 0: not an image"),
        ([""], ValueError, "image 0: not an image"),
        ([PNG] * (MAX_CONTENTS + 1), TooMuch, "257 images are too many"),
        ([encode_png(np.zeros((4000, 6000), np.uint8))] * 3, TooMuch, "pixels"),
    ],
)
def test_what_is_no_image_is_refused(values, error, says):
    with pytest.raises(error, match=says):
        checked_images(values)
