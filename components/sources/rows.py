"""The form in which every source hands over its rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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


def fingerprint(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return the sha256 of columns of strings or numbers, and of their names.

    A missing value differs from every string, and a number from the string that shows it.
    """
    digest = hashlib.sha256()
    for column in columns:
        digest.update(_tagged(column))
        for value in frame[column]:
            digest.update(_tagged(value))
        digest.update(b"\n")
    return digest.hexdigest()


def _tagged(value: Any) -> bytes:
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        return b"+%d:" % len(data) + data
    if value is None or pd.isna(value):
        return b"-"
    return b"#%r;" % float(value)


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
