"""Slices of test rows that are known before any model answers.

Slices found from errors are in ``error_slices``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from components.languages import language

Rows = NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """Some of the test rows.

    Attributes:
        name: what they have in common, for people; unique among the slices of a test set.
        rows: which rows belong to it, ``[n]``.
        found: how it came about: ``column``, ``length``, ``language`` or ``errors``.
    """

    name: str
    rows: Rows
    found: str

    def __len__(self) -> int:
        """Return how many rows it has."""
        return int(self.rows.sum())


def column_slices(
    name: str, values: Sequence[Any], *, min_rows: int, bins: int = 4, found: str = "column"
) -> list[Slice]:
    """Return a slice per value of a column, or per quantile bin of its numbers.

    Missing values are a slice too. Slices below ``min_rows`` are left out, and so is one of
    all rows.

    Args:
        name: of the column.
        values: ``[n]``; None and NaN are missing.
        min_rows: fewer rows are no slice.
        bins: bins for numbers, of about as many rows each.
        found: see ``Slice``.
    """
    places, names, are_ranges = value_parts(values, bins)
    counts = np.bincount(places + 1, minlength=len(names) + 1)
    relation = "" if are_ranges else "= "
    titles = {place: f"{name} {relation}{each}" for place, each in enumerate(names)}
    titles[-1] = f"{name} is missing"
    return [
        Slice(title, places == place, found)
        for place, title in titles.items()
        if min_rows <= counts[place + 1] < len(places)
    ]


def value_parts(
    values: Sequence[Any], bins: int
) -> tuple[NDArray[np.int64], tuple[str, ...], bool]:
    """Return the part of a column that each row is in: of one value, or of a range of numbers.

    Numbers are cut into ranges if there are more different ones than ``bins``. A text that
    reads as a number is none: a postal code has no order that means something.

    Args:
        values: ``[n]``; None and NaN are missing.
        bins: ranges of numbers, of about as many rows each.

    Returns:
        The number of each row's part ``[n]``, -1 where the value is missing; the names of
        the parts; and whether they are ranges.
    """
    column = pd.Series(list(values), dtype=object)
    places = np.full(len(column), -1, dtype=np.int64)
    there = column.notna().to_numpy(bool)
    known = pd.Series(column[there].tolist())
    is_number = is_numeric_dtype(known) and not is_bool_dtype(known) and np.isfinite(known).all()
    if is_number and known.nunique() > bins:
        numbers = known.to_numpy(float)
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, bins + 1)))
        # A number that is an edge belongs to the range above, the highest to the last.
        places[there] = np.searchsorted(edges[1:-1], numbers, side="right")
        count = len(edges) - 1
        names = [
            f"{low:.4g} to {high:.4g} (part {each + 1} of {count})"
            for each, (low, high) in enumerate(pairwise(edges))
        ]
        return places, tuple(names), True
    texts = known.map(lambda value: f"{value:.12g}" if is_number else str(value))
    distinct, places[there] = np.unique(texts.to_numpy(str), return_inverse=True)
    return places, tuple(distinct.tolist()), False


def known_slices(
    frame: pd.DataFrame, columns: Sequence[str], content: str, *, min_rows: int, bins: int = 4
) -> list[Slice]:
    """Return the slices that are known before any model answers.

    By declared columns, by the source and the window where rows come from several, and for
    texts by length in characters and by language. Of slices of the same rows the first stays.

    Args:
        frame: test rows with the column ``text``, and ``source`` and ``window`` if they have
            them.
        columns: names of declared columns.
        content: ``text`` or ``image``.
        min_rows: fewer rows are no slice.
        bins: bins for numbers.

    Raises:
        ValueError: a declared column is not there.
    """
    unknown = [name for name in columns if name not in frame.columns]
    if unknown:
        raise ValueError(f"no column {', '.join(unknown)} to slice by")
    origin = [
        name for name in ("source", "window") if name in frame.columns and name not in columns
    ]
    slices = [
        each
        for name in (*columns, *origin)
        for each in column_slices(name, frame[name].tolist(), min_rows=min_rows, bins=bins)
    ]
    if content == "text":
        texts = frame["text"].tolist()
        lengths, languages = [len(text) for text in texts], [language(text) for text in texts]
        slices += column_slices("characters", lengths, min_rows=min_rows, bins=bins, found="length")
        slices += column_slices("guessed language", languages, min_rows=min_rows, found="language")
    return list({each.rows.tobytes(): each for each in reversed(slices)}.values())[::-1]
