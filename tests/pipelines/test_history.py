from __future__ import annotations

import base64

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components import bundle
from components.errors import BadInput, ConfigError
from components.serve.model import BundleModel
from components.store import LocalStore
from components.tasks import TASKS
from pipelines.history import ROWS_AT_ONCE, labels_of, predictions_of
from pipelines.project import ProjectConfig


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


def rated(folder, *labels):
    """Return a project that learns numbers from 0 to 4."""
    path = folder / f"{len(list(folder.glob('*.csv')))}.csv"
    path.write_text("text,label\n" + "".join(f"a text,{label}\n" for label in labels))
    return ProjectConfig.model_validate(
        {
            "name": "rated",
            "task": {"kind": "text-regression", "low": 0, "high": 4},
            "source": {"kind": "files", "root": str(folder), "files": [{"path": path.name}]},
        }
    )


def test_numbers_that_a_regression_does_not_take_are_counted_and_named(tmp_path):
    windows, odd = labels_of(rated(tmp_path, "0", "3.5", "5", "many", ""))
    assert windows == [
        {
            "window": "all",
            "rows": 5,
            "labelled": 2,
            "unlabelled": 1,
            "unknown": 2,
            "labels": "0 to 1 1, 1 to 2 0, 2 to 3 0, 3 to 4 1",
        }
    ]
    assert odd == [
        "2 rows have labels that the task does not know, such as '5', 'many', and would be "
        "quarantined; the task learns numbers within its range"
    ]
    with pytest.raises(ConfigError, match="within its range, but the rows have '7', 'x'"):
        labels_of(rated(tmp_path, "x", "7"))
    with pytest.raises(ConfigError, match=r"no row has a label; .* source\.columns\.label"):
        labels_of(rated(tmp_path, "", ""))


def test_what_is_odd_about_further_columns_is_told(tmp_path):
    (tmp_path / "people.csv").write_text("text,label,age,shop\na,1,31,x\nb,2,old,x\nc,3,,x\n")
    metadata = {"age": {"kind": "number", "required": True}, "shop": {}}
    source = {
        "root": str(tmp_path),
        "files": [{"path": "people.csv"}],
        "columns": {"metadata": metadata},
    }
    task = {"kind": "text-regression", "low": 0, "high": 4}
    people = ProjectConfig.model_validate({"name": "people", "task": task, "source": source})
    assert labels_of(people)[1] == [
        "1 rows have nothing in age, and would be quarantined",
        "1 rows have what is no number in age, such as 'old', and would be quarantined",
        "all rows have the same in shop: it tells nothing apart",
    ]
