"""Whose rows are to be forgotten: recorded, and left out of everything that is read later.

::

    {prefix}/erasures/00000001.json

A record names nobody: it keeps a digest of the id or the group. Whoever knows the id can tell
that it was forgotten, and so can every later run; nobody can read it from there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.ledger import Moment, Name, Series
from components.records import Records
from components.settings import Section, digest_of
from components.store import Store
from components.windows import Window

By = Literal["id", "group"]
"""The column that names what is to be forgotten."""
LINE = "raw"
"""Column of what a source could not read as a row, which has neither."""


class Erasure(Section):
    """What was to be forgotten at once, and who asked for it."""

    schema_version: int = 1
    number: int
    by: Name
    at: Moment
    reason: str
    column: By
    digests: list[str]
    lines: list[str] = []
    """Digests of lines that name them and could not be read as rows."""
    windows: list[str] = []
    """Of the rows that a model may have learnt from by then; test rows are none of them."""


def digest_of_name(name: str) -> str:
    """Return what stands for an id or a group in a record."""
    return digest_of(["forgotten", name])


@dataclass(frozen=True)
class Forgotten:
    """Digests of all that is to be forgotten, by column."""

    digests: dict[str, frozenset[str]]

    @property
    def key(self) -> str:
        """Another one for anything else to forget."""
        return digest_of([sorted(digests) for digests in self.digests.values()])

    def __bool__(self) -> bool:
        return any(self.digests.values())

    def rows(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Tell which rows of a frame are to be forgotten ``[n]``."""
        found = np.zeros(len(frame), dtype=bool)
        for column, digests in self.digests.items():
            if digests and column in frame:
                names = frame[column].to_numpy(object)
                found |= np.array(
                    [name is not None and digest_of_name(str(name)) in digests for name in names],
                    dtype=bool,
                )
        return found

    def line(self, raw: str) -> bool:
        """Tell whether what could not be read as a row is to be forgotten."""
        return digest_of_name(raw) in self.digests.get(LINE, ())


class Erasures:
    """All that a project is to forget."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Name the place; nothing is written yet."""
        self._series = Series(store, f"{prefix}/erasures", 8, Erasure)

    def add(
        self,
        column: By,
        names: Sequence[str],
        by: str,
        reason: str,
        at: datetime,
        lines: Iterable[str] = (),
        windows: Iterable[str] = (),
    ) -> Erasure:
        """Record that rows are to be forgotten; twice is harmless.

        Args:
            column: what the names are of.
            names: ids or groups, as the rows have them.
            by: who asked for it.
            reason: why.
            at: when.
            lines: that name them and could not be read as rows.
            windows: names of those whose training rows they are.
        """
        digests = sorted({digest_of_name(name) for name in names})
        unread = sorted({digest_of_name(line) for line in lines})
        while True:  # each turn without an answer means that somebody else was first
            number = self._series.last() + 1
            made = Erasure(
                number=number,
                by=by,
                at=at.isoformat(),
                reason=reason,
                column=column,
                digests=digests,
                lines=unread,
                windows=sorted(set(windows)),
            )
            if self._series.create(number, made):
                return made

    @property
    def last(self) -> int:
        """The number of the last one, 0 for none."""
        return self._series.last()

    def all(self) -> list[Erasure]:
        """Return all of them in the order in which they came."""
        return [self._series.read(number) for number in range(1, self._series.last() + 1)]

    def since(self, number: int, windows: Container[str]) -> list[Erasure]:
        """Return those after a number whose rows a model that read some windows learnt from."""
        later = (self._series.read(each) for each in range(number + 1, self._series.last() + 1))
        return [each for each in later if any(name in windows for name in each.windows)]

    def forgotten(self) -> Forgotten:
        """Return what they say together."""
        records = self.all()
        found = {
            column: frozenset(
                digest for each in records if each.column == column for digest in each.digests
            )
            for column in get_args(By)
        }
        lines = frozenset(digest for each in records for digest in each.lines)
        return Forgotten(found | ({LINE: lines} if lines else {}))


def forgotten_since(store: Store, prefix: str, run: str) -> str:
    """Return why a run's model should not serve: rows that it read were forgotten since.

    Args:
        store: of the project.
        prefix: of its ledger.
        run: that trained the model.

    Returns:
        Words for people; empty where nothing was forgotten, or nothing is known of the run.
    """
    plan = Records(store, prefix, run).of("resolve").get("plan")
    if plan is None:
        return ""
    windows = {Window.model_validate(each["window"]).name for each in plan["data"]["windows"]}
    later = Erasures(store, prefix).since(plan.get("erasures", 0), windows)
    if not later:
        return ""
    numbers = ", ".join(str(each.number) for each in later)
    return (
        f"rows that it may have learnt from were forgotten after its run began (record {numbers})"
    )
