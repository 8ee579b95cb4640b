"""Rows from local delimited files, JSON lines or Parquet; their images from files or pixels.

A file may carry a time in every row, or be given one as a whole by ``at``; the
latter is how undated collections are played as consecutive windows.
"""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import json
import lzma
import re
import zlib
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from components import home
from components.errors import ConfigError, SourceError
from components.labels import Labels
from components.packages import locate
from components.settings import Section
from components.sources.rows import COLUMNS, Metadata, MetadataColumn, MetadataName, Rows
from components.split import content_digest, unit_interval
from components.tasks.columns import records_of
from components.tasks.image_classification import encode_png
from components.tasks.model import Content
from components.windows import ALL_TIME, Day, Window, ZoneName

SEPARATORS = (",", ";", "\t", "|")
"""What separates the columns of a delimited file, the most usual first."""
_PARQUET, _JSON_LINES = (".parquet", ".pq"), (".jsonl", ".ndjson")
SEPARATOR_ROWS = 200
"""Rows that ``separator_of`` looks at."""
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


def _named(given: Any) -> Any:
    """Return further columns by name: of a list, under the names that they have."""
    if isinstance(given, list):
        return {str(name): {} for name in given}
    if isinstance(given, dict):
        return {
            name: {"column": each} if isinstance(each, str) else each
            for name, each in given.items()
        }
    return given


class Pixels(Section):
    """Images that lie in a table, one column for each pixel, row by row of the image."""

    first: str
    """The column of the pixel at the top left."""
    last: str
    """The column of the pixel at the bottom right; all columns between the two take part."""
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    maximum: float = Field(default=255, gt=0)
    """What is white; 0 is black."""


class ColumnNames(Section):
    """Which column of the files holds what; None where there is none."""

    text: str | None = None
    """None is the column ``text``, unless rows hold images."""
    image: str | None = None
    """Paths of image files, relative to the data file; they may not leave ``root``."""
    pixels: Pixels | None = None
    """Images as numbers, instead of ``image``."""
    record: list[str] | None = Field(default=None, min_length=1)
    """Columns that together are what a tabular task reads, under the names that they have."""
    label: str | None = "label"
    id: str | None = None
    group: str | None = None
    time: str | None = None
    metadata: Annotated[
        Metadata,
        BeforeValidator(
            _named,
            json_schema_input_type=(list[MetadataName] | dict[MetadataName, str | MetadataColumn]),
        ),
    ] = {}
    """Further columns, such as a customer's country, to judge answers by and never to give
    them: a list of names, ``name: column of the files``, or ``name: {column: …, kind: …}``."""

    @model_validator(mode="after")
    def _one_kind_of_content(self) -> ColumnNames:
        kinds = ("text", "image", "pixels", "record")
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"a row holds one content, not {' and '.join(given)}")
        return self

    @property
    def content(self) -> Content:
        """What a row holds."""
        if self.record is not None:
            return "record"
        return "text" if self.image is None and self.pixels is None else "image"

    @property
    def wanted(self) -> dict[str, str]:
        """The columns of the files by those of the rows."""
        names = {name: getattr(self, name) for name in ("id", "group", "time", "text", "label")}
        if self.content == "text":
            names["text"] = self.text or "text"
        elif self.image is not None:
            names["text"] = self.image
        names |= {name: each.column or name for name, each in self.metadata.items()}
        return {name: column for name, column in names.items() if column}


class Part(Section):
    """One file, or a share of one, of a source."""

    path: str
    name: str = ""
    """Put before the row ids, so that ids of different files do not collide. It is the
    ``source`` of the rows, too; where the file lies is not, for a file may be moved."""
    at: Day | None = None
    """The day (YYYY-MM-DD) given to all rows of a file that carries no times."""
    share: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0, 1)
    """Take the rows whose id hashes into this half-open interval."""
    root: str = ""
    """Instead of the source's, for a file that lies elsewhere."""
    requirement: str = ""
    """What to tell pip when the package of this file's ``root`` is missing."""
    columns: ColumnNames | None = None
    """Instead of the source's, for a file of another form."""
    labels: str = ""
    """A second file that carries the labels, in the same columns for id and label."""

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
    header: bool = True
    """Whether the first line names the columns; without it they are called "0", "1", …"""
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
    labels_of: str = ""
    """Ledger whose imported labels complete the rows that carry none; the project's own."""
    max_rows_per_window: int | None = Field(default=None, ge=1)
    """Keep so many rows of a window, by a hash of their id, so that one changed row
    never changes which others are kept. None lifts the cap."""

    @model_validator(mode="after")
    def _further_columns_are_of_one_kind(self) -> FilesConfig:
        for columns in self.forms:
            for name, each in columns.metadata.items():
                first = self.metadata[name]
                if (each.kind, each.required) != (first.kind, first.required):
                    raise ValueError(
                        f"columns.metadata: {name} is declared in two ways; "
                        "kind and required must be the same for all files"
                    )
        return self

    @property
    def forms(self) -> list[ColumnNames]:
        """Which columns hold what, of each file."""
        return [part.columns or self.columns for part in self.files]

    @property
    def metadata(self) -> Metadata:
        """The further columns of any file; rows of a file without one have nothing in it."""
        found: Metadata = {}
        for columns in self.forms:
            found = {**columns.metadata, **found}
        return {name: found[name] for name in sorted(found)}

    @property
    def roots(self) -> list[tuple[str, str]]:
        """Every folder that files lie in, with what to tell pip when its package is missing."""
        own = [(part.root, part.requirement) for part in self.files if part.root]
        return list(dict.fromkeys([(self.root, self.requirement), *own]))

    @property
    def contents(self) -> set[Content]:
        """What rows hold; a project has one kind."""
        return {columns.content for columns in self.forms}


class FilesSource:
    """Reads every file once and answers for any window."""

    def __init__(self, config: FilesConfig) -> None:
        """Take a configuration; nothing is read yet."""
        self._config = config

    def read(self, window: Window) -> Rows:
        """Return the rows of a window, ordered by time and id.

        Raises:
            MissingPackage: the package that carries the files is not installed.
            ConfigError: there is no such file or column.
            SourceError: a file cannot be read.
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
        frame = frame[[*COLUMNS, *self._config.metadata]]
        return Rows(frame.reset_index(drop=True), left_out)

    def span(self) -> tuple[str, str] | None:
        """Return the times of the first and the last row, None when rows have no times."""
        moments = self._all["_moment"].dropna()
        if moments.empty:
            return None
        return moments.min().isoformat(), moments.max().isoformat()

    @cached_property
    def _all(self) -> pd.DataFrame:
        frames = [self._part(part) for part in self._config.files]
        frame = pd.concat(frames, ignore_index=True)
        if self._config.labels_of:
            imported = Labels(home.store(), self._config.labels_of).resolved().labels
            known = frame["label"].notna() | frame["_unbinned"].astype(bool)
            frame["label"] = [
                label if carried else imported.get(row)
                for row, label, carried in zip(frame["id"], frame["label"], known, strict=True)
            ]
        return frame

    def _part(self, part: Part) -> pd.DataFrame:
        own, source = (part.root, part.requirement), (self._config.root, self._config.requirement)
        root = locate(*(own if part.root else source))
        path = root / part.path if root.is_dir() else root
        if not path.exists():
            raise ConfigError(f"there is no file {path}; mend source.files or source.root")
        raw = read_table(
            path,
            self._config.separator,
            self._config.quoted,
            self._config.encoding_errors,
            self._config.header,
        )
        if raw.columns.empty:
            raise SourceError(f"{path} is empty")
        names = part.columns or self._config.columns
        if part.labels:
            raw = self._with_labels(raw, root / part.labels, names)
        wanted = names.wanted
        needed = {*wanted.values()}
        if names.pixels is not None:
            needed |= {names.pixels.first, names.pixels.last}
        needed |= {*(names.record or ())}
        missing = sorted(needed - set(raw.columns))
        if missing:
            raise ConfigError(
                f"{path} has no column {', '.join(missing)}; "
                f"it has {', '.join(map(str, raw.columns))}. "
                + _mend(list(raw.columns), self._config.separator, missing, names)
            )
        frame = pd.DataFrame({name: raw[column] for name, column in wanted.items()})
        if names.pixels is not None:
            frame["text"] = _drawn(raw, names.pixels, path)
        if names.record is not None:
            kept = raw[names.record].astype(object)
            frame["text"] = records_of(kept.where(kept.notna(), None))
        for column in (*COLUMNS, *self._config.metadata):
            if column not in frame:
                frame[column] = None
        frame = frame.astype(object).where(frame.notna(), None)
        frame["source"] = part.name or None
        for column in self._config.metadata:
            frame[column] = [(value or "").strip() or None for value in frame[column]]
        if names.image is not None:
            frame["text"] = [_image_file(root, path.parent, each) for each in frame["text"]]
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

    def _with_labels(self, raw: pd.DataFrame, path: Path, names: ColumnNames) -> pd.DataFrame:
        """Return a table with the labels of a second one, which tells rows by their id."""
        config = self._config
        labels = read_table(
            path, config.separator, config.quoted, config.encoding_errors, config.header
        )
        columns = [names.id, names.label]
        if None in columns or not {*columns} <= {*labels.columns} or names.id not in raw:
            raise ConfigError(
                f"{path} cannot be put beside its rows: both need the column of "
                "source.columns.id, and it that of source.columns.label"
            )
        known = labels.dropna().drop_duplicates(names.id).set_index(names.id)[names.label]
        return raw.assign(**{str(names.label): raw[names.id].map(known)})

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


def _mend(columns: list[str], separator: str, missing: list[str], names: ColumnNames) -> str:
    """Say which key is wrong where columns are missing."""
    if len(columns) == 1:
        held = {each: columns[0].count(each) for each in SEPARATORS if each != separator}
        likely = max(held, key=lambda each: held[each])
        if held[likely]:
            return (
                f"It seems to be separated by {likely!r}, not by {separator!r}. "
                "Mend source.separator."
            )
    if set(missing) <= {each.column or name for name, each in names.metadata.items()}:
        return "Mend source.columns.metadata, or give this file columns of its own without it."
    return "Mend source.columns."


def _image_file(root: Path, folder: Path, name: str | None) -> str | None:
    """Return base64 of an image file, None where there is none."""
    if name is None:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to((root if root.is_dir() else folder).resolve()):
        raise SourceError(f"the image {name} lies outside of {root}, see source.root")
    try:
        return base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return None


def _drawn(raw: pd.DataFrame, pixels: Pixels, path: Path) -> list[str | None]:
    """Return base64 of a PNG for each row of pixels, None where one is no number in range."""
    names = list(raw.columns)
    columns = names[names.index(pixels.first) : names.index(pixels.last) + 1]
    if len(columns) != pixels.height * pixels.width:
        raise ConfigError(
            f"{path} has {len(columns)} columns from {pixels.first} to {pixels.last}, but an "
            f"image of {pixels.height} x {pixels.width} needs {pixels.height * pixels.width}. "
            "Mend source.columns.pixels."
        )
    values = np.stack(
        [pd.to_numeric(raw[column], errors="coerce").to_numpy(np.float64) for column in columns],
        axis=1,
    )
    good = np.all((values >= 0) & (values <= pixels.maximum), axis=1)
    grey = np.zeros(values.shape, dtype=np.uint8)
    grey[good] = np.rint(values[good] * (255 / pixels.maximum)).astype(np.uint8)
    images = grey.reshape(-1, pixels.height, pixels.width)
    return [encode_png(image) if whole else None for image, whole in zip(images, good, strict=True)]


def _numbered(keys: list[str]) -> list[str]:
    """Make repeated keys unique: the second ``a`` becomes ``a#2``."""
    seen: dict[str, int] = {}
    unique = []
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        unique.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return unique


def _kind(path: Path) -> str:
    """Return the suffix that says what a file holds, below any of a compression."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".zst", ".bz2", ".xz")]
    return suffixes[-1].lower() if suffixes else ""


def _opened(path: Path, encoding_errors: str, encoding: str = "utf-8") -> TextIO:
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opener = openers.get(path.suffix.lower(), open)
    file: TextIO = opener(path, "rt", encoding=encoding, errors=encoding_errors, newline="")
    return file


def separator_of(path: Path) -> str:
    """Return what separates the columns of a delimited file, told from its first rows.

    It is what cuts most of them into as many fields as the first one, of which there are
    at least two; where nothing does, a comma, or a tab in a file that is called .tsv.
    """
    share: dict[str, tuple[float, int]] = {}
    usual = "\t" if _kind(path) == ".tsv" else SEPARATORS[0]
    if _kind(path) in (*_PARQUET, *_JSON_LINES):
        return usual
    for separator in SEPARATORS:
        try:
            with _opened(path, "replace", "utf-8-sig") as lines:
                rows = csv.reader(lines, delimiter=separator)
                fields = [len(row) for row in islice(rows, SEPARATOR_ROWS) if row]
        except (OSError, EOFError, csv.Error, lzma.LZMAError, zlib.error):
            continue
        if fields and fields[0] > 1:
            share[separator] = (fields.count(fields[0]) / len(fields), fields[0])
    return max(share, key=lambda separator: share[separator], default=usual)


def _json_lines(path: Path, encoding_errors: str) -> pd.DataFrame:
    """Read one JSON object per line, numbers as they are written, nothing for null and NaN."""
    with _opened(path, encoding_errors) as lines:
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
def read_table(
    path: Path, separator: str, quoted: bool, encoding_errors: str, header: bool = True
) -> pd.DataFrame:
    """Read a file with every value as a string; without a header, columns are numbered."""
    kind = _kind(path)
    try:
        if kind in _PARQUET:
            # Arrow's types keep whole numbers whole where some are missing.
            frame = pd.read_parquet(path, dtype_backend="pyarrow")
            return (
                frame.astype(object)
                .where(frame.notna(), None)
                .map(lambda value: None if value is None else str(value))
            )
        if kind in _JSON_LINES:
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
            header="infer" if header else None,
        )
        if not isinstance(frame.index, pd.RangeIndex):
            raise ValueError("its rows have more fields than its header")
        return frame if header else frame.rename(columns=str)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        likely = separator_of(path)
        hint = f"; is it separated by {likely!r}? See source.separator"
        raise SourceError(
            f"cannot read {path}: {error}{hint if likely not in (separator, SEPARATORS[0]) else ''}"
        ) from error
