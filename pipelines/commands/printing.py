"""How the commands show things: tables for people, JSON for programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from pipelines.console import err, out, plain_table, show_table

__all__ = ["out"]

_NEVER_WRAPPED = ("run", "window", "owner")


def print_json(value: Any) -> None:
    """Print a value for programs, on several lines."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Print rows under the names of columns; nothing if there are none."""
    rows = list(rows)
    if not rows:
        return
    table = plain_table(*columns)
    for column in table.columns:
        column.no_wrap = column.header in _NEVER_WRAPPED
    for row in rows:
        # Text, because what users wrote may look like rich's markup.
        cells = ("–" if row[column] is None else str(row[column]) for column in columns)
        table.add_row(*map(Text, cells))
    show_table(table)


def print_warning(words: str) -> None:
    """Say on standard error what is odd and stops nothing."""
    err.print(f"warning: {words}", style="yellow", markup=False, soft_wrap=True)


def print_replays(project: str, played: Iterable[str]) -> None:
    """Say how to see the promotions within replays, of which an empty id is none."""
    for each in dict.fromkeys(filter(None, played)):
        hint = (
            f"the promotions within that replay: tokiwa history {quoted(project)} --replay {each}"
        )
        out.print(hint, style="dim", markup=False, soft_wrap=True)


def quoted(project: str) -> str:
    """Return a project as it would have to be typed again."""
    return shlex.quote(project)


def to_the_second(moment: str) -> str:
    """Return ISO 8601 with an offset in UTC, to the second."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def relative(path: Path) -> str:
    """Return a path as short as a person would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
