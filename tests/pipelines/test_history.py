from __future__ import annotations

import base64

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components import bundle
from components.errors import BadInput
from components.serve.model import BundleModel
from components.store import LocalStore
from components.tasks import TASKS
from pipelines.history import ROWS_AT_ONCE, predictions_of


@pytest.fixture
def champion(learnt, tmp_path):
    """Load a model of a kind of task as a champion is loaded."""

    def load(kind):
        store = LocalStore(tmp_path / "objects")
        return BundleModel.load(store, bundle.publish(store, learnt(kind)))

    return load


def test_image_files_are_named_with_their_answers(champion, learnt, tmp_path):
    paths = []
    for shade in (10, 200):
        paths.append(str(tmp_path / f"{shade}.png"))
        Image.fromarray(np.full((9, 7), shade, np.uint8)).save(paths[-1])
    found = predictions_of(champion("image-classification"), paths)
    model = TASKS["image-classification"].load(learnt("image-classification"))
    contents = [base64.b64encode((tmp_path / f"{shade}.png").read_bytes()) for shade in (10, 200)]
    answers = model.predict([content.decode() for content in contents])
    assert [row["image"] for row in found] == paths
    assert [row["label"] for row in found] == model.decisions(answers)
    assert [row["confidence"] for row in found] == pytest.approx(answers.max(1), abs=1e-4)
    assert list(found[0]) == ["image", "label", "confidence"]


def test_a_regression_answers_with_values(champion, learnt, case_of):
    texts = pd.read_parquet(case_of("text-regression").prepared / "rows.parquet")["text"].tolist()
    texts = (texts * 3)[: ROWS_AT_ONCE + 3]
    found = predictions_of(champion("text-regression"), texts)
    model = TASKS["text-regression"].load(learnt("text-regression"))
    assert [row["text"] for row in found] == texts
    assert [row["value"] for row in found] == pytest.approx(model.predict(texts)[:, 0], abs=1e-4)
    assert list(found[0]) == ["text", "value"]


def test_what_cannot_be_answered_is_the_users_mistake(champion, tmp_path):
    (tmp_path / "words.png").write_text("no picture")
    images = champion("image-classification")
    for path, says in (
        ("words.png", "not an image"),
        ("none.png", "No such file"),
        ("", "directory"),
    ):
        with pytest.raises(BadInput, match=says):
            predictions_of(images, [str(tmp_path / path)])
    with pytest.raises(BadInput, match="characters"):
        predictions_of(champion("text-regression"), ["a" * 100_000])
