from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from components import bundle
from components.errors import BundleError
from components.serve.model import (
    MAX_CHARACTERS,
    MAX_TEXTS,
    BundleModel,
    TooMuch,
    checked_texts,
)
from components.tasks.text_classification import TextClassifier


def test_predicts_what_the_bundle_predicts(world):
    digest = world.publish(1)
    model = BundleModel.load(world.store, digest)
    texts = ["the film was good", "", "awful and dull " * 50]
    expected = TextClassifier.load(world.make(1)).predict(texts)
    predictions = model.predict(texts)
    for prediction, row in zip(predictions, expected, strict=True):
        assert list(prediction.probabilities) == ["negative", "positive"]
        np.testing.assert_allclose(list(prediction.probabilities.values()), row, rtol=1e-6)
        assert prediction.label == ("negative", "positive")[row.argmax()]
        assert prediction.confidence == max(prediction.probabilities.values())
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
    with pytest.raises(BundleError, match="labels no, yes"):
        BundleModel.load(world.store, digest)


def test_a_model_that_answers_nonsense_is_refused(world, monkeypatch):
    model = BundleModel.load(world.store, world.publish(1))
    monkeypatch.setattr(
        TextClassifier, "predict", lambda self, texts: np.full((len(texts), 2), np.nan)
    )
    with pytest.raises(BundleError, match="do not add up"):
        model.warm_up()


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ([], ValueError, "no text"),
        ([1], ValueError, "text 0 is not a string but a number"),
        (["a", None], ValueError, "text 1 is not a string but null"),
        (["\ud800"], ValueError, "lone surrogate"),
        (["a"] * (MAX_TEXTS + 1), TooMuch, "too many"),
        (["a" * (MAX_CHARACTERS + 1)], TooMuch, "characters"),
    ],
)
def test_what_is_no_text_is_refused(values, error, says):
    with pytest.raises(error, match=says):
        checked_texts(values)


def test_needs_no_kserve():
    code = "import sys, components.serve.model as m; sys.exit('kserve' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
