"""Rows from local delimited files, JSON lines or Parquet.

A file may carry a time in every row, or be given one as a whole by ``at``; the
latter is how undated collections are played as consecutive windows.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import re
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import pandas as pd
from pydantic import AfterValidator, Field, model_validator

from components.errors import SourceError
from components.packages import locate
from components.settings import Section
from components.sources.rows import COLUMNS, Rows
from components.split import content_digest, unit_interval
from components.windows import ALL_TIME, Day, Window, ZoneName

_OFFSET = r"[Tt ]\d.*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"
"""Ends a time of day that says how far it is from UTC."""


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if groups != 1:
        raise ValueError("needs exactly one group in parentheses")
    return text


class ColumnNames(Section):
    """Which column of the files holds what; None where there is none."""

    text: str = "text"
    label: str | None = "label"
    id: str | None = None
    group: str | None = None
    time: str | None = None


class Part(Section):
    """One file, or a share of one, of a source."""

    path: str
    name: str = ""
    """Put before the row ids, so that ids of different files do not collide."""
    at: Day | None = None
    """The day (YYYY-MM-DD) given to all rows of a file that carries no times."""
    share: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0, 1)
    """Take the rows whose id hashes into this half-open interval."""

    @model_validator(mode="after")
    def _share_is_an_interval(self) -> Part:
        if self.share[0] >= self.share[1]:
            raise ValueError("share needs a start below its end")
        return self


class FilesConfig(Section):
    """Section ``source`` with ``kind: files``."""

    kind: Literal["files"] = "files"
    root: str = "."
    """Folder of the files: a path, or ``package:folder`` inside an installed package."""
    requirement: str = ""
    """What to tell pip when the package of ``root`` is missing."""
    files: list[Part] = Field(min_length=1)
    columns: ColumnNames = ColumnNames()
    separator: str = Field(default=",", min_length=1, max_length=1)
    quoted: bool = True
    """Whether quote characters group fields; turn off for raw tab-separated text."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    timezone: ZoneName = "UTC"
    """Zone of times that carry no offset."""
    group_pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    """Regular expression with one group that finds the group in a row's id."""
    label_bins: dict[str, tuple[float | None, float | None]] | None = None
    """Cuts a numeric label into classes: above the first number and below the
    second; None is unbounded. Rows in no bin are left out and counted."""
    max_rows_per_window: int | None = Field(default=None, ge=1)
    """Keep so many rows of a window, by a hash of their id, so that one changed row
    never changes which others are kept. None lifts the cap."""


class FilesSource:
    """Reads every file once and answers for any window."""

    def __init__(self, config: FilesConfig) -> None:
        """Take a configuration; nothing is read yet."""
        self._config = config

    def read(self, window: Window) -> Rows:
        """Return the rows of a window, ordered by time and id.

        Raises:
            MissingPackage: the package that carries the files is not installed.
            SourceError: a file or a column of it is missing or unreadable.
        """
        frame = self._all
        if window != ALL_TIME and not frame.empty:
            begins, ends = pd.Timestamp(window.begins), pd.Timestamp(window.ends)
            frame = frame[(frame["_moment"] >= begins) & (frame["_moment"] < ends)]
        left_out = {}
        unbinned = frame["_unbinned"].astype(bool)
        if unbinned.any():
            left_out["label-in-no-bin"] = int(unbinned.sum())
            frame = frame[~unbinned]
        cap = self._config.max_rows_per_window
        if cap is not None and len(frame) > cap:
            left_out["over-cap"] = len(frame) - cap
            place = pd.Series(unit_interval(frame["id"], "cap"), index=frame.index)
            frame = frame.loc[place.sort_values(kind="stable").index[:cap]]
        frame = frame.sort_values(["_moment", "id"], kind="stable")
        return Rows(frame[list(COLUMNS)].reset_index(drop=True), left_out)

    def span(self) -> tuple[str, str] | None:
        """Return the times of the first and the last row, None when rows have no times."""
        moments = self._all["_moment"].dropna()
        if moments.empty:
            return None
        return moments.min().isoformat(), moments.max().isoformat()

    @cached_property
    def _all(self) -> pd.DataFrame:
        root = locate(self._config.root, self._config.requirement)
        frames = [self._part(root, part) for part in self._config.files]
        return pd.concat(frames, ignore_index=True)

    def _part(self, root: Path, part: Part) -> pd.DataFrame:
        path = root / part.path if root.is_dir() else root
        raw = read_table(
            path, self._config.separator, self._config.quoted, self._config.encoding_errors
        )
        names = self._config.columns
        wanted = {name: column for name, column in names.model_dump().items() if column}
        missing = sorted(set(wanted.values()) - set(raw.columns))
        if missing:
            raise SourceError(
                f"{path} has no column {', '.join(missing)}; "
                f"it has {', '.join(map(str, raw.columns))}. Mend source.columns."
            )
        frame = pd.DataFrame({name: raw[column] for name, column in wanted.items()})
        for column in COLUMNS:
            if column not in frame:
                frame[column] = None
        frame = frame.astype(object).where(frame.notna(), None)
        if names.id is None:
            frame["id"] = _numbered([content_digest(text or "")[:16] for text in frame["text"]])
        prefix = f"{part.name}:" if part.name else ""
        frame["id"] = [None if value is None else f"{prefix}{value}" for value in frame["id"]]
        low, high = part.share
        if (low, high) != (0, 1):
            place = unit_interval(frame["id"], "share")
            frame = frame[(place >= low) & (place < high)].copy()
        self._fill_groups(frame)
        self._fill_moments(frame, part, path)
        self._cut_labels(frame, path)
        return frame

    def _fill_groups(self, frame: pd.DataFrame) -> None:
        if self._config.group_pattern is not None:
            pattern = re.compile(self._config.group_pattern)
            found = [pattern.search(value or "") for value in frame["id"]]
            frame["group"] = [
                match.group(1) if match else value
                for match, value in zip(found, frame["id"], strict=True)
            ]
        frame["group"] = [
            content_digest(text or "") if group is None else group
            for group, text in zip(frame["group"], frame["text"], strict=True)
        ]

    def _fill_moments(self, frame: pd.DataFrame, part: Part, path: Path) -> None:
        zone = ZoneInfo(self._config.timezone)
        times = frame["time"] if part.at is None else pd.Series(part.at, index=frame.index)
        with_offset = times.dropna().astype(str).str.contains(_OFFSET)
        try:
            if with_offset.any() and not with_offset.all():
                raise ValueError("some carry an offset and some do not")
            moments = pd.to_datetime(times, format="ISO8601", utc=bool(with_offset.any()))
            if moments.dt.tz is None:
                moments = moments.dt.tz_localize(zone, ambiguous=True, nonexistent="shift_forward")
            frame["_moment"] = moments.dt.tz_convert("UTC")
        except (ValueError, TypeError, AttributeError) as error:
            raise SourceError(f"{path}: the times are not all ISO 8601: {error}") from error
        frame["time"] = [
            None if moment is pd.NaT else moment.isoformat() for moment in frame["_moment"]
        ]

    def _cut_labels(self, frame: pd.DataFrame, path: Path) -> None:
        bins = self._config.label_bins
        frame["_unbinned"] = False
        if bins is None:
            return
        try:
            values = pd.to_numeric(frame["label"])
        except (ValueError, TypeError) as error:
            raise SourceError(f"{path}: label_bins needs numeric labels: {error}") from error
        labels = pd.Series(None, index=frame.index, dtype=object)
        for name, (above, below) in bins.items():
            inside = values.notna()
            if above is not None:
                inside &= values > above
            if below is not None:
                inside &= values < below
            labels[inside] = name
        frame["_unbinned"] = labels.isna() & values.notna()
        frame["label"] = labels.where(labels.notna(), None)


def _numbered(keys: list[str]) -> list[str]:
    """Make repeated keys unique: the second ``a`` becomes ``a#2``."""
    seen: dict[str, int] = {}
    unique = []
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        unique.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return unique


def _json_lines(path: Path, encoding_errors: str) -> pd.DataFrame:
    """Read one JSON object per line, numbers as they are written, nothing for null and NaN."""
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(path.suffix.lower(), open)
    with opener(path, "rt", encoding="utf-8", errors=encoding_errors) as lines:
        records = [json.loads(line, parse_float=str) for line in lines if line.strip()]
    if not all(isinstance(record, dict) for record in records):
        raise ValueError("a line is not a JSON object")
    # A lone surrogate can be written in JSON, but no text may hold it.
    return pd.DataFrame(records, dtype=object).map(
        lambda value: (
            None
            if value is None or value != value
            else str(value).encode(errors=encoding_errors).decode()
        )
    )


@cache
def read_table(path: Path, separator: str, quoted: bool, encoding_errors: str) -> pd.DataFrame:
    """Read a file with every value as a string."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst", ".bz2", ".xz")]
    kind = suffixes[-1].lower() if suffixes else ""
    try:
        if kind in (".parquet", ".pq"):
            # Arrow's types keep whole numbers whole where some are missing.
            frame = pd.read_parquet(path, dtype_backend="pyarrow")
            return (
                frame.astype(object)
                .where(frame.notna(), None)
                .map(lambda value: None if value is None else str(value))
            )
        if kind in (".jsonl", ".ndjson"):
            return _json_lines(path, encoding_errors)
        frame = pd.read_csv(
            path,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            encoding_errors=encoding_errors,
            on_bad_lines="error",
        )
        if not isinstance(frame.index, pd.RangeIndex):
            raise ValueError("its rows have more fields than its header")
        return frame
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error
