"""What every place where models are served promises to the deploy step."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from components.deploy.config import DeployConfig, KServeConfig
from components.deploy.targets import TARGETS, Site
from components.freeze import Freezes
from components.ledger import Ledger
from components.rollout.config import RolloutConfig, Stage
from components.rollout.observations import Arm, Observations
from components.rollout.record import Rollouts, advance
from components.store import LocalStore

SEEN = Observations(champion=Arm(requests=200), challenger=Arm(requests=200))


class Place:
    """A target with a champion in the ledger."""

    def __init__(self, name, store, prometheus):
        self.ledger, self.freezes = Ledger(store, "demo"), Freezes(store, "demo")
        self.rollouts, self.name = Rollouts(store, "demo"), name
        self.prometheus = prometheus
        self.ledger.append(
            action="promote", bundle="a" * 64, version="1", key="1", by="t", reason="", expected=0
        )
        kserve = KServeConfig(prometheus=prometheus.address, poll_s=0.01)
        stages = [Stage(kind="canary", share=0.2, requests=100)]
        self.rollout = RolloutConfig(stages=stages)
        self.config = DeployConfig(target=name, kserve=kserve, rollout=self.rollout)

    @property
    def target(self):
        site = Site("demo", self.ledger, self.freezes, self.rollouts, self.config)
        return TARGETS[self.name](site)

    def serve(self):
        """Let somebody serve here."""
        self.rollouts.beat("server", datetime.now(UTC))
        self.target.settle()

    def play(self, good):
        """Begin a rollout and let it come to its end, twice; return that end."""
        self.prometheus.versions = {"1": (200, 0, 0.01), "2": (200, 0 if good else 50, 0.01)}
        begun = self.rollouts.begin(
            rollout="run/b",
            bundle="b" * 64,
            version="2",
            generation=1,
            config=self.rollout,
            by="run",
            why="better",
        )
        end = self.target.follow(begun)
        if self.name == "local":  # whose servers move it on
            seen = SEEN if good else SEEN + Observations(broken="the challenger died")
            moved = advance(
                self.rollouts,
                self.ledger,
                self.freezes,
                end,
                seen,
                by="server",
                now=datetime.now(UTC),
            )[1]
            assert moved is not None
            end = moved
        assert self.target.follow(end) == end
        return end


@pytest.fixture(params=TARGETS)
def place(request, tmp_path, kserve_api, prometheus):
    return Place(request.param, LocalStore(tmp_path / "store"), prometheus)


def test_a_place_says_whether_anybody_serves(place):
    assert not place.target.is_serving()
    place.serve()
    assert place.target.is_serving()


def test_a_good_challenger_is_promoted_once(place):
    place.serve()
    assert place.play(good=True).state == "promoted"
    entries = place.ledger.entries()
    assert [entry.version for entry in entries] == ["1", "2"]
    assert entries[-1].key == "run/b"
    place.target.settle()
    assert place.ledger.generation == 2


def test_a_bad_challenger_is_rolled_back_with_a_reason(place):
    place.serve()
    end = place.play(good=False)
    assert end.state == "rolled back"
    assert end.reason
    assert place.ledger.generation == 1


def test_settling_twice_changes_nothing(place, kserve_api):
    place.serve()
    changes = len(kserve_api.changes)
    place.target.settle()
    assert len(kserve_api.changes) == changes
