"""What every ``task`` section can say of rows, without any model.

Steps that look at rows only (validate, prepare, collect, replay) are written against
this interface and know no kind of task.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from components.settings import Section
from components.tasks.model import Content

if TYPE_CHECKING:
    import pandas as pd

Checks = dict[str, Callable[[Any], Any]]
"""Reason code to a function from a column of strings to whether each of them is good."""


class Task(Section):
    """Keys and questions that every task has.

    Attributes:
        content: what a row holds.
        exclusive: whether two labels for one content contradict each other.
        score_name: what ``score`` returns, one of a model's ``scores``.
        score_title: the same for people.
    """

    content: ClassVar[Content]
    exclusive: ClassVar[bool] = True
    score_name: ClassVar[str] = "accuracy"
    score_title: ClassVar[str] = "accuracy"

    @property
    @abstractmethod
    def input_size(self) -> int:
        """What contents are cut or scaled to; another size makes other embeddings."""

    @property
    def reading(self) -> str:
        """What else decides how contents are read; another one makes other embeddings, too."""
        return ""

    @property
    @abstractmethod
    def label_names(self) -> tuple[str, ...]:
        """The labels that there are; none where labels are numbers."""

    @property
    @abstractmethod
    def answer_names(self) -> tuple[str, ...]:
        """What the columns of a model's answers are."""

    @abstractmethod
    def content_checks(self, max_characters: int) -> Checks:
        """Return what a content must pass; ``max_characters`` limits texts."""

    @abstractmethod
    def label_checks(self) -> Checks:
        """Return what a label must pass."""

    @abstractmethod
    def readable(self, contents: pd.Series[str]) -> pd.Series[bool]:
        """Tell which contents a model can be asked about at all; none may be missing."""

    @abstractmethod
    def lacking(self, labels: pd.Series[str], min_rows: int) -> str:
        """Say why nothing can be learnt from good labels; empty if something can.

        Args:
            labels: of the rows to learn from.
            min_rows: a label with fewer rows counts as absent.
        """

    @abstractmethod
    def label_counts(self, labels: pd.Series[str]) -> dict[str, int]:
        """Return how many rows have each label, or a label in each part of the range."""

    @abstractmethod
    def score(self, labels: Sequence[str], decisions: Sequence[str]) -> float:
        """Return how good decisions are, 1 for all right; see ``score_name``."""

    def label_fault(self, label: str) -> str:
        """Say why a single label is not ``known``; empty if it is."""
        if label in self.label_names:
            return ""
        return f"there is no label {label[:60]!r}, only {', '.join(self.label_names)}"

    def known(self, labels: pd.Series[str]) -> NDArray[np.bool_]:
        """Tell which labels are there and good, ``[n]``."""
        good: NDArray[np.bool_] = labels.notna().to_numpy(bool)
        for check in self.label_checks().values():
            good[good] = check(labels[good])
        return good
