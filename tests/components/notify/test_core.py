from __future__ import annotations

import json

import pytest

from components.ledger import Events
from components.notify.core import NotifyConfig, Outcome, close_event, conclude, to_html
from components.store import LocalStore

RESOLVED = {"window": "2026-01-12", "champion_version": "3"}
EVENT = "drift-2026-01-12-cccc"


def retrain(yes=True):
    return {
        "retrain": yes,
        "cause": "drift" if yes else "",
        "event": EVENT if yes else "",
        "reason": "7 input features moved" if yes else "nothing moved",
        "rules": [
            {
                "rule": "cooldown",
                "verdict": "passes",
                "measured": "36.0 hours since the last retrain",
                "threshold": "24 hours",
            }
        ]
        if yes
        else [],
    }


def registered(verdict):
    return {"verdict": verdict, "reason": "better than champion", "checks": ["better", "guarded"]}


def outcome(state="SUCCEEDED", error="", cause="manual", **records):
    return conclude(
        project="demo",
        run="run-1",
        cause=cause,
        state=state,
        error=error,
        records={"resolve": RESOLVED, **records},
    )


@pytest.mark.parametrize(
    ("records", "result", "reason", "version"),
    [
        (
            {"register": registered("promote"), "deploy": {"version": "4"}},
            "promoted",
            "better than champion",
            "4",
        ),
        (
            {"register": registered("promote"), "deploy": {"version": "4", "waits": True}},
            "waiting",
            "version 4 passed the gate and waits for approval: tokiwa promote demo 4 --reason …",
            "3",
        ),
        (
            {
                "register": registered("promote"),
                "deploy": {"version": "4", "waits": True, "frozen": "frozen by eve: an incident"},
            },
            "waiting",
            "version 4 passed the gate and waits for approval: tokiwa promote demo 4 --reason …; "
            "first thaw the project, frozen by eve: an incident",
            "3",
        ),
        ({"register": registered("keep")}, "kept", "better than champion", "3"),
        ({"register": registered("inconclusive")}, "inconclusive", "better than champion", "3"),
        ({"decline": {"reason": "one class"}}, "nothing to train on", "one class", "3"),
        ({"trigger": retrain(False)}, "quiet", "nothing moved", "3"),
        (
            {
                "trigger": retrain(),
                "register": registered("promote"),
                "deploy": {"version": "4"},
            },
            "promoted",
            "better than champion",
            "4",
        ),
    ],
)
def test_the_records_tell_how_a_run_ended(records, result, reason, version):
    found = outcome(**records)
    assert (found.result, found.reason, found.champion_version) == (result, reason, version)
    assert found.window == "2026-01-12"
    assert found.headline == f"{result}: {reason}"


def test_a_run_that_failed_after_its_promotion_has_promoted():
    records = {"register": registered("promote"), "deploy": {"version": "4"}}
    assert outcome("FAILED", "notify died", **records).result == "promoted"


@pytest.mark.parametrize(
    ("error", "reason"), [("task ingest failed", "task ingest failed"), ("", "a step failed")]
)
def test_a_run_that_failed_says_why(error, reason):
    found = outcome("FAILED", error, register=registered("promote"))
    assert found.result == "failed"
    assert found.reason.startswith(reason)
    assert found.champion_version == "3"


def test_a_run_that_failed_before_it_knew_anything_can_be_told():
    found = conclude(
        project="demo", run="run-1", cause="", state="FAILED", error="no source", records={}
    )
    assert (found.result, found.window, found.champion_version) == ("failed", "", "")
    assert "no source" in to_html(found, NotifyConfig())


@pytest.mark.parametrize(
    ("records", "cause"),
    [
        ({"register": registered("keep")}, "schedule"),
        ({"trigger": retrain(), "register": registered("keep")}, "drift"),
        ({"trigger": retrain(False)}, ""),
    ],
)
def test_the_cause_is_why_it_trained(records, cause):
    assert outcome(cause="schedule", **records).cause == cause


# --- the event ---


@pytest.fixture
def events(tmp_path):
    events = Events(LocalStore(tmp_path / "objects"), "projects/demo")
    events.claim(EVENT, "run-1", lease_s=3600)
    return events


@pytest.mark.parametrize(
    ("state", "records", "closed"),
    [
        ("SUCCEEDED", {"register": registered("keep")}, "done"),
        ("SUCCEEDED", {"decline": {"reason": "one class"}}, "failed"),
        ("FAILED", {}, "failed"),
    ],
)
def test_the_event_is_closed_as_the_run_ended(events, state, records, closed):
    for _ in range(2):  # a retry of notify
        found = outcome(state, trigger=retrain(), **records)
        close_event(found, events)
    assert [each.state for each in events.states(EVENT)] == ["claimed", closed]
    assert events.states(EVENT)[-1].detail == found.headline


def test_a_run_without_an_event_closes_none(events):
    close_event(outcome(trigger=retrain(False)), events)
    close_event(outcome(register=registered("keep")), events)
    assert [each.state for each in events.states(EVENT)] == ["claimed"]


def test_an_event_that_was_taken_over_is_left_to_the_other_run(events):
    events.close(EVENT, "run-1", "failed")
    events.claim(EVENT, "run-2", lease_s=3600)
    close_event(outcome(trigger=retrain(), register=registered("keep")), events)
    last = events.states(EVENT)[-1]
    assert (last.owner, last.state) == ("run-2", "claimed")


# --- for people and programs ---


def test_the_outcome_travels_as_json():
    found = outcome(trigger=retrain(), register=registered("keep"))
    assert Outcome.from_json(found.to_json()) == found
    assert json.loads(found.to_json())["records"]["trigger"]["cause"] == "drift"


def test_the_page_tells_everything_and_trusts_no_text():
    hostile = "<script>alert(1)</script>"
    records = {
        "trigger": retrain() | {"reason": hostile},
        "register": registered("promote") | {"reason": hostile, "checks": [hostile, "guarded"]},
        "deploy": {"version": "4"},
    }
    page = to_html(outcome(**records), NotifyConfig())
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 3
    for part in ("demo: 2026-01-12", "verdict good", "guarded", "run-1", "drift", "36.0 hours"):
        assert part in page
    assert "<title>Our model</title>" in to_html(outcome(), NotifyConfig(title="Our model"))


@pytest.mark.parametrize(
    ("state", "records", "mood"),
    [
        ("SUCCEEDED", {"register": registered("keep")}, "open"),
        ("SUCCEEDED", {"trigger": retrain(False)}, "good"),
        ("FAILED", {}, "bad"),
    ],
)
def test_the_page_has_the_mood_of_the_result(state, records, mood):
    assert f'class="verdict {mood}"' in to_html(outcome(state, **records), NotifyConfig())


def test_a_person_is_told_of_the_alerts_that_are_news():
    words = "level 2: inputs moved in window 2026-01-12"
    told = outcome(trigger={**retrain(yes=False), "news": [words]})
    assert told.alerts == [words]
    assert words in to_html(told, NotifyConfig())
    quiet = outcome(trigger=retrain(yes=False))
    assert quiet.alerts == [] and "Alerts" not in to_html(quiet, NotifyConfig())
