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

    Values are numbers if all that are there read as such and there are more different ones
    than ``bins``. Missing values are a slice too. Slices below ``min_rows`` are left out,
    and so is one of all rows.

    Args:
        name: of the column.
        values: ``[n]``; None and NaN are missing.
        min_rows: fewer rows are no slice.
        bins: bins for numbers, of about as many rows each.
        found: see ``Slice``.
    """
    column = pd.Series(list(values), dtype=object)
    missing = column.isna().to_numpy(bool)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    numeric = np.isfinite(numbers[~missing]).all() and len(np.unique(numbers[~missing])) > bins
    parts: dict[str, Rows] = {}
    if numeric:
        edges = np.unique(np.quantile(numbers[~missing], np.linspace(0, 1, bins + 1)))
        # A number that is an edge belongs to the bin above, the highest to the last.
        place = np.searchsorted(edges[1:-1], numbers, side="right")
        for each, (low, high) in enumerate(pairwise(edges)):
            title = f"{name} {low:.4g} to {high:.4g} (part {each + 1} of {len(edges) - 1})"
            parts[title] = (place == each) & ~missing
    else:
        texts = column[~missing].astype(str)
        counts = texts.value_counts()
        for value in sorted(counts.index[counts >= min_rows]):
            parts[f"{name} = {value}"] = (column.astype(str) == value).to_numpy(bool) & ~missing
    parts[f"{name} is missing"] = missing
    return [
        Slice(title, rows, found)
        for title, rows in parts.items()
        if min_rows <= rows.sum() < len(rows)
    ]


def known_slices(
    frame: pd.DataFrame, columns: Sequence[str], content: str, *, min_rows: int, bins: int = 4
) -> list[Slice]:
    """Return the slices that are known before any model answers.

    By declared columns, by the window where rows come from several, and for texts by length
    in characters and by language.

    Args:
        frame: test rows with the column ``text``, and ``window`` if they have one.
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
    origin = [name for name in ("window",) if name in frame.columns and name not in columns]
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
    return slices
