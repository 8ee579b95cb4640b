from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from components import decisions as module
from components.decisions import Decision, Decisions
from components.store import LocalStore

NOON = datetime(2026, 1, 12, 12, tzinfo=UTC)


@pytest.fixture
def decisions(tmp_path):
    return Decisions(LocalStore(tmp_path), "projects/demo")


@pytest.fixture
def keep(decisions):
    def run(window, run, hours=0, reason="a test"):
        decision = Decision(
            window=window,
            champion="c",
            run=run,
            at=(NOON + timedelta(hours=hours)).isoformat(),
            action="wait",
            retrain=False,
            cause="",
            event="",
            reason=reason,
            triggers={},
            rules=[],
            labelled_rows=0,
            finding="",
        )
        decisions.keep(decision)
        return decision

    return run


def test_decisions_are_read_in_the_order_of_windows_and_then_of_time(decisions, keep):
    assert decisions.recent() == []
    late = keep("2026-01-19", "a", hours=-50)
    second = keep("2026-01-05", "a", hours=2)
    first = keep("2026-01-05", "z", hours=1)
    assert decisions.recent() == [first, second, late]
    assert decisions.recent("2026-01-05") == [first, second]
    assert decisions.recent("2026-01-0") == []
    assert decisions.of("2026-01-05", "z") == first
    assert decisions.of("2026-01-19", "z") is None


def test_a_decision_is_never_changed(decisions, keep):
    first = keep("2026-01-05", "a")
    keep("2026-01-05", "a", reason="on second thoughts")
    assert decisions.recent() == [first]


def test_runs_whose_names_end_alike_are_told_apart(decisions, keep):
    keep("2026-01-05", "my-run-1")
    assert decisions.of("2026-01-05", "run-1") is None


def test_only_the_last_windows_and_looks_are_read(decisions, keep, monkeypatch):
    monkeypatch.setattr(module, "READ_WINDOWS", 2)
    monkeypatch.setattr(module, "READ_PER_WINDOW", 3)
    for window in ("2026-01-05", "2026-01-12", "2026-01-19"):
        for hour in range(5):
            keep(window, f"run-{9 - hour}", hours=hour)
    read = [(each.window, each.run) for each in decisions.recent()]
    assert read == [
        (window, run)
        for window in ("2026-01-12", "2026-01-19")
        for run in ("run-7", "run-6", "run-5")
    ]
