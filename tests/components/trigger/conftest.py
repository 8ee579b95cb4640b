from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from components.decisions import Decision
from components.trigger.governor import Situation
from components.trigger.triggers import Finding

NOON = datetime(2026, 1, 12, 12, tzinfo=UTC)
CHAMPION = "c" * 64


@pytest.fixture
def found():
    """What drift found: nothing, unless said otherwise."""

    def make(**changes):
        given = {"moved": False, "performance_before": 0.9, **changes}
        if "performance" in given:
            before = given["performance_before"]
            given.setdefault("drop", (before - given["performance"]) / before)
        return Finding(**given)

    return make


@pytest.fixture
def decided():
    """A decision of the past; a number of days counts from noon of 2026-01-12."""

    def make(
        days=-7.0, *, retrain=False, fired="drift", champion=CHAMPION, run="", window="", **of
    ):
        at = NOON + timedelta(days=days)
        given = {
            "window": window or f"{at:%Y-%m-%d}",
            "champion": champion,
            "run": run or f"run-{at:%m%d}",
            "at": at.isoformat(),
            "action": "retrain" if retrain else "wait",
            "retrain": retrain,
            "cause": fired,
            "event": f"event-{at:%m%d}" if retrain else "",
            "reason": "a test",
            "triggers": {"performance": "", "drift": "", **({fired: "it did"} if fired else {})},
            "rules": [],
            "labelled_rows": 0,
            "finding": "",
        }
        return Decision(**given | of)

    return make


@pytest.fixture
def situation(found):
    """Inputs moved at noon of 2026-01-12, whether it hurts is not known."""

    def make(**changes):
        given = {
            "run": "run-1",
            "window": "2026-01-12",
            "champion": CHAMPION,
            "now": NOON,
            "fired": {"drift": "3 input features moved"},
            "finding": found(moved=True),
        }
        return Situation(**given | changes)

    return make
