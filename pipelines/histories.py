"""Long histories resampled from real rows: worlds that change at once, slowly, by season, never.

A history is drawn from pools of rows, one for each state of the world, such as a project's
windows. Which rows a model learns from and which it is watched and judged on is told by a
hash of their group, so that no row is ever both, however often it is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from components.split import unit_interval

Shape = Literal["abrupt", "gradual", "recurring", "none"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
WINDOWS = 52
LEARNT_SHARE = 0.5
"""Share of groups whose rows are learnt from; production sees the others."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """One window of a history, as indices of rows.

    Attributes:
        seen: rows that production sees and that models are judged on.
        learnt: rows that a retrain on this window learns from.
    """

    seen: Indices
    learnt: Indices


@dataclass(frozen=True)
class History:
    """Windows in order.

    Attributes:
        windows: at least four.
        changes: numbers of the windows in which the world begins to change.
        shape: how it changes.
    """

    windows: list[Drawn]
    changes: list[int]
    shape: Shape


def draw_history(
    before: Indices,
    after: Indices,
    groups: Sequence[str],
    shape: Shape,
    *,
    windows: int = WINDOWS,
    rows: int = 500,
    seed: int = 0,
) -> History:
    """Draw a history from the rows of two states of the world, with replacement.

    Args:
        before: indices of the rows of the first state.
        after: of the second one.
        groups: of all rows.
        shape: ``abrupt`` changes between two windows in the middle half; ``gradual`` takes a
            quarter of the history to do so; ``recurring`` changes to and fro every quarter;
            ``none`` never does.
        windows: how many, at least four.
        rows: in each window that production sees; as many are learnt from.
        seed: of every draw.

    Raises:
        ValueError: too few windows, or a state has no rows of one kind.
    """
    if windows < 4:
        raise ValueError(f"a history has at least four windows, not {windows}")
    draw = np.random.default_rng(seed)
    is_learnt = unit_interval(groups, "history") < LEARNT_SHARE
    pools = {
        (state, learnt): pool[is_learnt[pool] == learnt]
        for state, pool in ((0, before), (1, after))
        for learnt in (False, True)
    }
    if not all(len(pool) for pool in pools.values()):
        raise ValueError("each state of the world needs rows to learn from and rows to be seen")
    share, changes = _share_of_after(shape, windows, draw)

    def some(part: float, learnt: bool) -> Indices:
        later = int(draw.binomial(rows, part))
        chosen = [
            draw.choice(pools[state, learnt], count)
            for state, count in ((0, rows - later), (1, later))
        ]
        return np.concatenate(chosen)

    drawn = [Drawn(seen=some(part, False), learnt=some(part, True)) for part in share]
    return History(windows=drawn, changes=changes, shape=shape)


def _share_of_after(
    shape: Shape, windows: int, draw: np.random.Generator
) -> tuple[NDArray[np.float64], list[int]]:
    """Return the share of the second state in each window, and when changes begin."""
    number, quarter = np.arange(windows), windows // 4
    start = int(draw.integers(quarter, windows - 2 * quarter + 1))
    if shape == "abrupt":
        return (number >= start).astype(np.float64), [start]
    if shape == "gradual":
        return np.clip((number - start + 1) / quarter, 0, 1), [start]
    if shape == "recurring":
        season = (number + int(draw.integers(0, quarter // 2 + 1))) // quarter
        changes = [int(each) for each in np.flatnonzero(np.diff(season)) + 1]
        return (season % 2).astype(np.float64), changes
    return np.zeros(windows), []
