from __future__ import annotations

import pytest

from components.evaluate.checks.floors import floors
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(
    ("metric", "floor", "verdict"),
    [
        ("accuracy", 0.8, "passed"),
        ("accuracy", 0.97, "failed"),
        ("log_loss", 0.9, "passed"),
        ("log_loss", 0.1, "failed"),
        ("recall:positive", 0.8, "passed"),
    ],
)
def test_what_is_asked_for_must_be_reached(make_exam, metric, floor, verdict):
    config = EvaluateConfig(floors={metric: floor})
    (found,) = floors(make_exam({"challenger": 0.9}), config)
    assert (found.verdict, found.threshold) == (verdict, floor)


def test_without_floors_nothing_is_asked(make_exam):
    (found,) = floors(make_exam({"challenger": 0.9}), EvaluateConfig())
    assert found.verdict == "skipped"
