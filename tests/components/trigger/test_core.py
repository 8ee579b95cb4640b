from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components import bundle
from components.decisions import READ_PER_WINDOW, Decisions
from components.errors import LedgerError
from components.freeze import Freezes
from components.ledger import Events
from components.records import Records
from components.store import LocalStore
from components.trigger.config import GovernorConfig
from components.trigger.core import Finding, TriggerConfig, decide, end_of_training

NOON = datetime(2026, 1, 12, 12, tzinfo=UTC)
CALM = Finding(moved=False, performance_before=0.9, summary="quiet")
MOVED = CALM.model_copy(update={"moved": True, "moved_features": 7})
WORSE = CALM.model_copy(update={"hurts": True, "performance": 0.6, "drop": 1 / 3})
BOTH = MOVED.model_copy(update={"hurts": True, "performance": 0.6, "drop": 1 / 3})
HARMLESS = MOVED.model_copy(update={"hurts": False, "performance": 0.89})
LEDGER = "projects/demo"
PROCESSES, DELIVERIES = 8, 100


@pytest.fixture
def disk(tmp_path):
    return LocalStore(tmp_path / "objects")


@pytest.fixture
def events(disk):
    return Events(disk, LEDGER)


@pytest.fixture
def ask(disk):
    """Decide on a finding, so many days after the first look."""

    def run(
        finding,
        *,
        run="run-1",
        champion="c" * 64,
        window="",
        days=0.0,
        request="",
        learnt_until=None,
        seen_until=None,
        probe=(True, "it may gain", "2 points"),
        governor=None,
        **config,
    ):
        now = NOON + timedelta(days=days)
        return decide(
            finding,
            champion=champion,
            window=window or f"{now:%Y-%m-%d}",
            run=run,
            now=now,
            request=request,
            store=disk,
            ledger=LEDGER,
            config=TriggerConfig(**config, governor=GovernorConfig(**governor or {})),
            probe=lambda policy: probe,
            learnt_until=learnt_until,
            seen_until=seen_until,
        )

    return run


@pytest.mark.parametrize(
    ("finding", "on", "cause", "reason"),
    [
        (CALM, ("drift", "performance"), "", "nothing speaks for a retrain"),
        (CALM.model_copy(update={"enough": False}), ("drift",), "", "not enough data for a"),
        (MOVED, ("drift", "performance"), "drift", "7 input features moved"),
        (WORSE, ("drift", "performance"), "performance", "measured performance fell by 33.3%"),
        (BOTH, ("drift", "performance"), "drift", "7 input features moved; measured perf"),
        (BOTH, ("performance", "drift"), "performance", "measured performance fell"),
        (MOVED, ("performance",), "", "nothing speaks for a retrain"),
        (WORSE, ("drift",), "", "nothing speaks for a retrain"),
        (BOTH, (), "", "nothing speaks for a retrain"),
    ],
)
def test_the_first_cause_that_is_asked_for_and_fires_starts_a_retrain(
    ask, events, finding, on, cause, reason
):
    decision = ask(finding, on=on)
    assert decision.retrain == bool(cause) == (decision.action == "retrain")
    assert decision.cause == cause
    assert decision.reason.startswith(reason)
    assert decision.headline == f"{'retrain' if cause else 'no retrain'}: {decision.reason}"
    assert bool(decision.event) == bool(cause)
    assert list(events.all()) == ([decision.event] if cause else [])


def test_every_decision_is_kept_with_its_reasons(ask, disk):
    made = [ask(CALM), ask(MOVED, days=7, run="run-2"), ask(HARMLESS, days=14, run="run-3")]
    kept = Decisions(disk, LEDGER).recent()
    assert kept == made
    assert [each.action for each in kept] == ["wait", "retrain", "wait"]
    assert set(kept[0].triggers) == {"manual", "drift", "performance", "schedule"}
    assert not any(kept[0].triggers.values())
    assert kept[0].rules == []
    (refusal,) = (each for each in kept[2].rules if each.verdict == "refuses")
    assert refusal.rule == "harm"
    assert kept[2].reason == refusal.measured
    assert "not hurt" in kept[2].reason
    assert [each.at for each in kept] == [
        (NOON + timedelta(days=days)).isoformat() for days in (0, 7, 14)
    ]


def test_one_event_starts_one_retrain(ask):
    assert ask(MOVED, run="run-1").retrain
    second = ask(MOVED, run="run-2")
    assert (second.retrain, second.event) == (False, "")
    assert second.reason == "already being handled by run run-1"


def test_a_retry_of_the_same_run_decides_as_before(ask):
    for finding, run in ((MOVED, "run-1"), (CALM, "run-2")):
        first = ask(finding, run=run)
        assert ask(finding, run=run) == first


def test_what_is_done_is_done_also_for_its_own_run(ask, events):
    event = ask(MOVED, run="run-1").event
    events.close(event, "run-1", "done")
    for run in ("run-1", "run-2"):
        decision = ask(MOVED, run=run)
        assert not decision.retrain
        assert decision.reason == "already handled by run run-1"


def test_a_failed_or_dead_retrain_is_taken_over_without_a_pause(ask, events):
    event = ask(MOVED, run="run-1").event
    events.close(event, "run-1", "failed")
    second = ask(MOVED, run="run-2", days=0.1)
    assert (second.retrain, second.event) == (True, event)
    # run-2 dies without a word: its lease ends.
    assert not ask(MOVED, run="run-3", days=1.0, window="2026-01-12").retrain
    third = ask(MOVED, run="run-4", days=1.2, window="2026-01-12")
    assert (third.retrain, third.event) == (True, event)
    # What dies each time is not tried for ever.
    events.close(event, "run-4", "failed")
    fourth = ask(MOVED, run="run-5", days=1.3, window="2026-01-12")
    assert (fourth.retrain, fourth.reason) == (
        False,
        "run run-4 left it, after 3 attempts in all",
    )


def test_an_event_that_was_taken_over_was_one_retrain_in_vain(ask, events):
    event = ask(MOVED, run="run-1").event
    events.close(event, "run-1", "failed")
    assert ask(MOVED, run="run-2").event == event
    events.close(event, "run-2", "done")
    again = ask(MOVED, run="run-3", days=1.9)
    (cooldown,) = (rule for rule in again.rules if rule.rule == "cooldown")
    assert cooldown.verdict == "refuses"
    assert cooldown.threshold == "48 hours, after 1 retrain of this champion in vain"


def test_the_lease_is_as_long_as_configured(ask, events):
    event = ask(MOVED, lease_hours=2).event
    (state,) = events.states(event)
    lasts = datetime.fromisoformat(state.lease_until) - datetime.fromisoformat(state.at)
    assert lasts == timedelta(hours=2)
    assert state.at == NOON.isoformat()


def test_another_window_champion_or_cause_is_another_event(ask, events):
    patient = {"governor": {"cooldown_hours": 0}}
    reports = [
        ask(MOVED, **patient),
        ask(MOVED, window="2026-01-19", run="run-2", days=2, **patient),
        ask(MOVED, champion="d" * 64, run="run-3", days=4, **patient),
        ask(WORSE, run="run-4", days=6, window="2026-01-12", **patient),
    ]
    assert [each.retrain for each in reports] == [True] * 4
    assert len({each.event for each in reports}) == 4


def test_no_second_retrain_flies_beside_the_first(ask, events):
    first = ask(MOVED)
    beside = ask(MOVED, window="2026-01-19", run="run-2", governor={"cooldown_hours": 0})
    assert (beside.retrain, beside.reason) == (False, "run run-1 retrains")
    assert list(events.all()) == [first.event]


def test_of_two_that_claim_at_once_one_stands_back(ask, events, monkeypatch):
    """Another event is claimed after this run looked who flies, and before its own claim."""
    claim = Events.claim

    def late(self, key, owner, lease_s, **given):
        monkeypatch.setattr(Events, "claim", claim)
        claim(self, "another event", "run-9", lease_s, now=given["now"])
        assert self.depart("another event", "run-9", now=given["now"]) is None
        return claim(self, key, owner, lease_s, **given)

    monkeypatch.setattr(Events, "claim", late)
    decision = ask(MOVED)
    assert (decision.retrain, decision.reason) == (False, "run run-9 retrains")
    states = {state.owner: state.state for state in events.all().values()}
    assert states == {"run-9": "claimed", "run-1": "failed"}


@pytest.mark.parametrize("events_at_once", [2, 3, 6])
def test_of_many_events_at_once_one_starts_a_retrain(disk, events_at_once):
    """None is worse than two: what stands back for each other is lost until somebody looks."""
    for attempt in range(5):
        ledger = f"{LEDGER}/{attempt}"
        together = threading.Barrier(12)

        def look(number, ledger=ledger, together=together):
            together.wait()
            window = f"2026-01-{12 + number % events_at_once:02d}"
            return _deliver(disk, f"run-{number}", window=window, ledger=ledger)

        with ThreadPoolExecutor(12) as pool:
            decisions = list(pool.map(look, range(12)))
        held = [each for each in Events(disk, ledger).all().values() if each.state == "claimed"]
        assert sum(each.retrain for each in decisions) == len(held) == 1


def test_who_stood_back_did_not_try(ask, events, monkeypatch):
    """However often two events collide, neither is given up for it."""
    claim = Events.claim

    def late(self, key, owner, lease_s, **given):
        claim(self, "another event", "run-9", lease_s, now=given["now"])
        assert self.depart("another event", "run-9", now=given["now"]) is None
        return claim(self, key, owner, lease_s, **given)

    for number in range(4):
        monkeypatch.setattr(Events, "claim", late)
        assert ask(MOVED, run=f"run-{number}").reason == "run run-9 retrains"
        monkeypatch.setattr(Events, "claim", claim)
        events.close("another event", "run-9", "failed")
    assert ask(MOVED, run="run-5").retrain


def test_a_retrain_is_remembered_however_often_was_looked_since(ask, events):
    first = ask(MOVED, window="2026-01-12")
    events.close(first.event, "run-1", "done")
    for look in range(READ_PER_WINDOW + 1):
        ask(CALM, window="2026-01-12", run=f"look-{look}", days=0.01 * (look + 1))
    after = ask(MOVED, window="2026-01-12", run="run-2", days=0.9, champion="d" * 64)
    assert (after.retrain, after.reason) == (False, "21.6 hours since the last retrain")


def test_a_run_that_is_killed_at_any_call_of_the_store_retrains_once_when_it_is_tried_again(
    tmp_path,
):
    """Before a call, or after it and before its answer; another run delivers the same event."""
    for after in (False, True):
        for fatal in itertools.count():
            disk = LocalStore(tmp_path / f"{after}-{fatal}")
            died = False
            try:
                _deliver(Mortal(disk, fatal, after), "run-1")
            except Killed:
                died = True
            decisions = [_deliver(disk, run) for run in ("run-1", "run-2", "run-1")]
            assert [each.retrain for each in decisions] == [True, False, True]
            kept = {each.run: each.retrain for each in Decisions(disk, LEDGER).recent()}
            assert kept == {"run-1": True, "run-2": False}
            assert [each.owner for each in Events(disk, LEDGER).all().values()] == ["run-1"]
            if not died:
                break
        assert fatal > 5


class Killed(Exception):
    """The process ends here."""


class Mortal:
    """A store that is called so often and no more."""

    def __init__(self, store, fatal, after):
        self._store, self._left, self._after = store, fatal, after

    def __getattr__(self, name):
        call = getattr(self._store, name)

        def counted(*given, **named):
            self._left -= 1
            if self._left < 0 and not self._after:
                raise Killed
            answer = call(*given, **named)
            if self._left < 0:
                raise Killed
            return answer

        return counted


def _deliver(store, run, *, window="2026-01-12", ledger=LEDGER):
    return decide(
        MOVED,
        champion="c" * 64,
        window=window,
        run=run,
        now=NOON,
        request="",
        store=store,
        ledger=ledger,
        config=TriggerConfig(),
        probe=lambda policy: (None, "", ""),
    )


def test_a_retrain_in_vain_makes_the_next_pause_longer(ask, events):
    event = ask(MOVED).event
    events.close(event, "run-1", "done")
    again = ask(MOVED, run="run-2", days=1.5)
    assert not again.retrain
    assert again.reason == "36.0 hours since the last retrain"
    assert ask(MOVED, run="run-3", days=2).retrain


def test_a_frozen_project_decides_and_trains_nothing(ask, disk):
    freezes = Freezes(disk, LEDGER)
    freezes.set(frozen=True, by="eve", reason="an incident", at=NOON)
    for number, request in enumerate(("", "adam: please")):
        decision = ask(MOVED, request=request, run=f"run-{number}")
        assert not decision.retrain
        assert "frozen by eve" in decision.reason and "an incident" in decision.reason
    freezes.set(frozen=False, by="eve", reason="solved", at=NOON)
    assert ask(MOVED, run="run-3").retrain


@pytest.mark.parametrize(
    ("finding", "governor", "action"),
    [
        (HARMLESS, {"moved_unhurt": "label"}, "label"),
        (HARMLESS, {"moved_unhurt": "ignore"}, "wait"),
        (HARMLESS, {"moved_unhurt": "retrain"}, "retrain"),
        (MOVED, {"min_labelled_rows": 10}, "label"),
        (WORSE, {"min_labelled_rows": 10}, "wait"),
    ],
)
def test_where_labels_are_wanted_first_the_decision_says_so(ask, finding, governor, action):
    decision = ask(finding, governor=governor)
    assert (decision.action, decision.retrain) == (action, action == "retrain")


def test_labels_that_never_come_lead_to_no_retrain_and_are_asked_for_each_time(ask):
    for week in range(4):
        decision = ask(MOVED, days=7 * week, run=f"run-{week}", governor={"min_labelled_rows": 10})
        assert decision.headline == "no retrain, label first: 0 labelled rows are new"


@pytest.mark.parametrize(
    ("finding", "on", "asked"),
    [
        (WORSE, ("performance",), True),
        (BOTH, ("drift", "performance"), True),
        (WORSE.model_copy(update={"measured": False}), ("performance",), False),
        (MOVED, ("drift",), False),
        (MOVED.model_copy(update={"labelled_rows": 5000}), ("volume",), True),
    ],
)
def test_the_probe_is_asked_where_labels_speak_for_a_retrain(ask, finding, on, asked):
    decision = ask(finding, on=on, probe=(False, "it gains nothing", "2 points"))
    assert decision.retrain is not asked
    assert decision.rules[-1].verdict == ("refuses" if asked else "not asked")
    if asked:
        assert decision.reason == "it gains nothing"
    assert ask(finding, on=on, run="run-2", governor={"probe": None}).retrain is asked


def test_what_a_person_asks_for_is_trained_in_spite_of_the_probe(ask):
    decision = ask(WORSE, request="eve: try it", probe=(False, "it gains nothing", "2 points"))
    assert (decision.retrain, decision.cause) == (True, "manual")
    assert decision.rules[-1].verdict == "overridden"


def test_only_labels_that_came_since_the_last_retrain_make_volume(ask, events):
    volume = {"on": ("volume",), "governor": {"cooldown_hours": 0}}
    many = CALM.model_copy(update={"labelled_rows": 1000})
    first = ask(many, **volume)
    assert first.retrain
    events.close(first.event, "run-1", "done")
    more = CALM.model_copy(update={"labelled_rows": 1999})
    assert not ask(more, run="run-2", days=7, **volume).retrain
    enough = CALM.model_copy(update={"labelled_rows": 2000})
    assert ask(enough, run="run-3", days=14, **volume).retrain


def test_a_schedule_counts_from_what_was_learnt_or_the_last_retrain(ask, events):
    monthly = {"on": ("schedule",), "learnt_until": NOON - timedelta(days=20)}
    assert not ask(CALM, **monthly).retrain
    first = ask(CALM, run="run-2", days=8, **monthly)
    assert first.retrain
    assert first.reason == "the champion has learnt nothing of the last 28 days"
    events.close(first.event, "run-2", "done")
    assert not ask(CALM, run="run-3", days=35, **monthly).retrain
    assert ask(CALM, run="run-4", days=36, **monthly).retrain


def test_a_schedule_goes_by_the_time_of_the_rows_that_are_looked_at(ask):
    late = {"on": ("schedule",), "days": 300.0}
    old = NOON + timedelta(days=7)
    assert not ask(CALM, learnt_until=NOON, seen_until=old, **late).retrain
    assert ask(CALM, run="run-2", learnt_until=NOON, **late).retrain
    # A window without an end has been seen until now; a champion of one has learnt for ever.
    for_ever = datetime(9999, 12, 31, tzinfo=UTC)
    assert not ask(CALM, run="run-3", learnt_until=for_ever, seen_until=for_ever, days=1).retrain


def test_the_end_of_the_training_is_read_from_the_bundle(disk, tiny_task):
    for champion, lineage in (("c" * 64, {}), ("d" * 64, {"window_end": NOON.isoformat()})):
        learnt = bundle.Description(
            task=tiny_task, recipe={}, lineage=lineage, scores={}, test_share=0.2, examples=[]
        )
        disk.put(f"{bundle.key_of(champion)}/{bundle.DESCRIPTION}", learnt.to_json().encode())
    assert end_of_training("c" * 64, disk) is None
    assert end_of_training("d" * 64, disk) == NOON


def test_every_training_counts_for_the_budget(ask, disk, events):
    for name, days, hours in (("old", -8, 90.0), ("weekly", -2, 3.0), ("by-hand", -1, 4.0)):
        records = Records(disk, LEDGER, name)
        records.write("resolve", {"now": (NOON + timedelta(days=days)).isoformat()})
        records.write("register", {"device_hours": hours})
    refused = ask(MOVED, governor={"device_hours_per_week": 10.0})
    assert refused.reason == "7.00 device-hours in seven days, 4.00 for one more"
    allowed = ask(MOVED, run="run-2", governor={"device_hours_per_week": 11.0})
    assert allowed.retrain
    # A retrain without an account counts as the last one did.
    events.close(allowed.event, "run-2", "failed")
    strict = {"device_hours_per_week": 14.9}
    third = ask(MOVED, run="run-3", governor=strict)
    assert third.reason == "11.00 device-hours in seven days, 4.00 for one more"


def test_a_decision_tells_of_alerts_once_and_keeps_what_it_told(ask):
    alarming = HARMLESS.model_copy(update={"alerts": {"input": 2}})
    first, second = ask(alarming), ask(alarming, days=7, run="run-2")
    assert first.news == ["level 2: inputs moved in window 2026-01-12"]
    assert (second.alerts, second.news) == ({"input": 2}, [])
    assert ask(alarming) == first
    graver = alarming.model_copy(update={"alerts": {"input": 2, "error": 3}})
    (told,) = ask(graver, days=14, run="run-3").news
    assert told.startswith("level 3: errors rose in window ")


def test_a_decision_that_cannot_be_read_is_named(ask, disk):
    ask(CALM)
    (key,) = disk.list(f"{LEDGER}/decisions/")
    disk.put(key, b"{")
    with pytest.raises(LedgerError, match=r"decisions/2026-01-12/.*-run-1\.json cannot be read"):
        ask(MOVED, run="run-2")


@pytest.mark.parametrize(
    # SeaweedFS makes rivals wait in steps of a second.
    "store",
    ["local", pytest.param("s3", marks=[pytest.mark.slow, pytest.mark.e2e])],
    indirect=True,
)
def test_a_hundred_deliveries_of_one_event_start_one_retrain(store, tmp_path):
    """Eight real processes, on disk and on S3."""
    share = [DELIVERIES // PROCESSES + (n < DELIVERIES % PROCESSES) for n in range(PROCESSES)]
    go = tmp_path / "go"
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                Path(__file__).with_name("delivering_worker.py"),
                *(store.uri("x").removesuffix("/x"), LEDGER, str(go), str(number), str(count)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, count in enumerate(share)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    go.touch()
    said = [
        json.loads(line)
        for worker in workers
        for line in worker.communicate(timeout=120)[0].splitlines()
    ]
    assert len(said) == DELIVERIES
    (winner,) = (each for each in said if each["retrain"])
    (state,) = Events(store, LEDGER).states(winner["event"])
    assert (state.owner, state.state) == (winner["run"], "claimed")
    stored = [store.get(key) for key in store.list(f"{LEDGER}/decisions/")]
    assert len(stored) == DELIVERIES
    assert sum(json.loads(each)["retrain"] for each in stored) == 1
