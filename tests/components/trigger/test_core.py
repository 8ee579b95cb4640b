from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from components.ledger import Events
from components.store import LocalStore
from components.trigger.core import TRIGGERS, Finding, TriggerConfig, decide

CALM = Finding(
    moved=False, moved_features=0, error_alarm=False, error_rate=None, error_rate_before=0.1
)
MOVED = CALM.model_copy(update={"moved": True, "moved_features": 7})
WORSE = CALM.model_copy(update={"error_alarm": True, "error_rate": 0.31})
BOTH = MOVED.model_copy(update={"error_alarm": True, "error_rate": 0.31})


@pytest.fixture
def events(tmp_path):
    return Events(LocalStore(tmp_path / "objects"), "projects/demo")


@pytest.fixture
def ask(events):
    def run(finding, *, run="run-1", champion="c" * 64, window="2026-01-12", **config):
        return decide(
            finding,
            champion=champion,
            window=window,
            run=run,
            events=events,
            config=TriggerConfig(**config),
        )

    return run


@pytest.mark.parametrize("cause", TRIGGERS)
def test_a_trigger_is_silent_without_evidence(cause):
    assert TRIGGERS[cause](CALM) is None
    assert TRIGGERS[cause](BOTH)


@pytest.mark.parametrize(
    ("finding", "on", "cause", "reason"),
    [
        (CALM, ("drift", "performance"), "", "nothing moved"),
        (MOVED, ("drift", "performance"), "drift", "7 input features moved"),
        (WORSE, ("drift", "performance"), "performance", "error rate rose from 0.100 to 0.310"),
        (BOTH, ("drift", "performance"), "drift", "7 input features moved"),
        (BOTH, ("performance", "drift"), "performance", "error rate rose"),
        (MOVED, ("performance",), "", "nothing moved"),
        (WORSE, ("drift",), "", "nothing moved"),
        (BOTH, (), "", "nothing moved"),
    ],
)
def test_the_first_cause_that_is_asked_for_and_fires_starts_a_retrain(
    ask, events, finding, on, cause, reason
):
    report = ask(finding, on=on)
    assert report.retrain == bool(cause)
    assert report.cause == cause
    assert report.reason.startswith(reason)
    assert bool(report.event) == bool(cause)
    assert list(events.all()) == ([report.event] if cause else [])


def test_one_event_starts_one_retrain(ask):
    assert ask(MOVED, run="run-1").retrain
    second = ask(MOVED, run="run-2")
    assert (second.retrain, second.event) == (False, "")
    assert second.reason.endswith("already being handled by run run-1")


def test_a_retry_of_the_same_run_still_retrains(ask):
    first = ask(MOVED, run="run-1")
    assert ask(MOVED, run="run-1") == first


def test_what_is_done_is_done_also_for_its_own_run(ask, events):
    event = ask(MOVED, run="run-1").event
    events.close(event, "run-1", "done")
    for run in ("run-1", "run-2"):
        report = ask(MOVED, run=run)
        assert not report.retrain
        assert report.reason.endswith("already handled by run run-1")


def test_a_failed_or_dead_retrain_is_taken_over(ask, events):
    event = ask(MOVED, run="run-1").event
    events.close(event, "run-1", "failed")
    assert ask(MOVED, run="run-2").retrain
    events.close(event, "run-2", "failed")
    long_ago = datetime.now(UTC) - timedelta(hours=3)
    events.claim(event, "run-3", lease_s=3600, now=long_ago)
    assert ask(MOVED, run="run-4").retrain


def test_the_lease_is_as_long_as_configured(ask, events):
    event = ask(MOVED, lease_hours=2).event
    (state,) = events.states(event)
    lasts = datetime.fromisoformat(state.lease_until) - datetime.fromisoformat(state.at)
    assert lasts == timedelta(hours=2)


def test_another_window_or_champion_is_another_event_and_another_cause_is_not(ask):
    reports = [
        ask(MOVED),
        ask(MOVED, window="2026-01-19", run="run-2"),
        ask(MOVED, champion="d" * 64, run="run-3"),
    ]
    assert all(report.retrain for report in reports)
    assert len({report.event for report in reports}) == 3
    again = ask(WORSE, run="run-4")
    assert (again.retrain, again.cause) == (False, "performance")
    assert "already being handled by run" in again.reason


@pytest.mark.parametrize(("row", "alarm"), [(None, False), (0, True), (17, True)])
def test_the_drift_report_is_read_for_what_matters(tmp_path, row, alarm):
    report = {
        "moved": True,
        "moved_features": 3,
        "error_alarm_row": row,
        "error_rate": None,
        "error_rate_before": 0.25,
        "headline": "drifted",
    }
    (tmp_path / "report").write_text(json.dumps(report))
    assert Finding.read(tmp_path / "report") == Finding(
        moved=True, moved_features=3, error_alarm=alarm, error_rate=None, error_rate_before=0.25
    )


def test_an_unknown_cause_is_refused():
    with pytest.raises(ValidationError):
        TriggerConfig(on=("boredom",))
