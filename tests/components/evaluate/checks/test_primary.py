from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.evaluate.checks.primary import primary
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(
    ("challenger", "verdict"), [(0.9, "passed"), (0.81, "undecided"), (0.6, "failed")]
)
def test_what_is_better_passes_what_is_worse_fails(make_exam, challenger, verdict):
    (found,) = primary(make_exam({"champion": 0.8, "challenger": challenger}), EvaluateConfig())
    assert found.verdict == verdict
    given = found.model_dump()
    assert given["low"] <= given["measured"] <= given["high"]
    assert (found.name, found.threshold) == ("test F1 against champion", 0)


def test_another_metric_can_be_primary(make_exam):
    exam = make_exam({"champion": 0.8, "challenger": 0.9}, sure=0.6)
    exam = dataclasses.replace(exam, metric="log_loss")
    (found,) = primary(exam, EvaluateConfig())
    assert found.name == "test log loss against champion"
    assert found.verdict == "passed" and found.model_dump()["measured"] > 0


def test_a_promising_challenger_is_told_how_many_rows_it_needs(make_exam):
    rows = {"test": 150, "valid": 50}
    (found,) = primary(
        make_exam({"champion": 0.8, "challenger": 0.84}, rows=rows, seed=3), EvaluateConfig()
    )
    assert found.verdict == "undecided"
    assert found.more_rows


def test_rows_of_a_single_label_tell_nothing(make_exam):
    exam = make_exam({"champion": 0.6, "challenger": 0.9})
    exam = dataclasses.replace(exam, targets=np.zeros_like(exam.targets))
    (found,) = primary(exam, EvaluateConfig())
    assert (found.verdict, found.more_rows) == ("undecided", None)
    assert found.reason == "all test rows are 'negative': they cannot tell models apart"


def test_below_the_power_floor_nothing_is_shown(make_exam):
    rows = {"test": 20, "valid": 20}
    exam = make_exam({"champion": 0.1, "challenger": 1.0}, rows=rows)
    (found,) = primary(exam, EvaluateConfig())
    assert found.verdict == "undecided"
    assert "20 groups of rows, evaluate.min_groups asks for 30" in found.reason
    assert found.model_dump()["more_rows"] >= 10


@pytest.mark.parametrize("metric", ["precision:positive", "macro_precision"])
def test_a_champion_that_never_gives_a_label_can_be_beaten_in_its_precision(make_exam, metric):
    exam = make_exam({"champion": 0.5, "challenger": 0.95})
    exam.decided["champion"][:] = 0
    exam = dataclasses.replace(exam, metric=metric)
    (found,) = primary(exam, EvaluateConfig())
    assert found.verdict == "passed"
    assert found.measured == pytest.approx(
        0.95 if metric == "precision:positive" else 0.71, abs=0.03
    )
    swapped = dataclasses.replace(
        exam,
        decided={"champion": exam.decided["challenger"], "challenger": exam.decided["champion"]},
    )
    (found,) = primary(swapped, EvaluateConfig())
    assert found.verdict == "failed"


def test_without_a_champion_it_is_no_question(make_exam):
    (found,) = primary(make_exam({"challenger": 0.9}), EvaluateConfig())
    assert found.verdict == "skipped"
