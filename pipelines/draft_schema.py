"""Draft the section ``validate`` from rows: ``tokiwa draft-schema PROJECT``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import yaml

from components.declared_columns import numbers_in
from components.errors import BadInput
from components.resolve.core import MOVING, known_windows, window_called, windows_with_rows
from components.sources import open_source
from pipelines.project import ProjectConfig

FEW = 20
"""So many different values are named; more are no closed list."""
RARE = 10
"""Where a value has fewer rows, there may be others that have none yet."""
ROOM = 0.5
"""By this share of what was seen a range is wider on either side."""


def drafted(project: ProjectConfig, window: str) -> str:
    """Return the section ``validate`` that the rows of a window pass, as YAML.

    Raises:
        BadInput: the window has no rows.
    """
    source, now = open_source(project.source), datetime.now(UTC)
    if window in MOVING:
        filled = windows_with_rows(project.resolve, source, now)
        if not filled:
            raise BadInput(f"{project.name}: no whole window has rows yet")
        chosen = filled[-1]
    else:
        chosen = window_called(window, known_windows(project.resolve, now), project.name)
    frame = source.read(chosen).frame
    if frame.empty:
        raise BadInput(f"{project.name}: window {chosen.name} has no rows")
    columns: dict[str, dict[str, Any]] = {}
    names = ["label", *project.source.metadata]
    if project.task.content == "text":
        names = ["text", *names]
    for name in names:
        rules = dict(_rules(name, frame[name], project))
        if rules:
            columns[name] = rules
    head = (
        f"# Drafted from the {len(frame):,} rows of window {chosen.name}, with room on either "
        "side.\n# Keep what must hold of every row; a row that fails goes into quarantine.\n"
    )
    written = yaml.safe_dump(
        {"validate": {"columns": columns}}, allow_unicode=True, sort_keys=False, width=100
    )
    return head + written


def _rules(name: str, values: pd.Series[str], project: ProjectConfig) -> Iterator[tuple[str, Any]]:
    there = values.dropna()
    if there.empty:
        return
    missing = float(values.isna().mean())
    metadata = project.source.metadata.get(name)
    if name == "text":
        yield "max_characters", _rounded_up(int(there.str.len().max() * (1 + ROOM)))
    elif metadata is not None and metadata.kind == "number":
        numbers = numbers_in(there).dropna()
        if len(numbers):
            low, high = float(numbers.min()), float(numbers.max())
            room = (high - low) * ROOM
            # What was never negative seldom can be.
            yield "min", 0.0 if low >= 0 and low < room else _rounded(low - room)
            yield "max", _rounded(high + room)
    elif metadata is not None and _is_closed(there):
        yield "allowed", sorted(there.unique().tolist())
    if name == "label" or metadata is not None:
        yield "max_missing_share", min(1.0, round(2 * missing + 0.05, 2))


def _is_closed(values: pd.Series[str]) -> bool:
    """Tell whether all values there are were probably seen: they are few, and none is rare."""
    counts = values.value_counts()
    return len(counts) <= FEW and int(counts.min()) >= RARE


def _rounded(value: float) -> float:
    """Return a number with three digits that count."""
    return float(f"{value:.3g}")


def _rounded_up(count: int) -> int:
    """Return a round number that is no smaller.

    Examples:
        >>> _rounded_up(37), _rounded_up(2041)
        (40, 2100)
    """
    step = int(10 ** max(1, len(str(count)) - 2))
    return -(-count // step) * step
