"""What a project says of its tables: which column holds what, and how they are written."""

from __future__ import annotations

import codecs
import re
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from components.settings import Section
from components.sources.block import Form
from components.sources.rows import Metadata, MetadataColumn, MetadataName
from components.tasks.model import Content
from components.windows import Day, ZoneName

ISO = "iso"
EPOCHS = {"unix-seconds": 10**6, "unix-milliseconds": 10**3, "unix-microseconds": 1}
"""Formats of times that are numbers, with the microseconds that one counts for."""


def _pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if groups != 1:
        raise ValueError("needs exactly one group in parentheses")
    return text


def _encoding(name: str) -> str:
    try:
        known = codecs.lookup(name)
    except (LookupError, ValueError) as error:
        raise ValueError(f"there is no encoding {name!r}") from error
    if not known._is_text_encoding:
        raise ValueError(f"{name!r} is no encoding of text")
    return name


def _time_format(text: str) -> str:
    if text != ISO and text not in EPOCHS and "%" not in text:
        known = ", ".join((ISO, *EPOCHS))
        raise ValueError(f"known are {known}, or a pattern such as %d.%m.%Y %H:%M")
    try:
        time.strptime("", text)
    except ValueError as error:  # "" is no time of any pattern
        if "does not match" not in str(error):
            raise ValueError(str(error)) from error
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
    """Which column of the tables holds what; None where there is none."""

    text: str | None = None
    """None is the column ``text``, unless rows hold images."""
    image: str | None = None
    """Paths of image files, relative to the table; they may not leave its root. In Parquet,
    a column of bytes is the images themselves."""
    pixels: Pixels | None = None
    """Images as numbers, instead of ``image``."""
    record: list[str] | None = Field(default=None, min_length=1)
    """Columns that together are what a tabular task reads, under the names that they have."""
    label: str | None = "label"
    id: str | None = None
    group: str | None = None
    time: str | None = None
    time_format: Annotated[str, AfterValidator(_time_format)] = ISO
    """How times are written: ``iso`` (ISO 8601), ``unix-seconds``, ``unix-milliseconds``,
    ``unix-microseconds``, or a pattern of strptime."""
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
        """The columns of the tables by those of the rows."""
        names = {name: getattr(self, name) for name in ("id", "group", "time", "text", "label")}
        if self.content == "text":
            names["text"] = self.text or "text"
        elif self.image is not None:
            names["text"] = self.image
        names |= {name: each.column or name for name, each in self.metadata.items()}
        return {name: column for name, column in names.items() if column}


class Part(Section):
    """Some tables of a source: a file, those that a pattern names, or a share of them."""

    path: str
    """Of a file, or a pattern such as ``logs/dt=*/*.csv.gz``; ``**`` is any folders."""
    name: str = ""
    """Put before the row ids, so that ids of different files do not collide. It is the
    ``source`` of the rows, too; where the file lies is not, for a file may be moved."""
    at: Day | None = None
    """The day (YYYY-MM-DD) given to all rows of a file that carries no times."""
    partition: str = ""
    """Instead of ``at``: of a path such as ``dt=2026-01-05/part-0.csv``, the key (``dt``)
    whose value is the day of all rows below."""
    share: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (0, 1)
    """Take the rows whose id hashes into this half-open interval."""
    root: str = ""
    """Instead of the source's, for a file that lies elsewhere."""
    requirement: str = ""
    """What to tell pip when the package of this file's ``root`` is missing."""
    columns: ColumnNames | None = None
    """Instead of the source's, for a file of another form."""
    labels: str = ""
    """A second file that carries the labels, in the columns for id and label, where the truth
    comes later than the rows; of source ``files`` alone."""

    @model_validator(mode="after")
    def _share_is_an_interval(self) -> Part:
        if self.share[0] >= self.share[1]:
            raise ValueError("share needs a start below its end")
        if self.at and self.partition:
            raise ValueError("a day comes from at or from partition, not from both")
        return self

    @property
    def is_pattern(self) -> bool:
        """Whether the path names any number of files, also none."""
        return any(sign in self.path for sign in "*?[")


class TableConfig(Section):
    """What the section ``source`` says of tables, wherever they lie."""

    columns: ColumnNames = ColumnNames()
    separator: str = Field(default=",", min_length=1, max_length=1)
    header: bool = True
    """Whether the first line names the columns; without it they are called "0", "1", …"""
    quoted: bool = True
    """Whether quote characters group fields; turn off for raw tab-separated text."""
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    """Of text, such as ``cp932``; a byte order mark outweighs it."""
    encoding_errors: Literal["strict", "replace"] = "strict"
    """Whether a row with bytes that are no text is quarantined, or they are replaced."""
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
    stores: list[str] = []
    """Where rows may be written to: patterns such as ``s3://tokiwa-eu/*`` or
    ``file:///data/eu/*``. Any other object store is refused; without any, all are fine."""

    @model_validator(mode="after")
    def _further_columns_are_of_one_kind(self) -> TableConfig:
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
    def parts(self) -> list[Part]:
        """The parts of the source; here, one without a name."""
        return [Part(path="")]

    @property
    def forms(self) -> list[ColumnNames]:
        """The columns of every part."""
        return [part.columns or self.columns for part in self.parts]

    @property
    def form(self) -> Form:
        """How the tables are written."""
        return Form(self.separator, self.header, self.quoted, self.encoding, self.encoding_errors)

    @property
    def metadata(self) -> Metadata:
        """The further columns of any table; rows of one without them have nothing there."""
        found: Metadata = {}
        for columns in self.forms:
            found = {**columns.metadata, **found}
        return {name: found[name] for name in sorted(found)}

    @property
    def roots(self) -> list[tuple[str, str]]:
        """Every folder of this disk that is read, with what to tell pip when it is missing."""
        return []

    @property
    def contents(self) -> set[Content]:
        """What rows hold; a project has one kind."""
        return {columns.content for columns in self.forms}

    @property
    def timed(self) -> bool:
        """Whether all rows carry a time."""
        return all(
            (part.columns or self.columns).time or part.at or part.partition for part in self.parts
        )
