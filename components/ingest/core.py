"""Read the planned windows into one snapshot, named by the digest of its content."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandas.util import hash_array
from pydantic import Field

from components.errors import SourceError
from components.ingest.lineage import complete_event
from components.ingest.near_duplicates import NearDuplicates
from components.occurrences import Occurrences
from components.plan import Data, WindowData
from components.settings import Section, digest_of
from components.sources import Source, SourceConfig, open_source
from components.sources.rows import WINDOW, Fingerprint, snapshot_schema
from components.split import folded
from components.store import Store

ROWS = "rows.parquet"
UNREADABLE = "unreadable.parquet"
MANIFEST = "manifest.json"
LINEAGE = "openlineage.json"
_PACKED: dict[str, Any] = {"compression": "lz4", "write_statistics": False}
"""A snapshot is read whole, once by each step: writing and unpacking count."""
_BATCH = 1 << 12
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class IngestConfig(Section):
    """Section ``ingest``."""

    drop_duplicates: bool = True
    """Keep the first of rows whose text (case and spaces folded) and label are equal; rows
    without a text, an image or a record are never equal."""
    near_duplicates: float | None = Field(default=None, ge=0.5, le=1)
    """Keep the first of rows with one label whose texts have at least this share of their
    pieces of five letters in common, such as 0.9. None keeps them all."""


class IngestReport(Section):
    """Where every row went: ``read = rows + duplicates + near_duplicates + unreadable``."""

    schema_version: int = 1
    digest: str
    rows: int
    rows_by_window: dict[str, int]
    read: int
    duplicates: int
    near_duplicates: int = 0
    unreadable: int = 0
    """Rows that are none; they are in ``unreadable.parquet`` with a reason and their place."""
    unreadable_reasons: dict[str, int] = {}
    left_out: dict[str, int]
    """Rows that the source's configuration leaves out, by reason."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        near = f", {self.near_duplicates} near ones" if self.near_duplicates else ""
        bad = f", {self.unreadable} unreadable" if self.unreadable else ""
        return f"{self.rows:,} rows, {self.duplicates} duplicates dropped{near}{bad}"


class Manifest(Section):
    """What a snapshot is made of; it is written last."""

    schema_version: int = 1
    report: IngestReport
    code: str
    """Version of the code that made it."""
    source: str
    """Digest of the section ``source``."""
    windows: list[WindowData]
    tables: list[tuple[str, str, int]]
    """Name, version and rows of each table that was read."""
    columns: dict[str, str]
    """Type by name."""


def ingest(
    data: Data,
    folder: Path,
    config: IngestConfig,
    *,
    store: Store | None = None,
    code: str = "",
    at: datetime | None = None,
) -> IngestReport:
    """Write ``rows.parquet``, ``unreadable.parquet`` and a manifest into ``folder``.

    The columns are those of every source, the further ones that this one declares, and
    ``window``. Order is that of the windows, then of the source, so that equal content gives
    equal bytes. One window is in memory, and the one before while it is written.

    Args:
        data: the plan's windows, earlier ones first.
        folder: gets the snapshot.
        config: the section ``ingest``.
        store: keeps what is read of the source.
        code: version of the code.
        at: the present, for ``openlineage.json``; without it there is none.

    Raises:
        SourceError: a window no longer has the fingerprint of the plan.
    """
    source = open_source(data.source, store)
    for planned in data.windows:
        if source.facts(planned.window).fingerprint != planned.fingerprint:
            raise SourceError(
                f"the rows of window {planned.window.name} changed after the run began; run again"
            )
    schema = snapshot_schema(data.source.metadata)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    rows = _write_rows(source, data, folder / ROWS, schema, config)
    reasons = _write_unreadable(source, data, folder / UNREADABLE)
    declared = {name: [each.kind, each.required] for name, each in data.source.metadata.items()}
    unreadable = sum(reasons.values())
    report = IngestReport(
        digest=digest_of([rows.fingerprint.hexdigest(), declared]),
        rows=sum(rows.by_window.values()),
        rows_by_window=rows.by_window,
        read=rows.read + unreadable,
        duplicates=rows.duplicates,
        near_duplicates=rows.near_duplicates,
        unreadable=unreadable,
        unreadable_reasons=reasons,
        left_out=rows.left_out,
    )
    tables = sorted(
        {tuple(each) for planned in data.windows for each in source.listing(planned.window)}
    )
    manifest = Manifest(
        report=report,
        code=code,
        source=digest_of(data.source.model_dump(mode="json")),
        windows=data.windows,
        tables=tables,
        columns={field.name: str(field.type) for field in schema},
    )
    if at is not None:
        read = [(name, version) for name, version, _ in tables]
        event = complete_event(data, read, report.digest, report.rows, schema.names, at)
        (folder / LINEAGE).write_text(json.dumps(event, indent=2))
    part = folder / f".{MANIFEST}"
    part.write_text(manifest.to_json())
    part.replace(folder / MANIFEST)
    return report


class _Written:
    """What became of the rows that were read."""

    def __init__(self, columns: list[str]) -> None:
        self.fingerprint = Fingerprint(columns)
        self.by_window: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self.read = self.duplicates = self.near_duplicates = 0


def _write_rows(
    source: Source, data: Data, path: Path, schema: Any, config: IngestConfig
) -> _Written:
    """Write the rows of all windows but for duplicates."""
    import pyarrow.parquet as pq

    written = _Written(schema.names)
    seen, names = Occurrences(), Occurrences()
    near = None
    if config.near_duplicates is not None:
        near = NearDuplicates(config.near_duplicates)
    part = path.with_name(f".{path.name}")
    repeated = ["source", "label", WINDOW, *data.source.metadata]
    with (
        pq.ParquetWriter(part, schema, use_dictionary=repeated, **_PACKED) as writer,
        ThreadPoolExecutor(1) as packer,
        ThreadPoolExecutor(1) as hasher,
    ):
        writing: list[Future[Any]] = []
        for planned in data.windows:
            table, left_out = source.table(planned.window)
            for reason, count in left_out.items():
                written.left_out[reason] = written.left_out.get(reason, 0) + count
            written.read += table.num_rows
            if config.drop_duplicates:
                new = _are_new(table, lambda rows: seen.add(_keys(rows)) == 1)
                if twice := int(np.count_nonzero(~new)):
                    written.duplicates += twice
                    table = table.filter(pa.array(new))
            if near is not None:
                new = _are_new(table, partial(_are_far, near))
                written.near_duplicates += int(np.count_nonzero(~new))
                table = table.filter(pa.array(new))
            name = planned.window.name
            table = _told_apart(table, data.source, names)
            table = table.append_column(
                WINDOW, pa.repeat(pa.scalar(name, pa.string()), table.num_rows)
            ).cast(schema)
            written.by_window[name] = table.num_rows
            for each in writing:
                each.result()
            # Hashing and packing need no Python: the next window is read meanwhile.
            writing = [
                hasher.submit(written.fingerprint.update, table),
                packer.submit(writer.write_table, table),
            ]
        for each in writing:
            each.result()
    part.replace(path)
    return written


def _told_apart(table: Any, source: SourceConfig, seen: Occurrences) -> Any:
    """Return a table without an id that a row before has, where ids come of the contents.

    A table of the source tells its own rows apart, and knows nothing of those in others: two
    people with the same answers may well be in two files.

    Args:
        table: rows of a window.
        source: says which parts have no column of ids.
        seen: ids of such parts so far.
    """
    nameless = [
        part.name or None for part in source.parts if not (part.columns or source.columns).id
    ]
    if not nameless or not table.num_rows:
        return table
    ids = table["id"].combine_chunks()
    theirs = pc.is_in(table["source"], pa.array(nameless, pa.string())).combine_chunks()
    numbers = np.ones(len(ids), np.int64)
    place = np.flatnonzero(theirs)
    numbers[place] = seen.add(hash_array(ids.take(place).to_numpy(False), categorize=False))
    again = np.flatnonzero(numbers > 1)
    if not len(again):
        return table
    new = [f"{ids[int(row)]}~{numbers[row]}" for row in again]
    mask = pa.array(numbers > 1)
    ids = pc.replace_with_mask(ids, mask, pa.array(new, pa.string()))
    return table.set_column(table.column_names.index("id"), "id", ids)


def _are_new(table: Any, look: Callable[[Any], NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Return which rows repeat none before them; one that holds nothing never does ``[n]``.

    As duplicates such rows would go without a word, where images are missing from their folder.

    Args:
        table: rows of a window.
        look: tells it of rows that hold something.
    """
    there = np.asarray(pc.is_valid(table["text"]))
    if there.all():
        return look(table)
    new = np.ones(len(there), bool)
    new[there] = look(table.filter(pa.array(there)))
    return new


def _are_far(near: NearDuplicates, table: Any) -> NDArray[np.bool_]:
    texts, labels = (table[name].to_pylist() for name in ("text", "label"))
    return near.are_new(texts, labels)


def _keys(table: Any) -> NDArray[np.uint64]:
    """Return a number of 64 bits for the content and the label of each row ``[n]``.

    Two among ten million different rows have the same one by a chance of 3 in a million.
    """
    texts = table["text"]
    # Some at a time: memory that is used again and again is faster than new memory.
    hashes = [
        hash_array(
            folded(texts.slice(start, _BATCH)).to_numpy(zero_copy_only=False), categorize=False
        )
        for start in range(0, len(texts), _BATCH)
    ]
    labels = table["label"].combine_chunks().dictionary_encode()
    names = hash_array(np.array(labels.dictionary.to_pylist(), dtype=object), categorize=False)
    # The last one stands for rows without a label.
    places = pc.fill_null(labels.indices, len(names)).to_numpy()
    of_label = np.append(names, _SPREAD)[places]
    return np.asarray(np.concatenate([np.empty(0, np.uint64), *hashes]) * _SPREAD + of_label)


def _write_unreadable(source: Source, data: Data, path: Path) -> dict[str, int]:
    """Write what could not be read of the windows, and return how much of it by reason."""
    import pyarrow.parquet as pq

    found = []
    for planned in data.windows:
        # What has no time at all is filed under the current window.
        rows = source.unreadable(planned.window, with_undated=planned is data.windows[-1])
        names = pa.array([planned.window.name] * rows.num_rows, pa.string())
        found.append(rows.append_column(WINDOW, names))
    rows = pa.concat_tables(found)
    pq.write_table(rows, path)
    counts = pc.value_counts(rows["reasons"]).to_pylist()
    return dict(sorted((each["values"], each["counts"]) for each in counts))
