"""The further columns of a source, as drift watches them.

They are declared in ``source.columns.metadata``: a customer's country, a price. No model reads
them, but rows are judged by them, and production may move in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

COLUMN = "column "
"""What the names of such features begin with, so that they meet no feature of contents."""
MISSING = "(missing)"
OTHER = "(other)"
MAX_KINDS = 50
"""Rarer values of a column of texts are counted together: names and ids are no kinds."""


def numbers_in(values: pd.Series[str]) -> pd.Series[float]:
    """Return texts as numbers, NaN where there is none or it is not finite."""
    numbers = pd.to_numeric(values, errors="coerce").astype(np.float64)
    return numbers.where(np.isfinite(numbers))


def watched_numbers(frame: pd.DataFrame, names: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Return declared columns of numbers by the names under which they are watched.

    Args:
        frame: rows ``[n]``.
        names: of its columns that are declared; those of texts are left out.
    """
    return {
        COLUMN + name: frame[name].to_numpy(np.float64)
        for name in names
        if pd.api.types.is_numeric_dtype(frame[name])
    }


def watched_kinds(frame: pd.DataFrame, names: Iterable[str]) -> dict[str, list[str]]:
    """Return declared columns of texts by the names under which they are watched.

    Args:
        frame: rows ``[n]``.
        names: of its columns that are declared; those of numbers are left out.
    """
    return {
        COLUMN + name: frame[name].fillna(MISSING).astype(str).tolist()
        for name in names
        if not pd.api.types.is_numeric_dtype(frame[name])
    }


def common_kinds(values: Sequence[str]) -> list[str]:
    """Return values with all but the ``MAX_KINDS`` most frequent as ``OTHER``."""
    ranked = sorted(Counter(values).items(), key=lambda each: (-each[1], each[0]))
    if len(ranked) <= MAX_KINDS:
        return list(values)
    kept = {kind for kind, _ in ranked[:MAX_KINDS]}
    return [each if each in kept else OTHER for each in values]


def as_known(values: Sequence[str], known: Collection[str]) -> list[str]:
    """Return values as a profile counts them: with those it never told apart as ``OTHER``."""
    if OTHER not in known:
        return list(values)
    return [each if each in known else OTHER for each in values]
