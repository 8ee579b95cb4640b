"""What the columns of a table are likely to hold, told from their names and values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from components.errors import BadInput
from pipelines.draft_times import LEAST_SHARE, form_of, forms_in_words, forms_of

MAX_CLASSES = 100
MAX_FRACTIONS = 20
"""More different numbers, not all of them whole, are a quantity and no classes."""
NUMBERS_SHARE = 0.95
"""So much of what is to be learnt must be numbers, if anything is."""
ID_CHARACTERS = 40
"""A column that is longer on average is no id, unless its name is id, key or uuid."""
LEAST_COLUMNS = 2
"""Of a table without texts, that are to tell the label."""
OTHERS = 5
"""Columns that are named beside the one that was taken."""
_TEXT_NAMES = ("text", "sentence", "review", "body", "message", "comment", "content", "title")
_LABEL_NAMES = ("label", "class", "category", "target", "sentiment", "intent", "topic", "tag", "y")
TIME_NAMES = (
    *("time", "date", "datetime", "timestamp", "ts"),
    *("day", "when", "created", "at", "datum"),
)
_ID_ENDINGS = ("id", "key", "uuid", "no", "nr", "number", "code")
_GROUP_NAMES = ("group", "user", "customer", "document", "author", "session", "thread")


@dataclass(frozen=True)
class Columns:
    """Which column was taken for what; None where none was found."""

    text: str | None
    label: str
    id: str | None
    group: str | None
    time: str | None
    record: list[str] | None = None
    """Instead of a text, columns of a table that together tell the label."""


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
    dated = [
        name
        for name in frame
        if _is_time(frame[name]) or (is_named(name, TIME_NAMES) and forms_of(frame[name]))
    ]
    times = [name for name in dated if is_named(name, TIME_NAMES) and form_of(frame[name])]
    named_ids = [
        name
        for name in frame
        if re.search(r"(^|_)id$|^key$|^uuid$", name.lower())
        or (_ends_like_an_id(name) and distinct[name] == rows and length[name] <= ID_CHARACTERS)
    ]
    wordy = [name for name in frame if name not in (*dated, *named_ids, *taken)]
    texts = [
        name
        for name in wordy
        if length[name] >= 8
        and not is_number(frame[name])
        and (is_named(name, _TEXT_NAMES) or not are_classes(frame[name]))
    ]
    # A text may be short, above all in Japanese or Chinese, if its column says what it is.
    texts = texts or [name for name in wordy if is_named(name, _TEXT_NAMES)]
    texts.sort(key=lambda name: (is_named(name, _TEXT_NAMES), length[name]), reverse=True)
    text = named.get("text") or next(iter(texts), None)
    free = [name for name in frame if name not in (text, *times, *taken)]
    labels = [name for name in free if are_classes(frame[name])]
    # Without any, what is to be learnt may be a number.
    labels = labels or [
        name for name in free if name not in named_ids and is_mostly_number(frame[name])
    ]
    if not labels and "label" not in named:
        raise BadInput(
            f"no column looks like a label among {', '.join(frame)}: "
            f"one with 2 to {MAX_CLASSES} different values, or with numbers, is needed; "
            "name it with --label"
        )
    labels.sort(
        key=lambda name: (
            is_named(name, _LABEL_NAMES),
            name not in named_ids and not is_named(name, _GROUP_NAMES),
            -distinct[name],
        ),
        reverse=True,
    )
    label = named["label"] if "label" in named else labels[0]
    rest = [name for name in free if name != label]
    ids = [name for name in rest if name in named_ids and distinct[name] == rows]
    groups = [name for name in rest if name not in ids and is_named(name, _GROUP_NAMES)]
    times = [name for name in times if name not in (text, label, *taken)]
    guessed = {"id": ids, "group": groups, "time": times}
    found = {role: next(iter(names), None) for role, names in guessed.items()} | dict(named)
    others = {
        "text": [f"{name} ({length[name]:.0f} characters)" for name in texts if name not in labels],
        "label": [
            f"{name} ({distinct[name]} values)" if are_classes(frame[name]) else f"{name} (numbers)"
            for name in labels
        ],
    }
    columns = Columns(text, label, found["id"], found["group"], found["time"])
    if text is None:
        columns = replace(columns, record=_record(frame, columns, [*dated, *named_ids]))
    # The first of the guesses was taken.
    return columns, {
        role: names[1 : 1 + OTHERS]
        for role, names in others.items()
        if role not in named and names[1:]
    }


def _record(frame: pd.DataFrame, columns: Columns, others: Sequence[str]) -> list[str]:
    """Return the columns of a table without texts that may tell the label.

    Raises:
        BadInput: there are too few of them, or what is to be learnt is a number.
    """
    roles = (columns.label, columns.id, columns.group, columns.time)
    record = [
        name
        for name in frame
        if name not in (*roles, *others) and (is_number(frame[name]) or are_classes(frame[name]))
    ]
    if len(record) < LEAST_COLUMNS:
        raise BadInput(f"no column looks like text among {', '.join(frame)}; name it with --text")
    if not are_classes(frame[columns.label]):
        raise BadInput(
            f"{columns.label!r} holds numbers, and of a table without texts only classes are "
            "learnt; name a column of classes with --label, or cut the numbers into classes "
            "with source.label_bins"
        )
    return record


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
        if role == "label" and not (2 <= values <= MAX_CLASSES or is_mostly_number(column)):
            raise BadInput(
                f"--label: {name!r} has {values:,} different values; a label has 2 to "
                f"{MAX_CLASSES}, or is a number"
            )
        if role == "id" and values < LEAST_SHARE * len(column):
            again = column[column.duplicated() & column.notna()]
            such = f", such as {again.iloc[0]!r}" if len(again) else ""
            raise BadInput(
                f"--id: {name!r} does not name each row: {len(column) - values:,} of "
                f"{len(column):,} values come again{such}, or are missing"
            )
        if role == "time" and not form_of(column):
            raise BadInput(
                f"--time: {name!r} does not hold times of one form: {forms_in_words(column)}"
            )


def are_classes(column: pd.Series[str]) -> bool:
    """Tell whether a column holds few enough different values to be classes."""
    if column.nunique() > MAX_FRACTIONS and is_mostly_number(column):
        numbers = pd.to_numeric(column, errors="coerce").dropna()
        if (numbers % 1 != 0).any():
            return False
    return bool(2 <= column.nunique() <= min(MAX_CLASSES, max(2, len(column) // 5)))


def is_mostly_number(column: pd.Series[str]) -> bool:
    """Tell whether a column holds numbers but for a few slips, such as ``n/a``."""
    there = column.dropna()
    values = pd.to_numeric(there, errors="coerce")
    return values.nunique() > 1 and bool(np.isfinite(values).mean() >= NUMBERS_SHARE)


def is_number(column: pd.Series[str]) -> bool:
    """Tell whether a column holds numbers, several of them and nothing else."""
    values = pd.to_numeric(column.dropna(), errors="coerce")
    return values.nunique() > 1 and bool(np.isfinite(values).all())


def is_named(name: str, words: tuple[str, ...]) -> bool:
    """Tell whether one of some words is a part of a column's name."""
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
