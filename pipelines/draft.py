"""Draft a project file from a table: ``tokiwa init data.csv``."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from components.errors import BadInput, SourceError
from components.finetune.config import FinetuneConfig
from components.sources.files import read_table

MAX_CLASSES = 100
WINDOW_ROWS = 300
_TEXT_NAMES = ("text", "sentence", "review", "body", "message", "comment", "content", "title")
_LABEL_NAMES = ("label", "class", "category", "target", "sentiment", "intent", "topic", "tag", "y")
_TIME_NAMES = ("time", "date", "datetime", "timestamp", "day", "when", "created", "at")
_GROUP_NAMES = ("group", "user", "customer", "document", "author", "session", "thread")


@dataclass(frozen=True)
class Columns:
    """Which column was taken for what; None where none was found."""

    text: str
    label: str
    id: str | None
    group: str | None
    time: str | None


def draft(path: Path, project: Path) -> tuple[str, Columns]:
    """Return the text of a project file for a table, and what its columns were taken for.

    Args:
        path: the table.
        project: where the project file will be.

    Raises:
        BadInput: the table cannot be read, or has no text or no label.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {path}")
    separator = "\t" if ".tsv" in map(str.lower, path.suffixes) else ","
    try:
        frame = read_table(path, separator, True, "strict")
    except SourceError as error:
        raise BadInput(str(error)) from error
    if frame.empty:
        raise BadInput(f"{path} has no rows")
    columns = guess(frame)
    labels = sorted(frame[columns.label].dropna().unique())
    return _render(path, project, separator, columns, labels, frame), columns


def guess(frame: pd.DataFrame) -> Columns:
    """Return what each column of a table of strings is likely to hold.

    Raises:
        BadInput: no column looks like text, or none like a label.
    """
    rows = len(frame)
    distinct = {name: frame[name].nunique() for name in frame}
    length = {name: frame[name].dropna().str.len().mean() or 0.0 for name in frame}
    dated = [name for name in frame if _is_time(frame[name])]
    times = [name for name in dated if _named(name, _TIME_NAMES)]
    named_ids = [name for name in frame if re.search(r"(^|_)id$|^key$|^uuid$", name.lower())]
    wordy = [name for name in frame if name not in (*dated, *named_ids)]
    texts = [name for name in wordy if length[name] >= 8]
    # A text may be short, above all in Japanese or Chinese, if its column says what it is.
    texts = texts or [name for name in wordy if _named(name, _TEXT_NAMES)]
    if not texts:
        raise BadInput(
            f"no column looks like text among {', '.join(frame)}; "
            "start from a shipped project file and name the columns yourself"
        )
    text = max(texts, key=lambda name: (_named(name, _TEXT_NAMES), length[name]))
    labels = [
        name
        for name in frame
        if name not in (text, *times) and 2 <= distinct[name] <= min(MAX_CLASSES, max(2, rows // 5))
    ]
    if not labels:
        raise BadInput(
            f"no column looks like a label among {', '.join(frame)}: "
            f"one with 2 to {MAX_CLASSES} different values is needed"
        )
    label = max(
        labels,
        key=lambda name: (
            _named(name, _LABEL_NAMES),
            name not in named_ids and not _named(name, _GROUP_NAMES),
            -distinct[name],
        ),
    )
    rest = [name for name in frame if name not in (text, label, *times)]
    ids = [name for name in rest if name in named_ids and distinct[name] == rows]
    groups = [name for name in rest if name not in ids and _named(name, _GROUP_NAMES)]
    return Columns(text, label, *((found or [None])[0] for found in (ids, groups, times)))


def window_days(times: pd.Series[str]) -> int | None:
    """Return a length of windows that hold rows enough to train on; None for less than two.

    A week where it suffices, else as many days as ``WINDOW_ROWS`` rows take on average.
    """
    moments = pd.to_datetime(times, format="ISO8601", utc=True)
    span_days = (moments.max() - moments.min()).days + 1
    days = max(7, -(-WINDOW_ROWS * span_days // len(moments)))
    return days if 2 * days <= span_days else None


def _named(name: str, words: tuple[str, ...]) -> bool:
    return any(word in re.split(r"[^a-z]+", name.lower()) for word in words)


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
    labels: list[str],
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
    return f"""\
# tokiwa run {shlex.quote(project.name)}
#
# Drafted from {_quote(path.name)}: {len(frame):,} rows. Every key has a default; `tokiwa check`
# says what is wrong with a change.

name: {name}

task:
  kind: text-classification
  labels: [{", ".join(map(_quote, labels))}]
  max_tokens: 128               # longer texts are cut, and counted

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
  base: {FinetuneConfig().base}   # or a transformers folder
  base_requirement: {FinetuneConfig().base_requirement}
  method: full                  # or head, with head_learning_rate: 0.01, in seconds
  epochs: 2
"""


def _quote(text: str) -> str:
    """Return a YAML double-quoted scalar on one line.

    Not JSON's: it writes characters beyond U+FFFF in two halves, which YAML leaves apart.
    """
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf).strip()
