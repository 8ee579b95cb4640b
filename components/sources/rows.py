"""The form in which every source hands over its rows."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator

from components.settings import Section

COLUMNS = ("id", "group", "time", "source", "text", "label")
"""Every row has these columns, all strings; a missing value is None."""
WINDOW, SPLIT = "window", "split"
"""Columns that ``ingest`` and ``prepare`` add."""
_OTHERS = ("image", "reasons", "batch")
_DECLARED = b"tokiwa.metadata"
_NAME = re.compile(r"\w[\w .-]{0,59}")
_PREFIXES = re.compile(r"_|abstained_|answer_|error_|ms_|.*output_")


def _metadata_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("is no name for a column: use up to 60 letters, digits and . - _")
    if name in (*COLUMNS, WINDOW, SPLIT, *_OTHERS) or _PREFIXES.match(name):
        raise ValueError(
            f"rows have a column {name} of their own; name it otherwise, such as "
            f"my_{name.strip('_')}: {{column: {name}}}"
        )
    return name


class MetadataColumn(Section):
    """A further column of a source: rows are judged by it, and no model ever reads it."""

    column: str = ""
    """What the files call it; empty is the name that it has here."""
    kind: Literal["text", "number"] = "text"
    """Numbers are cut into ranges where rows are told apart; texts are taken as they are."""
    required: bool = False
    """Whether a row without a value is quarantined. Otherwise it is ``missing``, a part of
    the rows like any other."""


MetadataName = Annotated[str, AfterValidator(_metadata_name)]
Metadata = dict[MetadataName, MetadataColumn]
"""Further columns by their names in the rows, none of them a name that rows have anyway."""


@dataclass(frozen=True)
class Rows:
    """Rows of one window.

    Attributes:
        frame: the columns ``COLUMNS`` and the further ones that the source declares, all
            strings, in a deterministic order.
        left_out: rows that the source's own configuration leaves out, by reason;
            they are counted and never silently lost.
    """

    frame: pd.DataFrame
    left_out: dict[str, int]

    def fingerprint(self) -> str:
        """Return the sha256 of the content, the same for the same rows."""
        return fingerprint(self.frame, list(self.frame))


class Fingerprint:
    """The sha256 of columns and their names, of rows that come a few at a time.

    A missing value differs from every string, and a number from the string that shows it.
    How many rows come at a time makes no difference.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        """Name the columns, in order."""
        self._digests = {name: hashlib.sha256(_tagged(name)) for name in columns}

    def update(self, rows: pd.DataFrame | Any) -> Fingerprint:
        """Add rows: a frame of strings or numbers, or an Arrow table of strings."""
        if isinstance(rows, pd.DataFrame):
            for name, digest in self._digests.items():
                digest.update(b"".join(map(_tagged, rows[name])))
            return self

        def add(name: str) -> None:
            for chunk in rows[name].chunks:
                self._digests[name].update(_tagged_strings(chunk))

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # none of it needs Python
            list(pool.map(add, self._digests))
        return self

    def hexdigest(self, columns: Sequence[str] = ()) -> str:
        """Return the fingerprint of the rows so far, or of some columns of them alone."""
        whole = b"".join(self._digests[name].digest() for name in columns or self._digests)
        return hashlib.sha256(whole).hexdigest()


def fingerprint(frame: pd.DataFrame | Any, columns: Sequence[str]) -> str:
    """Return the ``Fingerprint`` of some columns of a frame or an Arrow table."""
    return Fingerprint(columns).update(frame).hexdigest()


def _tagged(value: Any) -> bytes:
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return b"+%d:" % len(data) + data
    if value is None or pd.isna(value):
        return b"-"
    return b"#%r;" % float(value)


def _tagged_strings(values: Any) -> Any:
    """Return what ``_tagged`` makes of each of an Arrow array's strings, in one buffer."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(values):
        return b""
    lengths = pc.binary_length(values).cast(pa.string())
    tagged = pc.binary_join_element_wise("+", lengths, ":", values, "")
    tagged = pc.fill_null(tagged, "-").cast(pa.large_string())
    ends = np.frombuffer(tagged.buffers()[1], np.int64)[tagged.offset :]
    return memoryview(tagged.buffers()[2])[int(ends[0]) : int(ends[len(tagged)])]


def snapshot_schema(metadata: Mapping[str, MetadataColumn]) -> Any:
    """Return the Parquet schema of a snapshot: strings, and what the further columns are."""
    import pyarrow as pa

    plain = [pa.field(name, pa.string()) for name in COLUMNS]
    further = [
        pa.field(name, pa.string(), metadata={_DECLARED: each.to_json().encode()})
        for name, each in metadata.items()
    ]
    return pa.schema([*plain, *further, pa.field(WINDOW, pa.string())])


def declared_metadata(path: Path) -> Metadata:
    """Return what the further columns of a snapshot's Parquet file are."""
    from pyarrow.parquet import read_schema

    return {
        each.name: MetadataColumn.from_json(each.metadata[_DECLARED].decode())
        for each in read_schema(path)
        if each.metadata and _DECLARED in each.metadata
    }
