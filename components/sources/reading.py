"""Tables to rows by window, whatever they are read from: listed, read once, kept, sorted."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components import home
from components.erasures import Erasures, Forgotten
from components.errors import ConfigError, SourceError
from components.labels import Labels
from components.settings import Section, digest_of
from components.sources.columns import Part, TableConfig
from components.sources.converting import Changed, Converter, Table
from components.sources.cuts import cut
from components.sources.kept import UNREADABLE, Kept, KeptPart, KeptTable
from components.sources.mapping import INSTANT, MOMENT, ORDER, TABLE, UNBINNED, kept_schema
from components.sources.rows import COLUMNS, Fingerprint, Rows
from components.split import unit_interval
from components.store import LocalStore, Store
from components.windows import ALL_TIME, Window

ATTEMPTS = 3
PAUSE_S = 0.2
"""A table that changes while it is read is read again so often, after such a pause."""
PART_TABLES = 20_000
_LOCAL = {"files", "labels_of", "max_rows_per_window", "stores"}
"""Keys of a source that do not decide how one of its tables is read."""


class Facts(Section):
    """What is known of a window of a source."""

    fingerprint: str
    contents: str
    """Fingerprint of ids and contents alone."""
    rows: int


@dataclass(frozen=True)
class _Reading:
    """Kept parts with the tables in them that are current."""

    kept: Kept
    parts: list[tuple[KeptPart, list[KeptTable]]]


class TableSource(ABC):
    """The rows of tables, window by window."""

    by_window: ClassVar[bool] = False
    """Whether the source is asked for the rows of a window, and not for all it has."""

    def __init__(self, config: TableConfig, store: Store | None = None) -> None:
        """Take a configuration; nothing is read yet.

        Args:
            config: the source's section.
            store: keeps what was read; without one, it is read for this object only.

        Raises:
            ConfigError: the project does not want its rows in that store.
        """
        self._config = config
        if store is not None and config.stores:
            refuse_store(store.uri("sources"), config.stores)
        self._given = store
        self._readings: dict[Window, list[_Reading]] = {}

    @abstractmethod
    def tables(self, window: Window) -> list[Table]:
        """Return the tables that may hold rows of a window, in a fixed order."""

    def read(self, window: Window) -> Rows:
        """Return the rows of a window, ordered by time and id.

        Raises:
            MissingPackage: the package that carries the tables is not installed.
            ConfigError: there is no such table or column.
            SourceError: a table cannot be read, or changes all the time.
        """
        table, left_out = self.table(window)
        frame = table.to_pandas().astype(object)
        return Rows(frame.where(frame.notna(), None), left_out)

    def table(self, window: Window, part: Window | None = None) -> tuple[Any, dict[str, int]]:
        """Return the rows of a window as an Arrow table, and how many are left out and why.

        Args:
            window: of the rows, for which the source is asked.
            part: of the window's time; None for all of it.
        """
        rows, left_out = self._wanted(self._rows(window, part or window))
        if over := rows.num_rows - (rest := self._capped(rows)).num_rows:
            left_out["over-cap"], rows = over, rest
        rows = rows.append_column("time", _written(rows[MOMENT]))
        return rows.select([*COLUMNS, *self._config.metadata]), left_out

    def batches(self, window: Window, part: Window | None = None) -> Iterator[Any]:
        """Yield the rows of a window as they are kept, a bounded number of them at a time.

        Each is an Arrow table with the columns of rows but for ``time``, and with those of
        ``ORDER``, by which ``table`` sorts them. A window with a cap comes at once.

        Args:
            window: of the rows, for which the source is asked.
            part: of the window's time; None for all of it.
        """
        if self._config.max_rows_per_window is not None:
            rows, _ = self._wanted(self._rows(window, part or window))
            yield self._capped(rows).drop_columns([UNBINNED])
            return
        for some in self._kept_rows(window, part or window):
            rows, _ = self._wanted(self._labelled(some))
            yield rows.drop_columns([UNBINNED])

    def facts(self, window: Window) -> Facts:
        """Return what a plan says of a window; without reading, if that is known already."""
        known = digest_of(
            [
                *sorted(
                    [part.key, table.name]
                    for reading in self._reading(window)
                    for part, tables in reading.parts
                    for table in _overlapping(tables, window)
                ),
                window.to_json(),
                self._config.max_rows_per_window,
                self._imported,
                *([self._forgotten.key] if self._forgotten else []),
            ]
        )
        key = f"sources/facts/{known}.json"
        # Of a window without tables there is nothing to save.
        keeps = self._given is not None and bool(self.listing(window))
        if keeps and self._store.exists(key):
            with suppress(ValueError):  # a power cut may have left half of it
                return Facts.from_json(self._store.get(key).decode())
        found, rows = Fingerprint((*COLUMNS, *self._config.metadata)), 0
        for part in self._cuts(window):
            table, _ = self.table(window, part)
            found.update(table)
            rows += table.num_rows
        facts = Facts(
            fingerprint=found.hexdigest(), contents=found.hexdigest(("id", "text")), rows=rows
        )
        if keeps:
            self._store.put(key, facts.to_json().encode())
        return facts

    def unreadable(self, window: Window, with_undated: bool = False) -> Any:
        """Return an Arrow table of what could not be read of a window.

        Its columns are ``table``, ``row`` (its number there), ``reasons`` and ``raw``. It is
        filed under the time of the readable row before it in its table.

        Args:
            window: of the rows.
            with_undated: take what is in tables without any time besides.
        """
        import pyarrow.parquet as pq

        found = [UNREADABLE.empty_table()]
        for reading in self._reading(window):
            for part, tables in reading.parts:
                if any(each.unreadable for each in tables):
                    rows = pq.read_table(reading.kept.unreadable(part))
                    current = [each.name for each in tables]
                    found.append(rows.filter(pc.is_in(rows[TABLE], pa.array(current))))
        rows = pa.concat_tables(found)
        if window != ALL_TIME:
            inside = pc.fill_null(_inside(rows[MOMENT], window), with_undated)
            rows = rows.filter(inside)
        rows = rows.sort_by([(TABLE, "ascending"), ("row", "ascending")])
        return rows.rename_columns(["table", "row", "reasons", "raw", MOMENT]).drop([MOMENT])

    def span(self) -> tuple[str, str] | None:
        """Return the times of the first and the last row, None when rows have no times."""
        tables = [
            table
            for reading in self._reading(ALL_TIME)
            for _, tables in reading.parts
            for table in tables
        ]
        first = [table.first for table in tables if table.first]
        last = [table.last for table in tables if table.last]
        return (min(first), max(last)) if first else None

    def counts_between(self, moments: Sequence[datetime]) -> list[int] | None:
        """Return how many rows are of before the first of ascending moments, between, and after.

        None for a source that is asked for the rows of a window only.
        """
        if self.by_window:
            return None
        bounds = pa.array(moments, INSTANT).cast(pa.int64()).to_numpy()
        counts = np.zeros(len(moments) + 1, np.int64)
        for file, tables, whole in self._opened(ALL_TIME, ALL_TIME):
            rows = file.read(columns=[MOMENT, TABLE])
            if not whole:
                rows = rows.filter(pc.is_in(rows[TABLE], tables))
            times = rows[MOMENT].drop_null().cast(pa.int64()).to_numpy()
            places = np.searchsorted(bounds, times, side="right")
            counts += np.bincount(places, minlength=len(counts))
        return counts.tolist()

    def listing(self, window: Window) -> list[list[Any]]:
        """Return name, version and rows of each table that may hold rows of a window."""
        return sorted(
            [table.name, table.version, table.rows]
            for reading in self._reading(window)
            for _, tables in reading.parts
            for table in _overlapping(tables, window)
        )

    # --- reading ---

    @cached_property
    def _scratch(self) -> Path:
        folder = tempfile.mkdtemp(prefix="tokiwa-source-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    @cached_property
    def _store(self) -> Store:
        return self._given or LocalStore(self._scratch / "objects")

    @cached_property
    def _imported(self) -> dict[str, str]:
        """Labels that people gave to rows without one."""
        if not self._config.labels_of:
            return {}
        return Labels(home.store(), self._config.labels_of).resolved().labels

    @cached_property
    def _forgotten(self) -> Forgotten | None:
        """What the project is to forget; None for nothing."""
        if not self._config.labels_of:
            return None
        return Erasures(home.store(), self._config.labels_of).forgotten() or None

    def _remembered(self, rows: Any) -> Any:
        """Return an Arrow table without the rows that are to be forgotten."""
        if self._forgotten is None:
            return rows
        gone = self._forgotten.rows(rows.select(["id", "group"]).to_pandas())
        return rows.filter(pa.array(~gone))

    def _is_forgotten(self, line: str) -> bool:
        """Tell whether what could not be read as a row is to be forgotten."""
        return self._forgotten is not None and self._forgotten.line(line)

    def _rows(self, window: Window, part: Window) -> Any:
        """Return the kept rows of a part of a window in their order."""
        rows = pa.concat_tables(
            [kept_schema(self._config).empty_table(), *self._kept_rows(window, part)]
        )
        order = pc.sort_indices(rows, [(name, "ascending") for name in ORDER])
        # What comes in order, as logs do, is not copied.
        if not np.array_equal(order, np.arange(len(order))):
            rows = rows.take(order)
        return self._labelled(rows)

    def _kept_rows(self, window: Window, part: Window) -> Iterator[Any]:
        """Yield the kept rows of a part of a window, some at a time and in no order."""
        schema = kept_schema(self._config)
        for file, tables, whole in self._opened(window, part):
            for group in _groups(file, part):
                rows = file.read_row_group(group)
                if part != ALL_TIME:
                    rows = rows.filter(pc.fill_null(_inside(rows[MOMENT], part), False))
                if not whole:
                    rows = rows.filter(pc.is_in(rows[TABLE], tables))
                yield rows.select(schema.names).cast(schema)

    def _opened(self, window: Window, part: Window) -> Iterator[tuple[Any, Any, bool]]:
        """Yield the files that may hold rows of a part of a window.

        With each come the names of its tables that are current, and whether all of them are.
        """
        import pyarrow.parquet as pq

        for reading in self._reading(window):
            for kept, tables in reading.parts:
                if _overlapping(tables, part):
                    with pq.ParquetFile(reading.kept.rows(kept)) as file:
                        names = pa.array([each.name for each in tables])
                        yield file, names, len(tables) == len(kept.tables)

    def _cuts(self, window: Window) -> list[Window]:
        """Return the parts of a window's time whose rows are sorted together, in order."""
        if window == ALL_TIME or self._config.max_rows_per_window is not None:
            return [window]
        spans = [
            (found.min, found.max, file.metadata.row_group(group).num_rows)
            for file, _, _ in self._opened(window, window)
            for group in _groups(file, window)
            for found in [_statistics(file, group)]
        ]
        return cut(window, spans) or [window]

    def _wanted(self, rows: Any) -> tuple[Any, dict[str, int]]:
        """Return an Arrow table without what is left out, and how many rows that are and why."""
        left_out = {}
        if forgotten := rows.num_rows - (rest := self._remembered(rows)).num_rows:
            left_out["forgotten"], rows = forgotten, rest
        if unbinned := pc.sum(rows[UNBINNED]).as_py():
            left_out["label-in-no-bin"] = unbinned
            rows = rows.filter(pc.invert(rows[UNBINNED]))
        return rows, left_out

    def _capped(self, rows: Any) -> Any:
        """Return an Arrow table of the rows of a window, no more than the source's cap."""
        cap = self._config.max_rows_per_window
        if cap is None or rows.num_rows <= cap:
            return rows
        place = unit_interval(rows["id"].to_pylist(), "cap")
        return rows.take(pa.array(np.sort(np.argsort(place, kind="stable")[:cap])))

    def _labelled(self, rows: Any) -> Any:
        """Return an Arrow table with the labels that people gave to rows without one."""
        if self._imported:
            labels = [
                self._imported.get(row) if label is None and not unbinned else label
                for row, label, unbinned in zip(
                    *(rows[name].to_pylist() for name in ("id", "label", UNBINNED)), strict=True
                )
            ]
            position = rows.column_names.index("label")
            rows = rows.set_column(position, "label", pa.array(labels, pa.string()))
        return rows

    def _reading(self, window: Window) -> list[_Reading]:
        """Return what is kept of the tables of a window, after it was read as far as needed."""
        scope = window if self.by_window else ALL_TIME
        if not self.by_window and window != ALL_TIME and self._days_are_known:
            scope = window
        if scope not in self._readings:
            self._readings[scope] = self._read_anew(scope)
        return self._readings[scope]

    @property
    def _days_are_known(self) -> bool:
        """Whether the place of a table tells the window of all its rows."""
        return all(part.at or part.partition for part in self._config.parts) and not any(
            columns.time for columns in self._config.forms
        )

    def _read_anew(self, window: Window) -> list[_Reading]:
        for attempt in range(ATTEMPTS):
            try:
                tables = [each for each in self.tables(window) if self._is_in(each, window)]
                return self._keep(tables)
            except Changed as error:
                changed = str(error)
                time.sleep(PAUSE_S * 2**attempt)
        raise SourceError(
            f"{changed} keeps changing while it is read; run again when it is written to its end"
        )

    def _is_in(self, table: Table, window: Window) -> bool:
        if window == ALL_TIME or not table.day:
            return True
        zone = ZoneInfo(self._config.timezone)
        midnight = datetime.combine(date.fromisoformat(table.day), datetime.min.time(), zone)
        return window.begins <= midnight < window.ends

    def _keep(self, tables: Sequence[Table]) -> list[_Reading]:
        """Read the tables that are not kept, and return those parts that hold current ones."""
        by_reading: dict[str, list[Table]] = {}
        parts = {id(table.part): table.part for table in tables}
        digests = {place: self._digest(part) for place, part in parts.items()}
        for table in tables:
            by_reading.setdefault(digests[id(table.part)], []).append(table)
        return [self._keep_alike(digest, alike) for digest, alike in by_reading.items()]

    def _keep_alike(self, digest: str, tables: Sequence[Table]) -> _Reading:
        kept = Kept(self._store, digest, kept_schema(self._config), self._scratch)
        wanted = {(table.name, table.version) for table in tables}
        known = {(each.name, each.version) for part in kept.parts() for each in part.tables}
        new = [table for table in tables if (table.name, table.version) not in known]
        for start in range(0, len(new), PART_TABLES):
            some = new[start : start + PART_TABLES]
            with kept.writing([(table.name, table.version) for table in some]) as writer:
                Converter(self._config, self._remembered, self._is_forgotten).write(some, writer)
        parts = []
        for part in kept.parts():
            current = [each for each in part.tables if (each.name, each.version) in wanted]
            wanted -= {(each.name, each.version) for each in current}
            if current:
                parts.append((part, current))
        return _Reading(kept, parts)

    def _digest(self, part: Part) -> str:
        """Return the digest of all that decides how a table of a part is read."""
        config = self._config.model_dump(mode="json", exclude=_LOCAL)
        return digest_of([config, part.model_dump(mode="json", exclude={"path"}), _code()])[:32]


def refuse_store(address: str, patterns: Sequence[str]) -> None:
    """Raise ``ConfigError`` unless an object store is one that a project pins.

    >>> refuse_store("s3://tokiwa-eu/data/sources", ["s3://tokiwa-eu/*"])
    """
    if not any(fnmatchcase(address, pattern) for pattern in patterns):
        raise ConfigError(
            f"the project's rows may not be written to {address.removesuffix('/sources')}: "
            f"source.stores allows {', '.join(patterns)}; set TOKIWA_STORE"
        )


@cache
def _code() -> str:
    """Return the digest of the code that reads tables."""
    digest = hashlib.sha256(pa.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _overlapping(tables: Sequence[KeptTable], window: Window) -> list[KeptTable]:
    if window == ALL_TIME:
        return list(tables)
    begins, ends = window.begins, window.ends
    return [
        table
        for table in tables
        if (table.first is None and table.undated)
        or (
            table.first
            and table.last
            and datetime.fromisoformat(table.first) < ends
            and datetime.fromisoformat(table.last) >= begins
        )
    ]


def _groups(file: Any, window: Window) -> Iterator[int]:
    """Yield the row groups that may hold rows of a window."""
    for group in range(file.num_row_groups):
        found = _statistics(file, group)
        if window == ALL_TIME or (
            found is not None
            and found.has_min_max
            and found.min < window.ends
            and found.max >= window.begins
        ):
            yield group


def _statistics(file: Any, group: int) -> Any:
    """Return what a file says of the moments of one of its row groups, None for nothing."""
    column = file.schema_arrow.names.index(MOMENT)
    return file.metadata.row_group(group).column(column).statistics


def _inside(moments: Any, window: Window) -> Any:
    begins, ends = (pa.scalar(each, INSTANT) for each in (window.begins, window.ends))
    return pc.and_(pc.greater_equal(moments, begins), pc.less(moments, ends))


def _written(moments: Any) -> Any:
    """Return instants as ISO 8601 with their offset from UTC."""
    plain = moments.cast(pa.timestamp("us"))
    whole = plain.cast(pa.timestamp("s"), safe=False)
    texts = whole.cast(pa.string())
    odd = pc.fill_null(pc.not_equal(whole.cast(pa.timestamp("us")), plain), False)
    if pc.any(odd).as_py():
        texts = pc.if_else(odd, plain.cast(pa.string()), texts)
    return pc.binary_join_element_wise(pc.binary_replace_slice(texts, 10, 11, "T"), "+00:00", "")
