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


def test_groups_of_few_rows_are_named_and_decide_nothing(make_exam):
    def few(count):
        return {"group_of": np.where(np.arange(count) < 10, "b", "a")}

    exam = make_exam({"challenger": 0.95}, rows={"test": 400}, columns=few)
    for found in fairness(exam, CONFIG):
        assert found.verdict == "undecided"
        assert found.reason.endswith("too few rows to look at: b (10)")


def test_groups_of_a_column_of_numbers_are_ranges(make_exam):
    def ages(count):
        return {"group_of": 18 + np.arange(count) % 60.0}

    exam = make_exam({"challenger": 0.95}, rows={"test": 4000}, columns=ages)
    old = (exam.rows["group_of"] > 62).to_numpy()
    exam.decided["challenger"][old] = 0
    found = fairness(exam, CONFIG)
    assert {each.verdict for each in found} == {"failed"}
    worst = min(found[0].parts, key=lambda part: part.measured or 0.0)
    assert worst.name.endswith("to 77 (part 4 of 4)")


def test_without_declared_groups_nothing_is_asked(make_exam):
    (found,) = fairness(make_exam({"challenger": 0.95}), EvaluateConfig())
    assert found.verdict == "skipped"


def test_a_single_group_cannot_be_compared(make_exam):
    for value in ("a", None):
        columns = {"group_of": [value] * 1300}
        exam = make_exam({"challenger": 0.95}, columns=lambda count, columns=columns: columns)
        # Where fairness is required, a window that shows nothing of it promotes nobody.
        assert {each.verdict for each in fairness(exam, CONFIG)} == {"undecided"}


def test_what_a_person_decides_is_no_favourable_answer(make_exam):
    exam = make_exam({"challenger": 0.95}, rows={"test": 2000}, columns=halves)
    left = (exam.rows["group_of"] == "b").to_numpy() & (np.arange(2000) % 3 > 0)
    exam.abstained["challenger"] = left
    assert {each.verdict for each in fairness(exam, CONFIG)} == {"failed"}
