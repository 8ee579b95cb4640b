"""Draft a project file from a table: ``tokiwa init data.csv``."""

from __future__ import annotations

import codecs
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from components.errors import BadInput, SourceError
from components.finetune.config import FinetuneConfig
from components.sources.block import Unreadable
from components.sources.columns import ISO
from components.sources.files import read_table, separator_of
from pipelines.draft_columns import (
    TIME_NAMES,
    Columns,
    are_classes,
    guess,
    is_mostly_number,
    is_named,
    is_number,
)
from pipelines.draft_labels import Labels, labels_in
from pipelines.draft_times import form_of, forms_in_words, forms_of, moments_of

WINDOW_ROWS = 300
_FINETUNE_RECORDS = """\
finetune:
  base: components:tasks/blank_small   # no pretrained network reads tables
  method: full
  epochs: 6
  learning_rate: 0.001
  batch_rows: 64
"""


@dataclass(frozen=True)
class Drafted:
    """A project file that was drafted.

    Attributes:
        text: of the file.
        columns: what the columns of the table were taken for.
        others: of what was guessed, which other columns it could have been.
        notes: what is odd about the table, for whoever looks at the draft.
    """

    text: str
    columns: Columns
    others: dict[str, list[str]]
    notes: list[str]


def draft(
    path: Path,
    project: Path,
    named: Mapping[str, str] | None = None,
    separator: str = "",
    encoding: str = "utf-8",
) -> Drafted:
    """Draft a project file for a table.

    Rows that cannot be read are passed over, as a run does, and told of.

    Args:
        path: the table.
        project: where the project file will be.
        named: columns that the user chose, by field of ``Columns``.
        separator: between columns; without one it is told from the first rows.
        encoding: of text.

    Raises:
        BadInput: the table cannot be read, has no text or no label, or a chosen column
            is not there or unfit.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    separator = {"tab": "\t", "\\t": "\t"}.get(separator, separator) or separator_of(path)
    if len(separator) > 1:
        raise BadInput(f"a separator is one character, or tab, not {separator!r}")
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise BadInput(f"--encoding: there is no encoding {encoding!r}") from error
    try:
        frame, unreadable = read_table(path, separator, encoding)
    except SourceError as error:
        hint = "; name what it is written in, such as --encoding cp1252"
        raise BadInput(f"{error}{hint if _is_about_encoding(error) else ''}") from error
    if frame.empty:
        raise BadInput(f"{path} has no rows")
    columns, others = guess(frame, named or {})
    labels = labels_in(frame[columns.label]) if _is_classified(frame, columns) else None
    form = form_of(frame[columns.time]) if columns.time else None
    text = _render(path, project, separator, encoding, columns, frame, labels, form or ISO)
    return Drafted(text, columns, others, list(_notes(frame, columns, labels, unreadable)))


def window_days(times: pd.Series[str], form: str = ISO) -> int | None:
    """Return a length of windows that hold rows enough to train on; None for less than two.

    A week where it suffices, else as many days as ``WINDOW_ROWS`` rows take on average.
    """
    moments = moments_of(times, form)
    span_days = (moments.max() - moments.min()).days + 1
    days = max(7, -(-WINDOW_ROWS * span_days // len(moments)))
    return days if 2 * days <= span_days else None


def _is_classified(frame: pd.DataFrame, columns: Columns) -> bool:
    column = frame[columns.label]
    return are_classes(column) or not is_mostly_number(column)


def _task(frame: pd.DataFrame, columns: Columns, labels: Labels | None) -> str:
    """Return the lines of the section ``task`` that say what is to be learnt."""
    if labels is not None:
        names = ", ".join(map(_quote, labels.names))
        kind = "tabular" if columns.record else "text"
        lines = f"  kind: {kind}-classification\n  labels: [{names}]\n"
        lines += f"  # left out: {labels.listed}\n" if labels.slips else ""
        kinds = [
            f"    {_quote(name)}: {'number' if is_number(frame[name]) else 'category'}\n"
            for name in columns.record or ()
        ]
        return lines + ("  columns:\n" + "".join(kinds) if kinds else "")
    values = pd.to_numeric(frame[columns.label], errors="coerce").dropna()
    return (
        "  kind: text-regression\n"
        f"  low: {math.floor(values.min())}                        # rows beyond are quarantined\n"
        f"  high: {math.ceil(values.max())}\n"
    )


def _notes(
    frame: pd.DataFrame,
    columns: Columns,
    labels: Labels | None,
    unreadable: Sequence[Unreadable],
) -> Iterator[str]:
    """Say what is odd about a table, and what its labels are."""
    if unreadable:
        reasons = Counter(each.reason for each in unreadable).most_common()
        counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        first = unreadable[0]
        encoding = any(reason == "bad-encoding" for reason, _ in reasons)
        yield (
            f"{len(unreadable):,} of {len(frame) + len(unreadable):,} rows cannot be read, and "
            f"would go into quarantine: {counts}; the first is row {first.row}: {first.raw[:60]!r}"
            + ("; if the file is not in UTF-8: --encoding cp1252 --force" if encoding else "")
        )
    yield from labels.words if labels is not None else ()
    if labels is None:
        numbers = pd.to_numeric(frame[columns.label], errors="coerce")
        words = frame[columns.label][numbers.isna()].dropna()
        yield f"numbers from {numbers.min():g} to {numbers.max():g} are learnt"
        if len(words):
            yield (
                f"{len(words):,} rows have what is no number in {columns.label!r}, such as "
                f"{words.iloc[0]!r}, and would go into quarantine"
            )
    if columns.time and (form := form_of(frame[columns.time])):
        none = frame[columns.time][moments_of(frame[columns.time], form).isna()]
        if len(none):
            such = next((f", such as {each!r}" for each in none.dropna()), "")
            yield (
                f"{len(none):,} rows have no time in {columns.time!r}{such}, and would go into "
                "quarantine"
            )
    if columns.id and (again := len(frame) - frame[columns.id].nunique()):
        yield f"{again:,} values of {columns.id!r} come again or are missing: see tokiwa check"
    for name in frame:
        again = 0 if name == columns.id else len(frame) - frame[name].nunique()
        if again and name != columns.group and re.fullmatch("id|key|uuid", name.lower()):
            yield f"{name!r} names no rows: {again:,} of its values come again, or are missing"
    for role in ("text", "label"):
        column = getattr(columns, role)
        missing = int(frame[column].isna().sum()) if column else 0
        if missing:
            fate = "wait for labels" if role == "label" else "would go into quarantine"
            yield f"{missing:,} rows have nothing in {column!r}, and {fate}"
    for name in frame:
        if columns.time is None and is_named(name, TIME_NAMES) and forms_of(frame[name]):
            yield (
                f"{name!r} holds times, but not of one form in each row: "
                f"{forms_in_words(frame[name])}; without times all rows are one window"
            )


def _is_about_encoding(error: SourceError) -> bool:
    return "encoding" in str(error)


def _render(
    path: Path,
    project: Path,
    separator: str,
    encoding: str,
    columns: Columns,
    frame: pd.DataFrame,
    labels: Labels | None,
    form: str,
) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", path.name.split(".")[0].lower()).strip("-")[:40]
    if not name[:1].isalpha():
        name = f"p-{name}"[:40].rstrip("-")
    days = window_days(frame[columns.time], form) if columns.time else None
    if days:
        first = moments_of(frame[columns.time], form).min()
        windows = (
            "resolve:\n"
            "  timezone: UTC               # of the windows, and of times without an offset\n"
            f"  window_days: {days}              # long enough for {WINDOW_ROWS} rows\n"
            f'  start: "{first:%Y-%m-%d}"         # the first day of the first window\n'
        )
    elif columns.time:
        windows = (
            "# Too few rows to cut into windows yet: all rows are one. Later, set window_days and\n"
            "# start here; each window should hold some hundred rows.\n"
            "resolve: {}\n"
        )
    else:
        windows = (
            "# No column holds times, so all rows are one window. With a time column, set\n"
            "# source.columns.time here and window_days and start below.\n"
            "resolve: {}\n"
        )
    optional = "".join(
        f"    {key}: {_quote(column)}\n" if column else f"    # {key}: {hint}\n"
        for key, column, hint in (
            ("id", columns.id, "a column that names each row"),
            ("group", columns.group, "rows that must not be torn apart, such as a customer's"),
            ("time", columns.time, "when the row happened, ISO 8601"),
        )
    )
    if columns.time and form != ISO:
        optional += f"    time_format: {_quote(form)}\n"
    written = "" if codecs.lookup(encoding).name == "utf-8" else f"  encoding: {_quote(encoding)}\n"
    if columns.record:
        content = f"record: [{', '.join(map(_quote, columns.record))}]"
    else:
        content = f"text: {_quote(columns.text or '')}"
    limit = (
        ""
        if columns.record
        else "  max_tokens: 128               # longer texts are cut, and counted\n"
    )
    return f"""\
# tokiwa run {shlex.quote(project.name)}
#
# Drafted from {_quote(path.name)}: {len(frame):,} rows. Every key has a default; `tokiwa check`
# says what is wrong with a change.

name: {name}

task:
{_task(frame, columns, labels)}{limit}
source:
  kind: files
  root: {_quote(str(path.resolve().parent))}
  files:
    - path: {_quote(path.name)}
  separator: {_quote(separator)}
{written}  columns:
    {content}
    label: {_quote(columns.label)}
{optional}  # max_rows_per_window: 2500   # a laptop trains on 1,500 rows in a minute

{windows}
{_FINETUNE_RECORDS if columns.record else _finetune_texts()}"""


def _finetune_texts() -> str:
    (base,) = FinetuneConfig().base
    return f"""\
finetune:
  base: {{place: {base.place}, requirement: {base.requirement}}}   # or a folder
  method: full                  # or head, with head_learning_rate: 0.01, in seconds
  epochs: 2
"""


def _quote(text: str) -> str:
    """Return a YAML double-quoted scalar on one line.

    Not JSON's: it writes characters beyond U+FFFF in two halves, which YAML leaves apart.
    """
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf).strip()
