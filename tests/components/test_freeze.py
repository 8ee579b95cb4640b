from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from components.errors import Frozen
from components.freeze import Freezes
from components.store import LocalStore

NOON = datetime(2026, 1, 12, 12, tzinfo=UTC)


def test_a_project_is_frozen_until_it_is_thawed(tmp_path):
    freezes = Freezes(LocalStore(tmp_path), "projects/demo")
    assert freezes.state() is None
    freezes.refuse("a promotion")
    first = freezes.set(frozen=True, by="eve", reason="an incident", at=NOON)
    assert freezes.state() == first
    with pytest.raises(Frozen, match=r"a promotion was stopped: frozen by eve at .*: an incident"):
        freezes.refuse("a promotion")
    # Who was first stays known.
    assert freezes.set(frozen=True, by="adam", reason="me too", at=NOON) == first
    freezes.set(frozen=False, by="adam", reason="solved", at=NOON)
    assert freezes.state() is None
    freezes.refuse("a promotion")
    assert [(each.frozen, each.by, each.reason) for each in freezes.all()] == [
        (True, "eve", "an incident"),
        (False, "adam", "solved"),
    ]
    assert Freezes(LocalStore(tmp_path), "projects/other").state() is None


def test_of_many_that_freeze_at_once_one_is_recorded(store):
    freezes, start = Freezes(store), threading.Barrier(4)

    def freeze(who):
        start.wait(30)
        return freezes.set(frozen=True, by=f"person {who}", reason="now", at=NOON)

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(freeze, range(4)))
    assert said == freezes.all() * 4
