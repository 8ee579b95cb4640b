"""The form in which every source hands over its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

COLUMNS = ("id", "group", "time", "text", "label")
"""Every row has these columns, all strings; a missing value is None."""


@dataclass(frozen=True)
class Rows:
    """Rows of one window.

    Attributes:
        frame: the columns ``COLUMNS``, in a deterministic order.
        left_out: rows that the source's own configuration leaves out, by reason;
            they are counted and never silently lost.
    """

    frame: pd.DataFrame
    left_out: dict[str, int]

    def fingerprint(self) -> str:
        """Return the sha256 of the content, the same for the same rows."""
        return fingerprint(self.frame, COLUMNS)


def fingerprint(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return the sha256 of columns of strings; a missing value differs from every string."""
    digest = hashlib.sha256()
    for column in columns:
        for value in frame[column]:
            missing = not isinstance(value, str)
            data = b"" if missing else value.encode("utf-8", "surrogatepass")
            digest.update(b"-" if missing else b"+%d:" % len(data))
            digest.update(data)
        digest.update(b"\n")
    return digest.hexdigest()
