"""What the columns of a window hold, in the few numbers that a person looks at."""

from __future__ import annotations

import numpy as np
import pandas as pd

from components.declared_columns import numbers_in
from components.settings import Section
from components.sources.rows import Metadata
from components.tasks import TaskConfig

COMMONEST = 8


class ColumnSummary(Section):
    """One column of the good rows of a window."""

    name: str
    rows: int
    missing: int
    distinct: int
    quantiles: list[float] = []
    """Smallest, quartiles and largest, of numbers, of moments in days before the newest one,
    or of lengths in characters of texts."""
    of: str = ""
    """What the quantiles are of; empty for none."""
    commonest: dict[str, int] = {}
    """Rows by value, where values repeat."""


def summary_of(frame: pd.DataFrame, metadata: Metadata, task: TaskConfig) -> list[ColumnSummary]:
    """Return what each column holds; contents that are images are not looked into."""
    names = ["text", "label", "group", "time", "source", *metadata]
    return [
        _column(name, frame[name], metadata, task) for name in names if name in frame and len(frame)
    ]


def _column(
    name: str, values: pd.Series[str], metadata: Metadata, task: TaskConfig
) -> ColumnSummary:
    there = values.dropna()
    numbers, of = pd.Series(dtype=float), ""
    if name == "text":
        numbers, of = there.str.len(), "characters"
    elif name == "time":
        moments = pd.to_datetime(there, errors="coerce", utc=True, format="ISO8601").dropna()
        numbers, of = (moments.max() - moments) / pd.Timedelta(days=1), "days before the newest"
    elif (name in metadata and metadata[name].kind == "number") or (
        name == "label" and not task.label_names
    ):
        numbers, of = numbers_in(there).dropna(), "value"
    counts = there.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    repeats = not of and len(counts) and (len(counts) <= COMMONEST or counts.iloc[0] > 1)
    return ColumnSummary(
        name=task.content if name == "text" else name,
        rows=len(values),
        missing=int(values.isna().sum()),
        distinct=len(counts),
        quantiles=np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(numbers) else [],
        of=of if len(numbers) else "",
        commonest={str(key): int(rows) for key, rows in counts.head(COMMONEST).items()}
        if repeats
        else {},
    )
