from __future__ import annotations

import numpy as np
import pytest

from components.split import unit_interval
from pipelines.histories import LEARNT_SHARE, SHAPES, draw_history

BEFORE, AFTER = np.arange(400), np.arange(400, 700)
GROUPS = [f"g{row // 2}" for row in range(700)]


def later(window):
    return float((window.seen >= 400).mean())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_history_is_as_long_and_as_large_as_asked_and_repeatable(shape, seed):
    history = draw_history(BEFORE, AFTER, GROUPS, shape, windows=52, rows=100, seed=seed)
    assert len(history.windows) == 52
    assert {len(each.seen) for each in history.windows} == {100}
    assert {len(each.learnt) for each in history.windows} == {100}
    again = draw_history(BEFORE, AFTER, GROUPS, shape, windows=52, rows=100, seed=seed)
    assert again.changes == history.changes
    for one, two in zip(history.windows, again.windows, strict=True):
        assert (one.seen == two.seen).all() and (one.learnt == two.learnt).all()
    assert all(0 < each < 52 for each in history.changes)
    assert (shape == "none") == (history.changes == [])


@pytest.mark.parametrize("seed", range(5))
def test_the_world_changes_as_said(seed):
    def shares(shape):
        history = draw_history(BEFORE, AFTER, GROUPS, shape, windows=52, rows=300, seed=seed)
        return [later(each) for each in history.windows], history.changes

    share, (start,) = shares("abrupt")
    assert set(share[:start]) == {0} and set(share[start:]) == {1}
    assert 13 <= start <= 26

    share, (start,) = shares("gradual")
    assert set(share[:start]) == {0} and set(share[start + 12 :]) == {1}
    assert 0 < share[start] < share[start + 5] < share[start + 10] < 1

    share, changes = shares("recurring")
    assert len(changes) >= 3
    assert set(share) == {0, 1}
    assert [number for number in range(1, 52) if share[number] != share[number - 1]] == changes

    share, changes = shares("none")
    assert set(share) == {0} and changes == []


def test_no_group_is_both_learnt_from_and_seen():
    history = draw_history(BEFORE, AFTER, GROUPS, "recurring", rows=200, seed=1)
    place = unit_interval(GROUPS, "history")
    for each in history.windows:
        assert (place[each.learnt] < LEARNT_SHARE).all()
        assert (place[each.seen] >= LEARNT_SHARE).all()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="at least four windows"):
        draw_history(BEFORE, AFTER, GROUPS, "abrupt", windows=3)
    with pytest.raises(ValueError, match="needs rows to learn from"):
        draw_history(BEFORE, AFTER[:0], GROUPS, "abrupt")
