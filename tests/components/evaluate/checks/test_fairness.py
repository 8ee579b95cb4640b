from __future__ import annotations

import numpy as np

from components.evaluate.checks.fairness import fairness
from components.evaluate.config import EvaluateConfig, FairnessConfig

CONFIG = EvaluateConfig(fairness=FairnessConfig(columns=("group_of",), favourable="positive"))


def halves(count):
    return {"group_of": np.where(np.arange(count) % 2 == 0, "a", "b")}


def test_groups_that_are_treated_alike_are_fair_or_undecided(make_exam):
    exam = make_exam({"challenger": 0.95}, rows={"test": 4000}, columns=halves)
    found = fairness(exam, CONFIG)
    assert [each.name for each in found] == [
        "four-fifths of group_of",
        "equal opportunity of group_of",
    ]
    assert {each.verdict for each in found} == {"passed"}
    assert [part.name for part in found[0].parts] == ["a", "b"]


def test_a_group_that_is_refused_is_treated_unfairly(make_exam):
    exam = make_exam({"challenger": 0.95}, rows={"test": 2000}, columns=halves)
    refused = (exam.rows["group_of"] == "b").to_numpy() & (np.arange(2000) % 3 > 0)
    exam.decided["challenger"][refused] = 0
    found = fairness(exam, CONFIG)
    assert {each.verdict for each in found} == {"failed"}
    assert "the worst is b with 0." in found[0].reason


def test_without_declared_groups_nothing_is_asked(make_exam):
    (found,) = fairness(make_exam({"challenger": 0.95}), EvaluateConfig())
    assert found.verdict == "skipped"


def test_a_single_group_cannot_be_compared(make_exam):
    exam = make_exam({"challenger": 0.95}, columns=lambda count: {"group_of": ["a"] * count})
    assert {each.verdict for each in fairness(exam, CONFIG)} == {"skipped"}


def test_what_a_person_decides_is_no_favourable_answer(make_exam):
    exam = make_exam({"challenger": 0.95}, rows={"test": 2000}, columns=halves)
    left = (exam.rows["group_of"] == "b").to_numpy() & (np.arange(2000) % 3 > 0)
    exam.abstained["challenger"] = left
    assert {each.verdict for each in fairness(exam, CONFIG)} == {"failed"}
