"""Draft a project file from a table: ``tokiwa init data.csv``."""

from __future__ import annotations

import difflib
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from components.errors import BadInput, SourceError
from components.finetune.config import FinetuneConfig
from components.sources.files import read_table, separator_of

MAX_CLASSES = 100
WINDOW_ROWS = 300
ID_CHARACTERS = 40
"""A column that is longer on average is no id, unless its name is id, key or uuid."""
OTHERS = 5
"""Columns that are named beside the one that was taken."""
_TEXT_NAMES = ("text", "sentence", "review", "body", "message", "comment", "content", "title")
_LABEL_NAMES = ("label", "class", "category", "target", "sentiment", "intent", "topic", "tag", "y")
_TIME_NAMES = ("time", "date", "datetime", "timestamp", "day", "when", "created", "at")
_ID_ENDINGS = ("id", "key", "uuid", "no", "nr", "number", "code")
_GROUP_NAMES = ("group", "user", "customer", "document", "author", "session", "thread")


@dataclass(frozen=True)
class Columns:
    """Which column was taken for what; None where none was found."""

    text: str
    label: str
    id: str | None
    group: str | None
    time: str | None


def draft(
    path: Path, project: Path, named: Mapping[str, str] | None = None, separator: str = ""
) -> tuple[str, Columns, dict[str, list[str]]]:
    """Return the text of a project file for a table, and what its columns were taken for.

    Args:
        path: the table.
        project: where the project file will be.
        named: columns that the user chose, by field of ``Columns``.
        separator: between columns; without one it is told from the first rows.

    Returns:
        The text, the columns, and for ``text`` and ``label``, if they were guessed, which
        others it could have been.

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
        frame = read_table(path, separator)
    except SourceError as error:
        raise BadInput(str(error)) from error
    if frame.empty:
        raise BadInput(f"{path} has no rows")
    columns, others = guess(frame, named or {})
    return _render(path, project, separator, columns, frame), columns, others


def guess(frame: pd.DataFrame, named: Mapping[str, str]) -> tuple[Columns, dict[str, list[str]]]:
    """Return what each column of a table of strings is likely to hold, see ``draft``.

    Raises:
        BadInput: no column looks like text, or none like a label; or a column in ``named``
            is not there or unfit.
    """
    _check(frame, named)
    taken = {*named.values()}
    rows = len(frame)
    distinct = {name: frame[name].nunique() for name in frame}
    length = {name: frame[name].dropna().str.len().mean() or 0.0 for name in frame}
    dated = [name for name in frame if _is_time(frame[name])]
    times = [name for name in dated if _named(name, _TIME_NAMES)]
    named_ids = [
        name
        for name in frame
        if re.search(r"(^|_)id$|^key$|^uuid$", name.lower())
        or (_ends_like_an_id(name) and distinct[name] == rows and length[name] <= ID_CHARACTERS)
    ]
    wordy = [name for name in frame if name not in (*dated, *named_ids, *taken)]
    texts = [name for name in wordy if length[name] >= 8]
    # A text may be short, above all in Japanese or Chinese, if its column says what it is.
    texts = texts or [name for name in wordy if _named(name, _TEXT_NAMES)]
    if not texts and "text" not in named:
        raise BadInput(f"no column looks like text among {', '.join(frame)}; name it with --text")
    texts.sort(key=lambda name: (_named(name, _TEXT_NAMES), length[name]), reverse=True)
    text = named["text"] if "text" in named else texts[0]
    free = [name for name in frame if name not in (text, *times, *taken)]
    labels = [name for name in free if _are_classes(frame[name])]
    # Without any, what is to be learnt may be a number.
    labels = labels or [name for name in free if name not in named_ids and _is_number(frame[name])]
    if not labels and "label" not in named:
        raise BadInput(
            f"no column looks like a label among {', '.join(frame)}: "
            f"one with 2 to {MAX_CLASSES} different values, or with numbers, is needed; "
            "name it with --label"
        )
    labels.sort(
        key=lambda name: (
            _named(name, _LABEL_NAMES),
            name not in named_ids and not _named(name, _GROUP_NAMES),
            -distinct[name],
        ),
        reverse=True,
    )
    label = named["label"] if "label" in named else labels[0]
    rest = [name for name in free if name != label]
    ids = [name for name in rest if name in named_ids and distinct[name] == rows]
    groups = [name for name in rest if name not in ids and _named(name, _GROUP_NAMES)]
    times = [name for name in times if name not in (text, label, *taken)]
    guessed = {"id": ids, "group": groups, "time": times}
    found = {role: next(iter(names), None) for role, names in guessed.items()} | dict(named)
    others = {
        "text": [f"{name} ({length[name]:.0f} characters)" for name in texts if name not in labels],
        "label": [
            f"{name} ({distinct[name]} values)"
            if _are_classes(frame[name])
            else f"{name} (numbers)"
            for name in labels
        ],
    }
    columns = Columns(text, label, found["id"], found["group"], found["time"])
    # The first of the guesses was taken.
    return columns, {
        role: names[1 : 1 + OTHERS]
        for role, names in others.items()
        if role not in named and names[1:]
    }


def _check(frame: pd.DataFrame, named: Mapping[str, str]) -> None:
    """Refuse columns that a table does not have, or that cannot be what they are named for."""
    for role, name in named.items():
        if name not in frame:
            close = difflib.get_close_matches(name, list(frame), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(frame)}"
            raise BadInput(f"--{role}: the table has no column {name!r}; {hint}")
        values, column = frame[name].nunique(), frame[name]
        if list(named.values()).count(name) > 1:
            raise BadInput(f"--{role}: the column {name!r} cannot be two things at once")
        if role == "label" and not (2 <= values <= MAX_CLASSES or _is_number(column)):
            raise BadInput(
                f"--label: {name!r} has {values:,} different values; a label has 2 to "
                f"{MAX_CLASSES}, or is a number"
            )
        if role == "id" and values < len(column):
            raise BadInput(f"--id: {name!r} does not name each row: values repeat or are missing")
        if role == "time" and not _is_time(column):
            raise BadInput(f"--time: {name!r} does not hold an ISO 8601 time in each row")


def window_days(times: pd.Series[str]) -> int | None:
    """Return a length of windows that hold rows enough to train on; None for less than two.

    A week where it suffices, else as many days as ``WINDOW_ROWS`` rows take on average.
    """
    moments = pd.to_datetime(times, format="ISO8601", utc=True)
    span_days = (moments.max() - moments.min()).days + 1
    days = max(7, -(-WINDOW_ROWS * span_days // len(moments)))
    return days if 2 * days <= span_days else None


def _are_classes(column: pd.Series[str]) -> bool:
    return bool(2 <= column.nunique() <= min(MAX_CLASSES, max(2, len(column) // 5)))


def _is_number(column: pd.Series[str]) -> bool:
    values = pd.to_numeric(column.dropna(), errors="coerce")
    return values.nunique() > 1 and bool(np.isfinite(values).all())


def _task(labels: pd.Series[str]) -> str:
    """Return the lines of the section ``task`` that say what is to be learnt."""
    if _are_classes(labels) or not _is_number(labels):
        names = ", ".join(map(_quote, sorted(labels.dropna().unique())))
        return f"  kind: text-classification\n  labels: [{names}]\n"
    values = pd.to_numeric(labels.dropna())
    return (
        "  kind: text-regression\n"
        f"  low: {math.floor(values.min())}                        # rows beyond are quarantined\n"
        f"  high: {math.ceil(values.max())}\n"
    )


def _named(name: str, words: tuple[str, ...]) -> bool:
    return any(word in re.split(r"[^a-z]+", name.lower()) for word in words)


def _ends_like_an_id(name: str) -> bool:
    """Tell of names such as ``ticketNo``, ``invoice_number`` and ``ProductCode``."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return bool(words) and words[-1].lower() in _ID_ENDINGS


def _is_time(column: pd.Series[str]) -> bool:
    try:
        pd.to_datetime(column, format="ISO8601", utc=True)
    except (ValueError, TypeError):
        return False
    return bool(column.notna().all())


def _render(
    path: Path,
    project: Path,
    separator: str,
    columns: Columns,
    frame: pd.DataFrame,
) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", path.name.split(".")[0].lower()).strip("-")[:40]
    if not name[:1].isalpha():
        name = f"p-{name}"[:40].rstrip("-")
    days = window_days(frame[columns.time]) if columns.time else None
    if days:
        first = pd.to_datetime(frame[columns.time], format="ISO8601", utc=True).min()
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
    (base,) = FinetuneConfig().base
    return f"""\
# tokiwa run {shlex.quote(project.name)}
#
# Drafted from {_quote(path.name)}: {len(frame):,} rows. Every key has a default; `tokiwa check`
# says what is wrong with a change.

name: {name}

task:
{_task(frame[columns.label])}  max_tokens: 128               # longer texts are cut, and counted

source:
  kind: files
  root: {_quote(str(path.resolve().parent))}
  files:
    - path: {_quote(path.name)}
  separator: {_quote(separator)}
  columns:
    text: {_quote(columns.text)}
    label: {_quote(columns.label)}
{optional}  # max_rows_per_window: 2500   # a laptop trains on 1,500 rows in a minute

{windows}
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
