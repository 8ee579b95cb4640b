from __future__ import annotations

import dataclasses

import pytest

from components.evaluate.checks.baselines import baselines
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(
    ("challenger", "against_naive", "against_probe"),
    [
        (0.95, "passed", "passed"),
        (0.85, "passed", "passed"),
        (0.7, "passed", "failed"),
        (0.3, "failed", "failed"),
    ],
)
def test_a_first_champion_beats_the_naive_answer_and_is_not_worse_than_a_probe(
    make_exam, challenger, against_naive, against_probe
):
    exam = make_exam({"challenger": challenger, "naive": 0.5, "probe": 0.85})
    found = baselines(exam, EvaluateConfig())
    assert [each.verdict for each in found] == [against_naive, against_probe]
    assert [each.name for each in found] == [
        "test F1 against majority class",
        "test F1 against linear probe",
    ]


def test_too_few_rows_do_not_show_that_it_is_not_worse(make_exam):
    exam = make_exam({"challenger": 0.9, "naive": 0.5, "probe": 0.9}, rows={"test": 20})
    assert {each.verdict for each in baselines(exam, EvaluateConfig())} == {"undecided"}


def test_a_first_champion_can_be_judged_by_a_precision_that_the_majority_has_none_of(make_exam):
    exam = make_exam({"challenger": 0.95, "naive": 0.5, "probe": 0.9})
    exam.decided["naive"][:] = 0
    exam = dataclasses.replace(exam, metric="precision:positive")
    assert {each.verdict for each in baselines(exam, EvaluateConfig())} == {"passed"}


def test_with_a_champion_it_is_no_question(make_exam):
    (found,) = baselines(make_exam({"challenger": 0.9, "champion": 0.5}), EvaluateConfig())
    assert found.verdict == "skipped"
