"""The form in which every source hands over its rows."""

from __future__ import annotations

import hashlib
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
        digest = hashlib.sha256()
        for column in COLUMNS:
            for value in self.frame[column]:
                digest.update(
                    b"\0-" if value is None else b"\0+" + value.encode("utf-8", "surrogatepass")
                )
            digest.update(b"\1")
        return digest.hexdigest()
