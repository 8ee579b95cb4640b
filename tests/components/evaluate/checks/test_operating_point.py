from __future__ import annotations

import numpy as np
import pytest

from components.calibration import Temperature
from components.decision_rule import DecisionRule
from components.evaluate.checks.operating_point import operating_point
from components.evaluate.config import EvaluateConfig
from components.operating_point import OperatingPoint, OperatingPointConfig

LABELS = ("negative", "positive")


def rule(**aim):
    config = OperatingPointConfig.model_validate(aim)
    point = OperatingPoint(aim=config.aim, labels=LABELS, label=config.label, min_sureness=0.1)
    return DecisionRule(calibrate=False, aim=config, temperature=Temperature(), point=point)


def found(make_exam, right, rows=400, abstained=None, **aim):
    exam = make_exam(
        {"challenger": right},
        rows={"test": rows},
        rules={"challenger": rule(**aim)},
        abstained={} if abstained is None else {"challenger": abstained},
    )
    return exam, operating_point(exam, EvaluateConfig())


@pytest.mark.parametrize("aim", ["recall", "precision"])
@pytest.mark.parametrize(
    ("right", "rows", "verdict", "says"),
    [
        (0.95, 400, "passed", "the aim is reached"),
        (0.8, 400, "failed", "the aim is missed: "),
        (0.85, 40, "undecided", "the aim is missed, perhaps by chance"),
    ],
)
def test_an_aim_is_reached_missed_or_perhaps_missed(make_exam, aim, right, rows, verdict, says):
    exam, (check,) = found(make_exam, right, rows, aim=aim, label="positive", at_least=0.9)
    assert (check.name, check.verdict) == (f"test {aim} of 'positive'", verdict)
    assert says in check.reason
    said, meant = exam.decided["challenger"] == 1, exam.targets == 1
    assert check.measured == (said & meant).sum() / (meant if aim == "recall" else said).sum()
    assert check.low < check.measured < check.high
    assert check.threshold == 0.9


def test_the_accuracy_of_answered_rows_is_that_of_no_others(make_exam):
    left = np.arange(400) < 100
    exam, (check,) = found(make_exam, 0.8, abstained=left, answered_accuracy=0.7)
    right = exam.decided["challenger"] == exam.targets
    assert check.measured == right[~left].mean()
    assert check.name == "test accuracy of the 75.0% of rows that are answered"
    both = found(make_exam, 0.8, answered_accuracy=0.7, aim="recall", label="positive")[1]
    assert [each.name for each in both] == [
        "test recall of 'positive'",
        "test accuracy of the 100.0% of rows that are answered",
    ]


def test_where_nothing_is_answered_nothing_is_known(make_exam):
    everything = np.ones(400, dtype=bool)
    _, (check,) = found(make_exam, 0.8, abstained=everything, answered_accuracy=0.7)
    assert (check.verdict, check.measured) == ("undecided", None)


def test_without_a_share_to_reach_nothing_is_asked(make_exam):
    assert found(make_exam, 0.8, aim="cost")[1][0].verdict == "skipped"
    (check,) = operating_point(make_exam({"challenger": 0.8}), EvaluateConfig())
    assert check.verdict == "skipped"
    # Who must have one, and has none, is not promoted in silence.
    required = EvaluateConfig(required=("operating_point",))
    (check,) = operating_point(make_exam({"challenger": 0.8}), required)
    assert check.verdict == "undecided"
