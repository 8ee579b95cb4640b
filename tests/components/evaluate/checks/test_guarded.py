from __future__ import annotations

import re

import numpy as np
import pytest

from components.evaluate.check import more_rows
from components.evaluate.checks.guarded import guarded
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(
    ("now", "before", "verdicts"),
    [
        (0.9, 0.9, ("passed", "passed")),
        (0.9, 0.5, ("failed", "passed")),
        (0.5, 0.9, ("passed", "failed")),
    ],
)
def test_earlier_windows_and_probabilities_are_guarded(make_exam, now, before, verdicts):
    right = {"champion": 0.8, "challenger": {"test": now, "guard": before, "valid": 1, "train": 1}}
    earlier, loss = guarded(make_exam(right), EvaluateConfig())
    assert (earlier.verdict, loss.verdict) == verdicts
    assert (earlier.threshold, loss.threshold) == (-0.03, -0.1)
    assert earlier.name == "guard F1 against champion"
    assert loss.name == "test log loss against champion"


def test_what_might_be_worse_is_undecided(make_exam):
    exam = make_exam({"champion": 0.8, "challenger": 0.8}, rows={"test": 40, "guard": 40})
    config = EvaluateConfig(guarded={"accuracy": 0.01})
    assert {each.verdict for each in guarded(exam, config)} == {"undecided"}


def test_earlier_rows_that_are_lacking_are_no_test_rows(make_exam):
    rows = {"test": 2000, "guard": 20, "valid": 100}
    exam = make_exam({"champion": 0.75, "challenger": 0.95}, rows=rows)
    checks = [
        each.model_copy(update={"required": True}) for each in guarded(exam, EvaluateConfig())
    ]
    earlier = checks[0]
    assert (earlier.verdict, earlier.more_rows) == ("undecided", None)
    assert "20 groups of rows, evaluate.min_groups asks for 30" in earlier.reason
    assert earlier.reason.endswith("; about 10 more guard rows would decide")
    assert more_rows(checks) is None
    # What chance leaves open on earlier rows, more of these would tell.
    equal = make_exam({"champion": 0.8, "challenger": 0.8}, rows={"test": 400, "guard": 200})
    earlier, _ = guarded(equal, EvaluateConfig(guard_margin=0.05))
    assert (earlier.verdict, earlier.more_rows) == ("undecided", None)
    assert re.search(r"about [\d,]+ more guard rows would decide$", earlier.reason)


def test_without_earlier_rows_and_metrics_nothing_is_guarded(make_exam):
    exam = make_exam({"champion": 0.8, "challenger": 0.9}, rows={"test": 40})
    (found,) = guarded(exam, EvaluateConfig(guarded={}))
    assert found.verdict == "skipped"


@pytest.mark.parametrize(
    ("champion", "challenger", "verdict"), [(0.2, 0.2, "passed"), (0.2, 0.5, "failed")]
)
def test_a_champion_that_abstains_may_not_be_followed_by_one_that_abstains_more(
    make_exam, champion, challenger, verdict
):
    exam = make_exam({"champion": 0.8, "challenger": 0.8}, rows={"test": 400})
    place = np.arange(400) / 400
    exam.abstained.update({"champion": place < champion, "challenger": place < challenger})
    *_, coverage = guarded(exam, EvaluateConfig())
    assert (coverage.name, coverage.verdict) == ("test coverage against champion", verdict)
    # A first band is what the project asked for.
    del exam.abstained["champion"]
    assert [each.name for each in guarded(exam, EvaluateConfig())] == [
        "test log loss against champion"
    ]
