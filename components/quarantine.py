"""Rows that validation left out: kept, looked at, and taken in again by people.

::

    {prefix}/quarantine/{window}/{digest}.parquet   rows with the column ``reasons``
    {prefix}/readmissions/00000001.json             what people took in again

Nothing here is ever changed or deleted but by an erasure. A run adds what it left out under
the digest of it, so that the same rows again are no more rows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Container, Sequence
from datetime import datetime

import pandas as pd

from components.ledger import Moment, Name, Series
from components.plan import Admission
from components.settings import Section, digest_of
from components.sources.rows import fingerprint
from components.store import Store

KEY, REASONS = "key", "reasons"
"""Columns that kept rows have beside their own: what names a row, and its reason codes."""
UNREAD = "(not read)"
"""What the column ``source`` says of what was no row; its id is its place there."""
IDENTITY = ("window", "id", "time", "text", "label")
"""What a row is told by. A further column that a project declares later changes nothing."""


def keys_of(frame: pd.DataFrame) -> list[str]:
    """Return what names each row: a digest of all that it is told by."""
    columns = [frame[name] if name in frame else [None] * len(frame) for name in IDENTITY]
    return [
        digest_of([None if value is None or value != value else str(value) for value in row])[:16]
        for row in zip(*columns, strict=True)
    ]


class Readmitted(Section):
    """One row that a person took in again.

    The row itself is read from the source again. Another row under its id, or the same one
    with other content, has another key and is judged anew.
    """

    key: Name
    window: str
    waived: list[str] = []
    """Reason codes that do not count for it."""
    changes: dict[str, str] = {}
    """Its values that were put right, by column; they are checked like any others."""


class Readmission(Section):
    """What a person took in again at once, and why."""

    schema_version: int = 1
    number: int
    by: Name
    at: Moment
    reason: str
    rows: list[Readmitted]


class Readmissions:
    """All that people of a project took in again."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Name the place; nothing is written yet."""
        self._series = Series(store, f"{prefix}/readmissions", 8, Readmission)

    @property
    def last(self) -> int:
        """The number of the last one, 0 for none."""
        return self._series.last()

    def add(self, rows: Sequence[Readmitted], by: str, reason: str, at: datetime) -> Readmission:
        """Keep what a person took in again."""
        while True:  # each turn without an answer means that somebody else was first
            number = self._series.last() + 1
            made = Readmission(
                number=number, by=by, at=at.isoformat(), reason=reason, rows=list(rows)
            )
            if self._series.create(number, made):
                return made

    def forget(self, keys: Container[str]) -> int:
        """Take what was put right in rows out of the records; return of how many rows.

        That somebody took them in again stays known, by their keys.
        """
        erased = 0
        for number in range(1, self._series.last() + 1):
            record = self._series.read(number)
            rows = [
                each.model_copy(update={"changes": {}}) if each.key in keys else each
                for each in record.rows
            ]
            if count := sum(one != other for one, other in zip(rows, record.rows, strict=True)):
                erased += count
                self._series.erase(number, record.model_copy(update={"rows": rows}))
        return erased

    def until(self, last: int) -> dict[str, Readmitted]:
        """Return what holds after the first ``last`` of them, by a row's key; the last counts."""
        found: dict[str, Readmitted] = {}
        for number in range(1, last + 1):
            found |= {each.key: each for each in self._series.read(number).rows}
        return found


class Quarantine:
    """The quarantined rows of a project."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Name the place; nothing is written yet."""
        self._store, self._folder = store, f"{prefix}/quarantine"

    def keep(self, rows: pd.DataFrame) -> None:
        """Keep rows with the columns ``window`` and ``reasons``, by window."""
        for window, part in rows.groupby("window"):
            part = part.reset_index(drop=True)
            name = f"{self._folder}/{window}/{fingerprint(part, list(part))[:16]}.parquet"
            if not self._store.exists(name):
                self._store.put(name, _as_parquet(part))

    def rows(self, window: str = "") -> pd.DataFrame:
        """Return the rows that runs left out, each once, with all reasons it was left out for.

        Args:
            window: only those of one; empty for all.

        Returns:
            The rows in the order of window and id, with the columns ``key`` and ``reasons``.
        """
        parts = [self._read(name) for name in self._names(window)]
        if not parts:
            return pd.DataFrame(columns=[KEY, *IDENTITY, REASONS])
        every = pd.concat(parts, ignore_index=True)
        reasons = every.groupby(KEY)[REASONS].agg(_union)
        rows = every.drop_duplicates(KEY, keep="last").sort_values(
            ["window", "id", KEY], kind="stable"
        )
        return rows.assign(reasons=reasons[rows[KEY]].to_numpy()).reset_index(drop=True)

    def _names(self, window: str = "") -> list[str]:
        folder = f"{self._folder}/{window}/" if window else f"{self._folder}/"
        return [name for name in self._store.list(folder) if name.endswith(".parquet")]

    def _read(self, name: str) -> pd.DataFrame:
        frame = pd.read_parquet(io.BytesIO(self._store.get(name))).astype(object)
        frame = frame.where(frame.notna(), None)
        return frame.assign(**{KEY: keys_of(frame)})


def _union(reasons: pd.Series[str]) -> str:
    return ",".join(sorted({code for each in reasons for code in each.split(",")}))


def _as_parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def taken_in(store: Store, admission: Admission) -> dict[str, Readmitted]:
    """Return the rows that people had taken in again when a run began, by key."""
    return Readmissions(store, admission.project).until(admission.readmissions)


def keeper(store: Store, admission: Admission) -> Callable[[pd.DataFrame], None]:
    """Return what keeps quarantined rows; those of a replay are its artifacts alone."""
    if not admission.keeps:
        return lambda rows: None
    return Quarantine(store, admission.project).keep
