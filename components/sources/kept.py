"""What was read of a source, kept as Parquet: no table is read twice as long as it is the same.

A cache: it may be deleted at any time, and is read again from the source. ::

    sources/{reading}/{part}.parquet              rows of some tables, in order
    sources/{reading}/{part}.unreadable.parquet   what was no row
    sources/{reading}/{part}.json                 which tables in which versions; written last
    sources/facts/{digest}.json                   what is known of a window of them
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.settings import Section, digest_of
from components.sources.block import Unreadable
from components.sources.mapping import INSTANT, MOMENT, ROW, TABLE
from components.store import ObjectMissing, Store

GROUP_ROWS = 1 << 15
GROUP_BYTES = 64 << 20
"""Rows are gathered up to one of these before they are written together."""
UNREADABLE = pa.schema(
    [
        (TABLE, pa.string()),
        ("row", pa.int64()),
        ("reasons", pa.string()),
        ("raw", pa.string()),
        (MOMENT, INSTANT),
    ]
)


class KeptTable(Section):
    """A table that was read."""

    name: str
    version: str
    rows: int
    unreadable: int
    undated: int
    """Of ``unreadable``, those that no row with a time comes before."""
    first: str | None
    last: str | None
    """Times of the first and the last row, ISO 8601; None where rows have none."""


class KeptPart(Section):
    """Tables that were read together."""

    schema_version: int = 1
    key: str
    bytes: int
    tables: list[KeptTable]


class Kept:
    """The kept rows of one way to read tables."""

    def __init__(self, store: Store, reading: str, schema: Any, scratch: Path) -> None:
        """Name the place; nothing is written yet.

        Args:
            store: keeps them.
            reading: digest of all that decides how a table is read.
            schema: of the rows.
            scratch: folder for what lies in the store and not on this disk.
        """
        self._store, self._prefix = store, f"sources/{reading}"
        self._schema, self._scratch = schema, scratch
        self._parts: dict[str, KeptPart] = {}

    def parts(self) -> list[KeptPart]:
        """Return everything that is kept, by the key."""
        there = set(self._store.list(f"{self._prefix}/"))
        for key in there:
            if key.endswith(".json") and key not in self._parts:
                with suppress(ValueError):  # a power cut may have left half of it
                    part = KeptPart.from_json(self._store.get(key).decode())
                    # A bucket's lifecycle rule may have taken the rows, and left this.
                    if {f"{part.key}.parquet", f"{part.key}.unreadable.parquet"} <= there:
                        path = self._store.local_path(f"{part.key}.parquet")
                        if path is None or _size(path) == part.bytes:
                            self._parts[key] = part
        return [self._parts[key] for key in sorted(self._parts)]

    @contextmanager
    def writing(self, tables: list[tuple[str, str]]) -> Iterator[PartWriter]:
        """Write a part of tables, given by name and version; it is kept if all went well."""
        key = f"{self._prefix}/{digest_of(sorted(tables))[:32]}"
        with self._draft(f"{key}.parquet") as rows, self._draft(f"{key}.unreadable.parquet") as bad:
            with PartWriter(rows, bad, self._schema) as writer:
                yield writer
            size = rows.stat().st_size
        part = KeptPart(key=key, bytes=size, tables=writer.tables)
        with self._draft(f"{key}.json") as manifest:
            manifest.write_text(part.to_json())

    def rows(self, part: KeptPart) -> Path:
        """Return the file of a part's rows."""
        return self._file(f"{part.key}.parquet")

    def unreadable(self, part: KeptPart) -> Path:
        """Return the file of what was unreadable in a part."""
        return self._file(f"{part.key}.unreadable.parquet")

    def _file(self, key: str) -> Path:
        path = self._store.local_path(key)
        if path is None:
            path = self._scratch / key.replace("/", "-")
            if not path.exists():
                self._store.download(key, path)
        elif not path.exists():
            raise ObjectMissing(f"{path} was kept and is gone; run again")
        return path

    @contextmanager
    def _draft(self, key: str) -> Iterator[Path]:
        """Give a file to write, which takes its place once its writer is through."""
        place = self._store.local_path(key)
        folder = self._scratch if place is None else place.parent
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{uuid.uuid4().hex}.part"
        try:
            yield draft
            if place is None:
                self._store.upload(key, draft)
            else:
                draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


class PartWriter:
    """Writes the rows of one table after another, a bounded number of them in memory."""

    def __init__(self, rows: Path, unreadable: Path, schema: Any) -> None:
        """Open the two files."""
        import pyarrow.parquet as pq

        # Unpacking counts: rows are written once, and read with each window that they are in.
        plain = {"compression": "lz4", "write_statistics": [MOMENT]}
        self._schema = schema
        self._rows = pq.ParquetWriter(
            rows,
            schema,
            use_dictionary=["source", "label", TABLE],
            column_encoding=dict.fromkeys([MOMENT, ROW], "DELTA_BINARY_PACKED"),
            **plain,
        )
        self._bad = pq.ParquetWriter(unreadable, UNREADABLE, **plain)
        self._held: list[Any] = []
        self._held_rows = self._held_bytes = 0
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self.tables: list[KeptTable] = []

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if not any(error):
            self._flush()
        self._thread.shutdown()
        self._wait()
        self._rows.close()
        self._bad.close()

    def add(
        self, name: str, version: str, batches: Iterator[tuple[Any, list[tuple[Unreadable, Any]]]]
    ) -> None:
        """Write a table: its rows, and what is unreadable with the moment of the row before."""
        import pyarrow.compute as pc

        rows = unreadable = 0
        first, last = [], []
        before: list[Unreadable] = []
        for batch, filed in batches:
            rows, unreadable = rows + batch.num_rows, unreadable + len(filed)
            if batch.num_rows:
                ends = pc.min_max(batch[MOMENT]).as_py()
                if ends["min"] is not None:
                    first.append(ends["min"])
                    last.append(ends["max"])
                self._hold(batch)
            before += [each for each, moment in filed if moment is None]
            self._file(name, [each for each in filed if each[1] is not None])
        # What comes before the first row with a time belongs to that.
        opening = pa.scalar(min(first), INSTANT) if first else None
        self._file(name, [(each, opening) for each in before])
        self.tables.append(
            KeptTable(
                name=name,
                version=version,
                rows=rows,
                unreadable=unreadable,
                undated=0 if first else len(before),
                first=min(first).isoformat() if first else None,
                last=max(last).isoformat() if last else None,
            )
        )

    def add_together(self, tables: Sequence[tuple[str, str, int]], rows: Any) -> None:
        """Write tables without anything unreadable: name, version and rows of each, at least one.

        Args:
            tables: in order.
            rows: theirs, one table's after the other's; all have moments, or none.
        """
        ends: list[tuple[str | None, str | None]] = [(None, None)] * len(tables)
        if not rows[MOMENT].null_count:
            moments = rows[MOMENT].cast(pa.int64()).to_numpy()
            starts = np.cumsum([0, *(count for _, _, count in tables[:-1])])
            first, last = (
                pa.array(extreme.reduceat(moments, starts), INSTANT).to_pylist()
                for extreme in (np.minimum, np.maximum)
            )
            ends = [(a.isoformat(), b.isoformat()) for a, b in zip(first, last, strict=True)]
        self._hold(rows)
        self.tables += [
            KeptTable(
                name=name, version=version, rows=count, unreadable=0, undated=0, first=a, last=b
            )
            for (name, version, count), (a, b) in zip(tables, ends, strict=True)
        ]

    def _hold(self, batch: Any) -> None:
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_rows >= GROUP_ROWS or self._held_bytes >= GROUP_BYTES:
            self._flush()

    def _file(self, name: str, filed: list[tuple[Unreadable, Any]]) -> None:
        if not filed:
            return
        columns = {
            TABLE: [name] * len(filed),
            "row": np.array([each.row for each, _ in filed]),
            "reasons": [each.reason for each, _ in filed],
            "raw": [each.raw.encode("utf-8", "replace").decode() for each, _ in filed],
            MOMENT: [None if moment is None else moment.as_py() for _, moment in filed],
        }
        self._bad.write_table(pa.table(columns, schema=UNREADABLE))

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _flush(self) -> None:
        if self._held:
            whole = pa.concat_tables(self._held)
            self._wait()
            # Packing and writing needs no Python: the next rows are read meanwhile.
            self._writing = self._thread.submit(
                self._rows.write_table, whole, row_group_size=whole.num_rows
            )
            self._held, self._held_rows, self._held_bytes = [], 0, 0
