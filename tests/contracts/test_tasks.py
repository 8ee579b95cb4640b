"""What every kind of task promises with every method of fine-tuning."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from components import bundle
from components.finetune.config import FinetuneConfig
from components.finetune.core import finetune
from components.finetune.history import Silent
from components.finetune.methods import METHODS
from components.profile import Profile
from components.tasks import TASKS
from tests.fixtures.cases import KINDS


def every_kind_with_every_method():
    """Images train for seconds: all but two methods of theirs are left to the slow tests."""
    for kind, method in itertools.product(KINDS, METHODS):
        is_long = kind == "image-classification" and method not in ("full", "head")
        yield pytest.param(kind, method, marks=[pytest.mark.slow] if is_long else [])


@pytest.mark.parametrize(("kind", "method"), list(every_kind_with_every_method()))
def test_what_is_trained_and_saved_answers_the_same_when_loaded(case_of, kind, method, tmp_path):
    case = case_of(kind)
    config = FinetuneConfig(method=method, epochs=1, head_epochs=1, threads=1)
    report = finetune(
        case.prepared, case.start, None, tmp_path / "bundle", case.task, config, {}, Silent()
    )
    description = bundle.verify(tmp_path / "bundle", report.bundle)
    assert description.task == case.task
    model = TASKS[kind].load(tmp_path / "bundle")
    assert model.answer_names == case.task.answer_names
    rows = pd.read_parquet(case.prepared / "rows.parquet")
    valid = rows[rows["split"] == "valid"]
    answers = model.predict(valid["text"].tolist())
    assert answers.shape == (len(valid), len(model.answer_names))
    # Profile and scores were made of the answers that the model gave before it was saved.
    profile = Profile.load(tmp_path / "bundle")
    for name, values in model.answer_features(answers).items():
        np.testing.assert_allclose(np.sort(values), profile.numbers[name].values, atol=1e-5)
    scores = model.scores(model.targets(valid["label"].tolist()), answers)
    assert scores == pytest.approx(report.scores, abs=1e-4)
    assert tuple(scores) == model.score_names
    # A head with a closed form is fitted at once.
    assert report.epochs or (model.fits_head and method == "head")
