"""A window cut into parts of its time that are small enough to be sorted in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from components.windows import Window

CUT_ROWS = 1 << 19
"""About so many rows are sorted at a time."""
_INSTANT = timedelta(microseconds=1)

Span = tuple[datetime, datetime, int]
"""First and last moment of some rows, and how many they are."""


def cut(window: Window, spans: Sequence[Span]) -> list[Window]:
    """Return parts of a window, in order, that hold about ``CUT_ROWS`` rows or fewer each.

    How many a part holds is guessed: as if rows were spread evenly over their span. Rows of
    one instant stay together, and where there are none, there is no part.

    Args:
        window: what to cut.
        spans: of the rows in it, and perhaps of others.
    """
    inside = [span for span in spans if span[0] < window.ends and span[1] >= window.begins]
    if not inside:
        return []
    if _rows(window, inside) <= CUT_ROWS or window.ends - window.begins <= _INSTANT:
        return [window]
    return [part for half in window.slices(2) for part in cut(half, inside)]


def _rows(window: Window, spans: Sequence[Span]) -> float:
    """Return about how many rows of some spans are in a window."""
    found = 0.0
    for first, last, rows in spans:
        after = last + _INSTANT
        found += rows * ((min(window.ends, after) - max(window.begins, first)) / (after - first))
    return found
