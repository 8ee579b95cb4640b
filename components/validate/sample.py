"""What checks look at: the rows of a snapshot, and the little that is known beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.settings import Section
from components.sources.rows import Metadata
from components.tasks import TaskConfig
from components.validate.config import CheckName, Severity, ValidateConfig

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """Rows of several windows, the last of which is to be trained on.

    Attributes:
        frame: all columns of a snapshot, strings or None, and ``window``.
        window: name of the current window.
        window_end: its end, ISO 8601; empty if it has none.
        horizon: the present, if some row says that it is of later; else empty.
        metadata: what the further columns are.
        task: says which contents and labels are good.
        served: different contents that the server was asked in the current window.
    """

    frame: pd.DataFrame
    window: str
    task: TaskConfig
    metadata: Metadata
    window_end: str = ""
    horizon: str = ""
    served: Sequence[str] = ()

    @property
    def current(self) -> pd.DataFrame:
        """The rows of the current window."""
        return self.frame[self.frame["window"] == self.window]

    @property
    def earlier(self) -> pd.DataFrame:
        """The rows of all windows before."""
        return self.frame[self.frame["window"] != self.window]

    def where(self, rows: Mask) -> Sample:
        """Return the sample of some of the rows ``[n]``."""
        return replace(self, frame=self.frame[rows].reset_index(drop=True))

    def texts(self) -> dict[str, pd.Series[str]]:
        """Return the columns that people wrote, without missing values, by name."""
        names = ["id", "group", *self.metadata]
        if self.task.content != "image":
            names.append("text")
        return {name: self.frame[name].dropna().astype(str) for name in names if name in self.frame}


class Finding(Section):
    """What is odd about a window as a whole."""

    check: CheckName
    code: str
    severity: Severity
    reason: str


RowCheck = Callable[[Sample, ValidateConfig], dict[str, Mask]]
"""From rows to which of them fail ``[n]``, by reason code."""
WindowCheck = Callable[[Sample, ValidateConfig], dict[str, str]]
"""From good rows to why the current window is not as it should be, by reason code."""


def matching(sample: Sample, pattern: str) -> Mask:
    """Return which rows have a match of a regular expression in what people wrote ``[n]``."""
    found = np.zeros(len(sample.frame), dtype=bool)
    for values in sample.texts().values():
        hits = values.index[values.str.contains(pattern, regex=True)]
        found[sample.frame.index.get_indexer(hits)] = True
    return found
