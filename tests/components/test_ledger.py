"""The ledger and the trigger events, on local disk and on a real S3 server."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.errors import LedgerError, StalePromotion
from components.ledger import Claim, Entry, Events, EventState, Ledger
from components.store import LocalStore, OutcomeUnknown, Store

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
RIVALS = 8  # SeaweedFS makes rivals wait in steps of a second


def promote(ledger: Ledger, bundle: str, expected: int, **other: Any) -> Entry:
    act = {"action": "promote", "key": f"run-{bundle}", "by": "run-1", "reason": "better"} | other
    return ledger.append(bundle=bundle, expected=expected, **act)


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store, "projects/sentiment")


@pytest.fixture
def events(store: Store) -> Events:
    return Events(store, "projects/sentiment")


# --- ledger


def test_an_empty_ledger_has_no_champion(ledger: Ledger) -> None:
    assert ledger.generation == 0
    assert ledger.entries() == []
    assert ledger.head() is ledger.previous() is ledger.at(NOON) is None


def test_the_last_entry_is_the_champion(ledger: Ledger, store: Store) -> None:
    first = promote(ledger, "aaa", 0, version="1")
    second = promote(ledger, "bbb", 1, version="2", at=NOON)
    assert ledger.entries() == [first, second]
    assert (ledger.head(), ledger.generation) == (second, 2)
    assert (second.number, second.at) == (2, "2026-11-21T12:00:00+00:00")
    assert datetime.fromisoformat(first.at).utcoffset() == timedelta(0)
    assert store.list() == [f"projects/sentiment/ledger/0000000{n}.json" for n in (1, 2)]


def test_a_stale_promotion_says_who_was_first_and_what_to_do(ledger: Ledger) -> None:
    promote(ledger, "aaa", 0, version="1")
    promote(ledger, "bbb", 1, version="7", by="run-2", at=NOON)
    with pytest.raises(StalePromotion) as caught:
        promote(ledger, "ccc", 1)
    for part in ("generation 1", "entry 2 = version 7", "promoted by run-2", "run again"):
        assert part in str(caught.value)
    assert ledger.generation == 2
    ledger.append(action="rollback", bundle="a" * 64, key="k", by="eve", reason="", expected=2)
    with pytest.raises(StalePromotion, match=r"bundle a{12}, restored by eve"):
        promote(ledger, "ccc", 2)


def test_trying_again_with_the_same_key_changes_nothing(ledger: Ledger) -> None:
    first = promote(ledger, "aaa", 0)
    assert promote(ledger, "aaa", 0, reason="again") == first
    promote(ledger, "bbb", 1)
    promote(ledger, "ccc", 2)
    assert promote(ledger, "aaa", 0) == first
    assert ledger.generation == 3
    with pytest.raises(ValueError, match="already stands for entry 1"):
        promote(ledger, "other", 0, key="run-aaa")


def test_one_of_many_promoters_wins(ledger: Ledger) -> None:
    start = threading.Barrier(RIVALS)

    def race(who: int) -> Entry | None:
        start.wait(30)
        try:
            return promote(ledger, f"bundle-{who}", 0)
        except StalePromotion:
            return None

    with ThreadPoolExecutor(RIVALS) as pool:
        won = [entry for entry in pool.map(race, range(RIVALS)) if entry]
    assert won == ledger.entries()
    assert len(won) == 1


def test_one_promotion_tried_many_times_at_once_is_one_entry(ledger: Ledger) -> None:
    with ThreadPoolExecutor(6) as pool:
        entries = list(pool.map(lambda _: promote(ledger, "aaa", 0), range(6)))
    assert entries == ledger.entries() * 6


def test_a_lost_answer_is_resolved_by_the_key(
    ledger: Ledger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, lost = store.create_if_absent, [True, False]

    def losing(key: str, data: bytes) -> bool:
        if lost and lost.pop(0):
            create(key, data)
            raise OutcomeUnknown("lost")
        return create(key, data)

    monkeypatch.setattr(store, "create_if_absent", losing)
    assert promote(ledger, "aaa", 0) == ledger.head()
    lost[:] = [True, True]  # the first arrived; the second is answered by nobody either
    with pytest.raises(OutcomeUnknown):
        promote(ledger, "bbb", 1)
    assert promote(ledger, "bbb", 1) == ledger.head()
    assert ledger.generation == 2


def test_a_hole_is_named(ledger: Ledger, tmp_path: Path) -> None:
    ledger = Ledger(LocalStore(tmp_path), "p")
    for number, bundle in enumerate("abc"):
        promote(ledger, bundle, number)
    (tmp_path / "p/ledger/00000002.json").unlink()
    for read in (ledger.entries, ledger.head, lambda: ledger.generation, ledger.previous):
        with pytest.raises(LedgerError, match=r"00000002\.json is missing, though .*00000003"):
            read()
    with pytest.raises(LedgerError, match="generation 7 was expected, but"):
        promote(Ledger(LocalStore(tmp_path), "q"), "d", 7)
    assert Ledger(LocalStore(tmp_path), "q").generation == 0


def test_a_listing_that_misses_a_record_is_no_hole(
    ledger: Ledger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, bundle in enumerate("abc"):
        promote(ledger, bundle, number)
    listing = store.list
    monkeypatch.setattr(store, "list", lambda prefix: listing(prefix)[::2])
    assert ledger.generation == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2, "new": 1}, "has schema version 2, .* upgrade Tokiwa"),
        ({"unknown": 1}, "cannot be read: unknown"),
        ({"action": "crown"}, "cannot be read: action"),
        ({"at": "2026-11-21T12:00:00"}, "cannot be read: at.*no offset"),
        ({"at": "noon"}, "cannot be read: at"),
        ({"number": 2}, "entry 1 calls itself 2"),
        ({"key": ""}, "cannot be read: key"),
        ({"schema_version": None}, "cannot be read: schema_version"),
        (None, "cannot be read: Invalid JSON"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, change: dict[str, Any] | None, message: str
) -> None:
    store = LocalStore(tmp_path)
    ledger = Ledger(store)
    entry = promote(ledger, "a", 0)
    content = {**json.loads(entry.to_json()), **change} if change else "{"
    store.put("ledger/00000001.json", (json.dumps(content) if change else "{").encode())
    with pytest.raises(LedgerError, match=message) as caught:
        ledger.head()
    assert "1" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(LedgerError, match=message):
        ledger.entries()


def test_foreign_objects_beside_the_entries_do_no_harm(ledger: Ledger, store: Store) -> None:
    promote(ledger, "a", 0)
    for name in ("README", "2.json", "00000000.json", "x/00000002.json", "00000002.json.bak"):
        store.put(f"projects/sentiment/ledger/{name}", b"?")
    store.put("projects/sentiment/ledger-of-others/00000002.json", b"?")
    assert ledger.generation == 1


def test_previous_is_the_champion_before_this_one(ledger: Ledger) -> None:
    first = promote(ledger, "aaa", 0)
    assert ledger.previous() is None
    promote(ledger, "aaa", 1, key="again", action="publish")
    assert ledger.previous() is None
    promote(ledger, "bbb", 2)
    published = promote(ledger, "aaa", 1, key="again", action="publish")
    assert ledger.previous() == published and published.number == 2
    promote(ledger, first.bundle, 3, key="back", action="rollback")
    assert ledger.previous() is None


def test_previous_was_not_rolled_back_from_since_it_was_promoted(ledger: Ledger) -> None:
    def previous_after(bundle: str, action: str = "promote") -> str | None:
        promote(ledger, bundle, ledger.generation, key=f"{ledger.generation}", action=action)
        before = ledger.previous()
        return before.bundle if before else None

    assert [previous_after(each) for each in ("a", "b", "c", "d")] == [None, "a", "b", "c"]
    assert previous_after("c", "rollback") == "b"
    assert previous_after("a", "rollback") is None  # b was passed over
    assert previous_after("c", "rollback") is None  # named; a was rolled back from
    assert previous_after("b") == "c"  # promoted again
    assert previous_after("c") == "b"
    assert previous_after("b", "rollback") is None


def test_at_tells_the_champion_of_a_moment(ledger: Ledger) -> None:
    tokyo = timezone(timedelta(hours=9))
    first = promote(ledger, "a", 0, at=NOON)
    second = promote(ledger, "b", 1, at=(NOON + 2 * HOUR).astimezone(tokyo))
    third = promote(ledger, "c", 2, at=NOON + HOUR)  # by a machine whose clock is slow
    assert ledger.at(NOON - HOUR) is None
    assert ledger.at(NOON) == first
    assert ledger.at(NOON + 1.5 * HOUR) == first
    assert ledger.at(NOON + 2 * HOUR) == third != second
    with pytest.raises(ValueError, match="no offset"):
        ledger.at(datetime(2026, 1, 1))


def test_a_careless_caller_is_told(tmp_path: Path) -> None:
    ledger = Ledger(LocalStore(tmp_path))
    with pytest.raises(ValueError, match="0 or more"):
        promote(ledger, "a", -1)
    with pytest.raises(ValueError, match="no offset"):
        promote(ledger, "a", 0, at=datetime(2026, 1, 1))
    with pytest.raises(ValidationError):
        promote(ledger, "", 0)
    assert ledger.generation == 0


@settings(deadline=None, max_examples=40)
@given(acts=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), max_size=12))
def test_any_mix_of_fresh_stale_and_repeated_acts_keeps_the_ledger_whole(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int]]
) -> None:
    ledger = Ledger(LocalStore(tmp_path_factory.mktemp("ledger")))
    model: list[tuple[str, str]] = []
    for bundle, lag in acts:
        expected = max(len(model) - lag, 0)
        key = f"{bundle}-{expected}"
        if expected == len(model):
            promote(ledger, bundle, expected, key=key)
            model.append((key, bundle))
        elif (key, bundle) in model[expected:]:
            assert promote(ledger, bundle, expected, key=key).number == expected + 1
        else:
            with pytest.raises(StalePromotion):
                promote(ledger, bundle, expected, key=key)
    assert [(entry.key, entry.bundle) for entry in ledger.entries()] == model


# --- events


def outcome(claim: Claim) -> tuple[str, str, bool]:
    return claim.outcome, claim.state.owner, claim.is_mine


def test_an_event_has_one_owner(events: Events) -> None:
    mine = events.claim("drift 2026-W47", "run-1", 60, now=NOON, detail="psi .4")
    assert outcome(mine) == ("claimed", "run-1", True)
    assert mine.state.lease_until == (NOON + timedelta(seconds=60)).isoformat()
    assert outcome(events.claim("drift 2026-W47", "run-2", 60, now=NOON)) == (
        "held",
        "run-1",
        False,
    )
    assert events.claim("drift 2026-W47", "run-1", 60, now=NOON) == mine
    assert outcome(events.claim("drift 2026-W48", "run-2", 60, now=NOON))[0] == "claimed"
    assert events.states("drift 2026-W47") == [mine.state]
    assert events.states("unknown") == []


def test_one_of_a_hundred_deliveries_gets_the_event(events: Events) -> None:
    with ThreadPoolExecutor(16) as pool:
        claims = list(pool.map(lambda n: events.claim("drift", f"run-{n}", 60), range(100)))
    (mine,) = (claim for claim in claims if claim.is_mine)
    assert {claim.state for claim in claims} == {mine.state}
    assert [claim.outcome for claim in claims].count("held") == 99
    assert events.states("drift") == [mine.state]


def test_one_of_many_takes_over_when_a_lease_runs_out(events: Events) -> None:
    events.claim("drift", "dead", 60, now=NOON)
    late = NOON + timedelta(seconds=60)
    assert not events.claim("drift", "early", 60, now=late - timedelta(seconds=1)).is_mine
    start = threading.Barrier(RIVALS)

    def race(who: int) -> Claim:
        start.wait(30)
        return events.claim("drift", f"run-{who}", 60, now=late)

    with ThreadPoolExecutor(RIVALS) as pool:
        claims = list(pool.map(race, range(RIVALS)))
    (mine,) = (claim for claim in claims if claim.is_mine)
    assert mine.outcome == "taken over"
    assert {claim.outcome for claim in claims if claim != mine} == {"held"}
    assert [state.owner for state in events.states("drift")] == ["dead", mine.state.owner]
    with pytest.raises(LedgerError, match="claimed by run-"):
        events.close("drift", "dead", "done")


def test_an_owner_renews_its_lease_only_after_it_ran_out(events: Events) -> None:
    events.claim("drift", "run-1", 60, now=NOON)
    again = events.claim("drift", "run-1", 60, now=NOON + HOUR)
    assert outcome(again) == ("claimed", "run-1", True)
    assert len(events.states("drift")) == 2
    assert not events.claim("drift", "run-2", 60, now=NOON + HOUR).is_mine


def test_a_failed_event_goes_to_the_next(events: Events) -> None:
    events.claim("drift", "run-1", 3600)
    failed = events.close("drift", "run-1", "failed", "out of memory")
    assert events.close("drift", "run-1", "failed") == failed
    assert outcome(events.claim("drift", "run-2", 3600)) == ("taken over", "run-2", True)
    assert [state.state for state in events.states("drift")] == ["claimed", "failed", "claimed"]


def test_a_done_event_stays_done(events: Events) -> None:
    events.claim("drift", "run-1", 60, now=NOON)
    done = events.close("drift", "run-1", "done", "version 2", now=NOON + HOUR)
    for owner in ("run-1", "run-2"):
        claim = events.claim("drift", owner, 60, now=NOON + 100 * HOUR)
        assert (claim.outcome, claim.is_mine, claim.state) == ("done", False, done)
    assert events.close("drift", "run-1", "done", "other words") == done
    with pytest.raises(LedgerError, match="it is done by run-1"):
        events.close("drift", "run-1", "failed")


def test_only_the_owner_closes(events: Events) -> None:
    with pytest.raises(LedgerError, match="nobody claimed it"):
        events.close("drift", "run-1", "done")
    events.claim("drift", "run-1", 60)
    with pytest.raises(LedgerError, match="run-2 cannot mark the event 'drift' as done"):
        events.close("drift", "run-2", "done")
    assert [state.state for state in events.states("drift")] == ["claimed"]


def test_all_tells_the_last_state_of_each_event(events: Events) -> None:
    assert events.all() == {}
    keys = ["drift", "Drift", "dérive / 漂移", "../../etc", "", "a" * 500, "drift!"]
    for key in keys[:4] + keys[5:]:
        events.claim(key, "run-1", 60)
    done = events.close("drift", "run-1", "done")
    assert set(events.all()) == {*keys} - {""}
    assert events.all()["drift"] == done
    assert events.all()["Drift"].state == "claimed"
    with pytest.raises(ValidationError):
        events.claim("", "run-1", 60)


def test_a_careless_owner_is_told(tmp_path: Path) -> None:
    events = Events(LocalStore(tmp_path))
    for lease_s in (0, -1):
        with pytest.raises(ValueError, match="more than 0"):
            events.claim("drift", "run-1", lease_s)
    with pytest.raises(ValueError, match="no offset"):
        events.claim("drift", "run-1", 1, now=datetime(2026, 1, 1))
    with pytest.raises(ValidationError):
        events.claim("drift", "", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 9}', "upgrade Tokiwa"),
        ("", "cannot be read"),
        (
            EventState(
                key="other",
                owner="o",
                state="done",
                at=NOON.isoformat(),
                lease_until=NOON.isoformat(),
            ).to_json(),
            "holds one of 'other'",
        ),
    ],
)
def test_an_event_that_cannot_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    store = LocalStore(tmp_path)
    events = Events(store)
    events.claim("drift", "run-1", 60)
    store.put(store.list("events/drift-")[0], text.encode())
    for read in (lambda: events.claim("drift", "run-1", 60), lambda: events.states("drift")):
        with pytest.raises(LedgerError, match=message):
            read()


@settings(deadline=None, max_examples=40)
@given(
    acts=st.lists(
        st.tuples(
            st.sampled_from(["claim", "done", "failed"]),
            st.sampled_from("xyz"),
            st.integers(0, 40),
        ),
        max_size=15,
    )
)
def test_any_history_has_one_holder_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, str, int]]
) -> None:
    events = Events(LocalStore(tmp_path_factory.mktemp("events")))
    now, holder, until, is_done = NOON, "", NOON, False
    for act, owner, minutes in acts:
        now += timedelta(minutes=minutes)
        if act == "claim":
            claim = events.claim("e", owner, 1800, now=now)
            is_free = not holder or now >= until
            assert claim.is_mine is (not is_done and (is_free or holder == owner))
            if claim.is_mine and (is_free or holder != owner):
                holder, until = owner, now + timedelta(seconds=1800)
        elif holder == owner:
            events.close("e", owner, "done" if act == "done" else "failed", now=now)
            holder, is_done = "", act == "done"
        else:
            last = events.states("e")[-1:]
            if not (last and (last[0].owner, last[0].state) == (owner, act)):
                with pytest.raises(LedgerError):
                    events.close("e", owner, "done" if act == "done" else "failed", now=now)


def test_one_owner_departs_at_a_time_and_trying_again_changes_nothing(events):
    for key, owner in (("a", "run-1"), ("b", "run-2"), ("c", "run-3")):
        assert events.claim(key, owner, 3600, now=NOON).is_mine
    for _ in range(2):
        assert events.depart("a", "run-1", now=NOON) is None
        for key, owner in (("b", "run-2"), ("c", "run-3")):
            state = events.depart(key, owner, now=NOON)
            assert state is not None and state.owner == "run-1"
    events.close("a", "run-1", "done", now=NOON)
    assert events.depart("b", "run-2", now=NOON) is None
    state = events.depart("c", "run-3", now=NOON)
    assert state is not None and state.owner == "run-2"
    # Its owner died: the lease is over.
    assert events.claim("c", "run-3", 3600, now=NOON + HOUR).is_mine
    assert events.depart("c", "run-3", now=NOON + HOUR) is None


def test_an_event_that_was_taken_over_departs_once_more(events):
    assert events.claim("a", "run-1", 3600, now=NOON).is_mine
    assert events.depart("a", "run-1", now=NOON) is None
    events.close("a", "run-1", "failed", now=NOON)
    assert events.claim("b", "run-2", 3600, now=NOON).is_mine
    assert events.depart("b", "run-2", now=NOON) is None
    # The first claim of this owner is another one than its second.
    assert events.claim("a", "run-1", 3600, now=NOON).is_mine
    state = events.depart("a", "run-1", now=NOON)
    assert state is not None and state.owner == "run-2"
