"""Which labels a drafted project learns, and what is odd about the values of its column."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import pandas as pd

from components.validate.config import ValidateConfig

ALIKE_SHARE = 0.1
"""A value that another one equals but for case and spaces is a slip if it is so much rarer."""
SHOWN = 20
_LEAST = ValidateConfig().min_rows_per_class


@dataclass(frozen=True)
class Labels:
    """The values of a column of labels.

    Attributes:
        names: what is learnt, sorted.
        counts: rows by value, the commonest first.
        slips: values that are left out, with the name that was probably meant, or nothing.
        alike: pairs of names that are both common and differ by case or spaces alone.
    """

    names: list[str]
    counts: dict[str, int]
    slips: dict[str, str]
    alike: list[tuple[str, str]]

    @property
    def words(self) -> list[str]:
        """What to tell whoever drafts a project."""
        shown = [f"{name} {self.counts[name]:,}" for name in self.counts if name in self.names]
        more = f", and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
        said = [f"{len(shown)} labels with their rows: {', '.join(shown[:SHOWN])}{more}"]
        if self.slips:
            rows = sum(self.counts[each] for each in self.slips)
            said.append(
                f"left out of task.labels: {self.listed}; {rows:,} rows have these, and would go "
                "into quarantine: mend them, or add the label to task.labels"
            )
        said += [
            f"the labels {one!r} and {other!r} look the same; mend the rows of one of them, and "
            "take it out of task.labels"
            for one, other in self.alike
        ]
        return said

    @property
    def listed(self) -> str:
        """The values that are left out, with their rows."""
        named = [
            f"{each!r} ({self.counts[each]:,}" + (f", like {meant!r})" if meant else ")")
            for each, meant in self.slips.items()
        ]
        more = f", and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        return ", ".join(named[:SHOWN]) + more


def labels_in(column: pd.Series[str]) -> Labels:
    """Return the labels that a column of classes holds.

    A value is left out that is a rarer form of another one, or has fewer rows than
    ``validate.min_rows_per_class`` asks for, as long as two remain.

    >>> found = labels_in(pd.Series(["yes"] * 40 + ["no"] * 40 + ["Yes "] * 2 + ["noo"]))
    >>> found.names, found.slips
    (['no', 'yes'], {'Yes ': 'yes', 'noo': 'no'})
    """
    counts = {str(name): int(rows) for name, rows in column.dropna().value_counts().items()}
    first: dict[str, str] = {}
    slips, alike = {}, []
    for name, rows in counts.items():
        meant = first.setdefault(" ".join(name.split()).casefold(), name)
        if meant == name:
            continue
        if rows <= ALIKE_SHARE * counts[meant]:
            slips[name] = meant
        else:
            alike.append((meant, name))
    common = [name for name in counts if name not in slips and counts[name] >= _LEAST]
    if len(common) >= 2:
        for name in counts:
            if name not in slips and name not in common:
                slips[name] = next(iter(difflib.get_close_matches(name, common, n=1)), "")
    elif len(counts) - len(slips) < 2:
        slips = {}
    return Labels(sorted(set(counts) - set(slips)), counts, slips, alike)
