from __future__ import annotations

import logging
import shutil
import threading
import time

import pytest

from components.errors import StoreError
from components.serve import follow
from components.serve.follow import NO_CHAMPION, WAITING, Follower
from components.serve.model import BundleModel


def word(follower):
    return follower.state.word


def served(follower):
    assert follower.state.served
    return follower.state.served


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(follow, "time", clock)
    return clock


class Loads:
    """Counts loads, and fails the next ones if told to."""

    def __init__(self):
        self.digests = []
        self.error = None

    def __call__(self, store, digest):
        self.digests.append(digest)
        if self.error:
            raise self.error
        return BundleModel.load(store, digest)


@pytest.fixture
def loads():
    return Loads()


def test_waits_for_the_first_champion(world, loads):
    follower = Follower(world.store, world.prefix, load=loads)
    follower.look()
    assert (word(follower), follower.state.trouble) == ("waiting", NO_CHAMPION)
    entry = world.promote(world.publish(1))
    follower.look()
    follower.look()
    assert word(follower) == "serving"
    assert served(follower).entry == entry
    assert loads.digests == [entry.bundle]


def test_who_waits_for_a_champion_says_so_once(world, loads, caplog):
    caplog.set_level("INFO")
    follower = Follower(world.store, world.prefix, poll_s=0.01, load=loads)
    told = threading.Event()
    with follower.following(lambda served: told.set()):
        while WAITING not in caplog.messages:
            time.sleep(0.01)
        world.promote(world.publish(1))
        assert told.wait(60)
    assert caplog.messages.count(WAITING) == 1


def test_same_bundle_under_a_new_generation_is_not_loaded_again(world, loads):
    digest = world.publish(1)
    follower = Follower(world.store, world.prefix, load=loads)
    world.promote(digest)
    follower.look()
    model = served(follower).model
    entry = world.promote(digest)
    follower.look()
    assert served(follower).entry == entry
    assert served(follower).model is model
    assert len(loads.digests) == 1


def test_a_bundle_that_does_not_verify_never_answers(world, clock, loads, caplog):
    caplog.set_level(logging.INFO)
    good, bad = world.publish(1), world.publish(2)
    weights = world.file(bad, "model.safetensors")
    genuine = weights.read_bytes()
    weights.write_bytes(genuine[:-1] + bytes([genuine[-1] ^ 1]))
    follower = Follower(world.store, world.prefix, load=loads)
    world.promote(good)
    follower.look()
    world.promote(bad)
    for _ in range(5):
        follower.look()
    assert word(follower) == "degraded"
    assert "generation 2 cannot be served" in follower.state.trouble
    assert served(follower).entry.bundle == good
    # It rests longer and longer between attempts, and says so once.
    assert loads.digests.count(bad) == 1
    for _ in range(200):
        clock.now += 1
        follower.look()
    assert 5 <= loads.digests.count(bad) <= 10
    assert sum("cannot be served" in line for line in caplog.messages) == 1
    # Mended, it is taken.
    weights.write_bytes(genuine)
    clock.now += follow.LONGEST_REST_S
    follower.look()
    assert word(follower) == "serving"
    assert served(follower).entry.number == 2


def test_a_rollback_ends_the_trouble_at_once(world, clock, loads):
    good, bad = world.publish(1), "0" * 64
    follower = Follower(world.store, world.prefix, load=loads)
    world.promote(good)
    follower.look()
    world.promote(bad)
    follower.look()
    assert word(follower) == "degraded"
    world.promote(good)
    follower.look()
    assert word(follower) == "serving"
    assert served(follower).entry.number == 3


def test_no_failure_of_a_load_ends_the_follower(world, clock, loads, caplog):
    follower = Follower(world.store, world.prefix, load=loads)
    loads.error = MemoryError("too large")
    world.promote(world.publish(1))
    for _ in range(3):
        clock.now += 10
        follower.look()
    assert word(follower) == "waiting"
    assert "MemoryError: too large" in follower.state.trouble
    assert len([one for one in caplog.records if one.exc_info]) == 1
    loads.error = None
    clock.now += follow.LONGEST_REST_S
    follower.look()
    assert word(follower) == "serving"


def test_a_store_that_goes_away_leaves_the_champion(world, loads, monkeypatch, caplog):
    follower = Follower(world.store, world.prefix, load=loads)
    world.promote(world.publish(1))
    follower.look()

    def away(*args):
        raise StoreError("cannot reach the store")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "list", away)
        for _ in range(3):
            follower.look()
    assert word(follower) == "degraded"
    assert follower.state.trouble == "the ledger cannot be read: cannot reach the store"
    assert sum("cannot reach" in line for line in caplog.messages) == 1
    follower.look()
    assert word(follower) == "serving"
    shutil.rmtree(world.store.root)
    follower.look()
    assert word(follower) == "degraded"
    assert served(follower).model.predict(["good"])


def test_poll_must_be_positive(world):
    with pytest.raises(ValueError, match="poll_s"):
        Follower(world.store, world.prefix, poll_s=0)
