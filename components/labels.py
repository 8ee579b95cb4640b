"""Labels that people gave to rows, as they came: by whom, and one import after another.

What they say together is decided when it is read, by one rule:

1. Of what one annotator says of a row, the last word counts.
2. If the annotators of a row agree, that is its label; else that of the strict majority.
3. Without a majority the row has no label, and is listed as a conflict.

A label that the source itself carries outweighs them all. ::

    {prefix}/labels/00000001.json       one import, never changed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import combinations

from components.ledger import Moment, Name, Series
from components.settings import Section
from components.store import Store


class Annotation(Section):
    """What one annotator said of one row."""

    row: Name
    """The row's id in the source."""
    window: str
    """The window that the row is in."""
    annotator: Name
    label: Name


class Import(Section):
    """Annotations that came together."""

    schema_version: int = 1
    number: int
    by: Name
    at: Moment
    annotations: list[Annotation]


class Conflict(Section):
    """A row on which annotators disagree without a majority."""

    row: str
    said: dict[str, str]
    """Label by annotator."""


class Agreement(Section):
    """How far two annotators agree.

    Attributes:
        first, second: their names.
        rows: that both labelled.
        agreed: share of them with the same label.
        kappa: Cohen's, agreement beyond chance: 1 for all, 0 for as much as by chance; None
            where both used one and the same label only, and there is nothing beyond chance.
    """

    first: str
    second: str
    rows: int
    agreed: float
    kappa: float | None


class Resolution(Section):
    """What annotations say together."""

    labels: dict[str, str]
    """Label by row."""
    windows: dict[str, str]
    """Window by row, of all rows that anybody labelled."""
    repeated: int
    """Words that said what their annotator had said before."""
    changed: int
    """Words by which an annotator took an earlier one back."""
    outvoted: int
    """Rows whose label is that of a majority."""
    conflicts: list[Conflict]


def resolve(annotations: Iterable[Annotation]) -> Resolution:
    """Return what annotations say together, in the order in which they came.

    Examples:
        >>> said = [("a", "ann", "good"), ("a", "bob", "bad"), ("a", "cyd", "good")]
        >>> words = [Annotation(row=r, window="", annotator=a, label=l) for r, a, l in said]
        >>> resolve(words).labels
        {'a': 'good'}
        >>> resolve(words[:2]).conflicts
        [Conflict(row='a', said={'ann': 'good', 'bob': 'bad'})]
    """
    said: dict[str, dict[str, str]] = {}
    windows: dict[str, str] = {}
    repeated = changed = 0
    for each in annotations:
        words = said.setdefault(each.row, {})
        if each.annotator in words:
            same = words[each.annotator] == each.label
            repeated, changed = repeated + same, changed + (not same)
        words[each.annotator] = each.label
        windows[each.row] = each.window
    labels: dict[str, str] = {}
    conflicts, outvoted = [], 0
    for row, words in said.items():
        label, count = Counter(words.values()).most_common(1)[0]
        if 2 * count > len(words):
            labels[row] = label
            outvoted += count < len(words)
        else:
            conflicts.append(Conflict(row=row, said=words))
    return Resolution(
        labels=labels,
        windows=windows,
        repeated=repeated,
        changed=changed,
        outvoted=outvoted,
        conflicts=conflicts,
    )


def agreements(annotations: Iterable[Annotation]) -> list[Agreement]:
    """Return how far each pair of annotators agrees, on the rows that both labelled.

    References:
        Cohen (1960), A coefficient of agreement for nominal scales, Educational and
        Psychological Measurement 20.
    """
    said: dict[str, dict[str, str]] = {}
    for each in annotations:
        said.setdefault(each.annotator, {})[each.row] = each.label
    out = []
    for first, second in combinations(sorted(said), 2):
        both = sorted(said[first].keys() & said[second].keys())
        if both:
            mine = [said[first][row] for row in both]
            theirs = [said[second][row] for row in both]
            agreed = sum(a == b for a, b in zip(mine, theirs, strict=True)) / len(both)
            out.append(
                Agreement(
                    first=first,
                    second=second,
                    rows=len(both),
                    agreed=agreed,
                    kappa=cohens_kappa(mine, theirs),
                )
            )
    return out


def cohens_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Return the agreement beyond chance of two annotators, see ``Agreement``.

    Examples:
        >>> cohens_kappa(["a", "a", "b", "b"], ["a", "a", "b", "a"])
        0.5
    """
    count = len(first)
    agreed = sum(a == b for a, b in zip(first, second, strict=True)) / count
    mine, theirs = Counter(first), Counter(second)
    by_chance = sum(mine[label] * theirs[label] for label in mine) / count**2
    return None if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)


class Labels:
    """The annotations of one ledger."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Name the place; nothing is written yet."""
        self._series = Series(store, f"{prefix}/labels" if prefix else "labels", 8, Import)

    def add(self, annotations: Sequence[Annotation], by: str, at: datetime) -> Import:
        """Keep an import; the same one again is harmless: its words are repeated."""
        while True:  # each turn without an answer means that somebody else was first
            number = self._series.last() + 1
            made = Import(number=number, by=by, at=at.isoformat(), annotations=list(annotations))
            if self._series.create(number, made):
                return made

    def all(self) -> list[Annotation]:
        """Return all annotations in the order in which they came."""
        imports = (self._series.read(number) for number in range(1, self._series.last() + 1))
        return [each for one in imports for each in one.annotations]

    def resolved(self) -> Resolution:
        """Return what they say together."""
        return resolve(self.all())

    def rows_in(self, window: str) -> int:
        """Return how many rows of a window people have given a label."""
        found = self.resolved()
        return sum(found.windows[row] == window for row in found.labels)
