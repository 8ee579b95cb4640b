from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from components.freeze import Freezes
from components.ledger import Ledger
from components.rollout.config import RolloutConfig, Stage
from components.rollout.judgement import judge
from components.rollout.observations import (
    Arm,
    Observations,
    Tally,
    answered,
    compared,
    failed,
)
from components.rollout.record import Rollouts, advance
from components.store import LocalStore

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
CONFIG = RolloutConfig(
    stages=[
        Stage(kind="shadow", requests=10),
        Stage(kind="canary", share=0.5, requests=10, minutes=5),
    ]
)
GOOD = Observations(
    champion=Arm(requests=50), challenger=Arm(requests=20), compared=20, disagreeing=1
)


class World:
    def __init__(self, store):
        self.ledger, self.freezes = Ledger(store, "demo"), Freezes(store, "demo")
        self.rollouts = Rollouts(store, "demo")
        self.promote("champion", 0)

    def promote(self, bundle, expected):
        return self.ledger.append(
            action="promote", bundle=bundle, key=bundle, by="t", reason="", expected=expected
        )

    def begin(self, key="run/b", config=CONFIG):
        return self.rollouts.begin(
            rollout=key,
            bundle=f"bundle of {key}",
            version=key,
            generation=1,
            config=config,
            by="run",
            why="better",
            at=NOW,
        )

    def advance(self, live, seen=GOOD, minutes=0.0, by="server"):
        return advance(
            self.rollouts,
            self.ledger,
            self.freezes,
            live,
            seen,
            by=by,
            now=datetime.fromisoformat(live.at) + timedelta(minutes=minutes),
        )


@pytest.fixture
def world(store):
    return World(store)


def test_a_rollout_goes_from_stage_to_stage_to_the_ledger(world):
    live = world.begin()
    judged, moved = world.advance(live)
    assert (judged.action, moved.words, moved.seen) == ("pass", "canary 50%", GOOD)
    assert world.advance(moved, minutes=4)[1] is None
    _, ended = world.advance(moved, minutes=5)
    assert (ended.state, ended.reason) == ("promoted", "serves as generation 2")
    head = world.ledger.head()
    assert (head.key, head.by, head.reason, head.version) == ("run/b", "run", "better", "run/b")
    assert world.rollouts.live() is None


def test_beginning_again_is_the_same_rollout(world):
    assert world.begin() == world.begin()
    world.rollouts.move(world.begin(), "rolled back", "bad", by="server")
    assert world.begin().state == "rolled back"
    assert len(world.rollouts.all()) == 2


def test_a_new_challenger_takes_the_place_of_one_that_is_tried(world):
    world.begin()
    world.begin("run/c")
    states = [(each.rollout, each.state) for each in world.rollouts.all()]
    assert states == [("run/b", "running"), ("run/b", "rolled back"), ("run/c", "running")]
    assert world.rollouts.all()[1].reason == "version run/c is tried instead"


def test_what_goes_wrong_rolls_back_with_its_reason(world):
    bad = GOOD + Observations(challenger=Arm(requests=9, failures={"late": 7, "died": 2}))
    judged, moved = world.advance(world.begin(), bad)
    assert (judged.action, moved.state) == ("fail", "rolled back")
    assert moved.reason.startswith("errors: 9 of 29 (31.0%), allowed 1.0%")
    assert "7 x late, 2 x died" in moved.reason
    assert world.ledger.generation == 1


def test_a_stage_that_sees_nobody_is_given_up_in_the_end(world):
    live = world.begin()
    assert world.advance(live, Observations(), 72 * 60 - 1)[1] is None
    _, moved = world.advance(live, Observations(), 72 * 60)
    assert moved.reason == "too few requests: after 72 hours only 0 of 10 copies"


def test_a_frozen_project_promotes_nobody_until_it_thaws(world):
    _, canary = world.advance(world.begin())
    world.freezes.set(frozen=True, by="eve", reason="incident", at=NOW)
    assert world.advance(canary, minutes=5)[1] is None
    world.freezes.set(frozen=False, by="eve", reason="solved", at=NOW)
    assert world.advance(canary, minutes=5)[1].state == "promoted"


def test_a_champion_that_moves_ends_the_rollout(world):
    live = world.begin()
    world.promote("another", 1)
    _, moved = world.advance(live)
    assert (moved.state, "generation 2 serves meanwhile" in moved.reason) == ("rolled back", True)


def test_who_breaks_off_after_the_ledger_finds_its_entry(world):
    _, canary = world.advance(world.begin())
    world.ledger.append(
        action="promote", bundle=canary.bundle, key=canary.rollout, by="r", reason="", expected=1
    )
    _, moved = world.advance(canary, Observations())
    assert (moved.state, moved.reason) == ("promoted", "serves as generation 2")


def test_of_many_movers_exactly_one_moves(tmp_path):
    world = World(LocalStore(tmp_path / "store"))
    live, moves = world.begin(), []
    go = threading.Barrier(8)

    def work(server):
        go.wait()
        moves.append(world.advance(live, by=server)[1])

    threads = [threading.Thread(target=work, args=(f"server {n}",)) for n in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len([move for move in moves if move is not None]) == 1
    assert [each.number for each in world.rollouts.all()] == [1, 2]


def test_what_servers_saw_is_added_up(world):
    live = world.begin()
    world.rollouts.keep(live, "one:8080", GOOD)
    world.rollouts.keep(live, "two", GOOD)
    world.rollouts.keep(live, "two", GOOD + GOOD)
    assert world.rollouts.observed(live) == GOOD + GOOD + GOOD
    assert world.rollouts.kept(live, "one:8080") == GOOD
    assert world.rollouts.kept(live, "three") == Observations()


def test_servers_that_are_silent_are_gone(world):
    world.rollouts.beat("one", NOW)
    world.rollouts.beat("two", NOW - timedelta(seconds=61))
    world.rollouts.beat("three", NOW)
    world.rollouts.leave("three")
    assert world.rollouts.servers(NOW) == ["one"]


def test_observations_are_sums():
    tally = Tally()
    for latency_ms in (1.0, 2.0, 400.0):
        tally.add(Observations(challenger=answered(latency_ms, 5.0)))
    tally.add(Observations(challenger=failed("late")))
    arm = tally.seen.challenger
    assert (arm.requests, arm.errors, arm.answered) == (4, 1, 3)
    middle, most = arm.quantile_ms(0.5), arm.quantile_ms(0.99)
    assert middle is not None and 2.0 <= middle <= 2.5
    assert most is not None and 400 <= most <= 500
    assert arm.moments.count == 3
    assert Arm().quantile_ms(0.5) is None


def test_rows_disagree_by_label_or_by_a_tenth_of_the_range():
    one, other = {"label": "a"}, {"label": "b"}
    half = Observations(compared=1, disagreeing=0.5)
    assert compared([one, one], [one, other], 1.0) == half
    assert compared([{"value": 1.0}] * 2, [{"value": 1.3}, {"value": 1.5}], 4.0) == half


def test_one_request_of_many_alike_rows_fails_no_stage_and_many_requests_do():
    one, other = [{"label": "a"}] * 256, [{"label": "b"}] * 256
    seen = compared(one, other, 1.0)
    assert judge(CONFIG.stages[0], CONFIG, seen, 0.0).action == "stay"
    for _ in range(9):
        seen += compared(one, other, 1.0)
    judged = judge(CONFIG.stages[0], CONFIG, seen, 0.0)
    assert judged.action == "fail"
    assert judged.reason.startswith("disagreement: 100.0% of a request's rows on average, in 10")


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        (["ab", "canary"], "a stage ab is the last one"),
        (["canary", "shadow"], "in the order shadow, canary, ab"),
        (["canary", "canary"], "grow from stage to stage"),
    ],
)
def test_stages_that_make_no_sense_are_refused(kinds, says):
    with pytest.raises(ValueError, match=says):
        RolloutConfig(stages=[Stage(kind=kind, share=0.5) for kind in kinds])
