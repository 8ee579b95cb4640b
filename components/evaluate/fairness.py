"""Whether decisions treat declared groups of people alike.

Two questions, each about one favourable answer. The four-fifths rule: is the rate at which
a group gets it at least 0.8 of the rate of the group that gets it most often (29 CFR
1607.4 (D))? Equal opportunity: do those who deserve it get it about as often in every group
(Hardt et al. 2016, https://arxiv.org/abs/1610.02413)?

Rates of few rows say little. So every ratio and gap has an interval, and a group whose
interval holds the limit is undecided, neither fair nor unfair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.proportion import lower_bound, upper_bound
from components.settings import Section

Standing = Literal["fair", "unfair", "undecided"]


class Rate(Section):
    """How often the favourable answer is given, with an exact two-sided interval."""

    rows: int
    measured: float
    low: float
    high: float


class Treatment(Section):
    """A group's rate beside that of the group with the highest one."""

    group: str
    reference: str
    rate: Rate
    value: float | None
    """Four-fifths: rate by the reference's. Equal opportunity: the reference's less the
    group's. None where there is nothing to compare with."""
    low: float | None
    high: float | None
    standing: Standing


class Fairness(Section):
    """Fairness across the groups of one declared column."""

    column: str
    favourable: str
    four_fifths: list[Treatment]
    """By group; rates are of all rows."""
    equal_opportunity: list[Treatment]
    """By group; rates are of the rows that deserve the favourable answer."""
    left_out: dict[str, int]
    """Rows of the groups that have too few to be looked at."""


def together(treatments: Sequence[Treatment]) -> Standing:
    """Return ``unfair`` if any group is treated so, ``fair`` if all are, else ``undecided``."""
    standings = {each.standing for each in treatments}
    if "unfair" in standings:
        return "unfair"
    return "fair" if standings == {"fair"} else "undecided"


def fairness(
    column: str,
    values: Sequence[Any],
    targets: NDArray[Any],
    decided: NDArray[Any],
    documents: Sequence[str],
    *,
    favourable: tuple[int, str],
    min_rows: int = 30,
    min_ratio: float = 0.8,
    max_gap: float = 0.1,
    alpha: float = 0.05,
) -> Fairness:
    """Return how the groups of a column fare.

    Rows of one document resemble each other: they count for as many rows as there would be
    if they were all the same, (sum of rows)² / sum of (rows of a document)² (Kish 1965),
    which is on the safe side. The level is shared out among the groups (Bonferroni), and
    each ratio and gap has its interval from those of its two rates (Newcombe 1998; Zou &
    Donner 2008, https://doi.org/10.1002/sim.3095).

    Args:
        column: its name.
        values: group of each row ``[n]``; None and NaN are the group ``is missing``.
        targets: index of the true label ``[n]``.
        decided: index of the answered label ``[n]``; -1 is none.
        documents: rows with the same belong together ``[n]``.
        favourable: index and name of the favourable label.
        min_rows: a group with fewer rows is left out; fewer rows that deserve the favourable
            answer leave equal opportunity undecided.
        min_ratio: of the four-fifths rule.
        max_gap: largest difference of rates that is equal opportunity.
        alpha: probability of calling any group fair or unfair wrongly, for each question.

    Raises:
        ValueError: the arrays have different lengths.
    """
    if not len(values) == len(targets) == len(decided) == len(documents):
        raise ValueError("values, targets, decided and documents must be of one length")
    index, label = favourable
    column_values = pd.Series(list(values), dtype=object)
    names = column_values.astype(str).mask(column_values.isna(), "is missing").to_numpy(str)
    sizes = {str(name): int((names == name).sum()) for name in np.unique(names)}
    looked_at = [name for name, size in sizes.items() if size >= min_rows]
    document_of = np.asarray(documents, dtype=str)
    confidence = 1 - alpha / 2 / max(1, len(looked_at) - 1)

    def rates(among: NDArray[np.bool_]) -> dict[str, Rate]:
        groups = {name: among & (names == name) for name in looked_at}
        return {
            name: _rate(decided[rows] == index, document_of[rows], confidence)
            for name, rows in groups.items()
        }

    everyone = rates(np.ones(len(names), dtype=bool))
    deserving = rates(np.asarray(targets == index, dtype=bool))
    return Fairness(
        column=column,
        favourable=label,
        four_fifths=_treatments(
            everyone, min_rows, _ratio, lambda low, high: (low >= min_ratio, high < min_ratio)
        ),
        equal_opportunity=_treatments(
            deserving, min_rows, _gap, lambda low, high: (high <= max_gap, low > max_gap)
        ),
        left_out={name: size for name, size in sizes.items() if size < min_rows},
    )


def _rate(given: NDArray[np.bool_], documents: NDArray[np.str_], confidence: float) -> Rate:
    rows = len(given)
    if rows == 0:
        return Rate(rows=0, measured=0.0, low=0.0, high=1.0)
    measured = float(given.mean())
    per_document = np.unique(documents, return_counts=True)[1]
    count = rows**2 / float(np.square(per_document).sum())
    return Rate(
        rows=rows,
        measured=measured,
        low=float(lower_bound(measured * count, count, confidence)),
        high=float(upper_bound(measured * count, count, confidence)),
    )


def _treatments(
    rates: dict[str, Rate],
    min_rows: int,
    compare: Callable[[Rate, Rate], tuple[float, float, float]],
    judge: Callable[[float, float], tuple[bool, bool]],
) -> list[Treatment]:
    """Return each group beside the one with the highest rate of enough rows."""
    usual = {name: rate for name, rate in rates.items() if rate.rows >= min_rows}
    reference = max(usual, key=lambda name: usual[name].measured, default="")
    treatments = []
    for name, rate in rates.items():
        value = low = high = None
        standing: Standing = "undecided"
        if reference and usual[reference].measured > 0:
            value, low, high = compare(rate, usual[reference])
            if name == reference:
                low = high = value
            good, bad = judge(low, high)
            if name in usual:
                standing = "fair" if good else "unfair" if bad else "undecided"
        treatments.append(
            Treatment(
                group=name,
                reference=reference,
                rate=rate,
                value=value,
                low=low,
                high=high,
                standing=standing,
            )
        )
    return treatments


def _ratio(rate: Rate, reference: Rate) -> tuple[float, float, float]:
    """Return the ratio of two rates with its interval; the reference's is above 0."""
    if rate.measured == 0:
        return 0.0, 0.0, rate.high / reference.low
    ratio = rate.measured / reference.measured
    down = np.hypot(np.log(rate.measured / rate.low), np.log(reference.high / reference.measured))
    up = np.hypot(np.log(rate.high / rate.measured), np.log(reference.measured / reference.low))
    return ratio, float(ratio * np.exp(-down)), float(ratio * np.exp(up))


def _gap(rate: Rate, reference: Rate) -> tuple[float, float, float]:
    """Return the reference's rate less the group's, with its interval."""
    gap = reference.measured - rate.measured
    down = np.hypot(reference.measured - reference.low, rate.high - rate.measured)
    up = np.hypot(reference.high - reference.measured, rate.measured - rate.low)
    return gap, float(gap - down), float(gap + up)
