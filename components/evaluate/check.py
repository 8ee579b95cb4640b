"""What a check says, and the verdict that follows from all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from components.evaluate.comparison import Difference, Outcome
from components.evaluate.config import CheckName, EvaluateConfig
from components.settings import Section

Standing = Literal["passed", "failed", "undecided", "skipped"]
Verdict = Literal["promote", "keep", "inconclusive"]

TITLES = {"macro_f1": "F1", "r2": "R²", "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "ece": "ECE"}
"""Metrics that people know by another name than their own."""

_SHOWN = 60
"""Characters of a name that people read."""


def title_of(metric: str) -> str:
    """Return a metric's name for people."""
    return TITLES.get(metric, metric.replace("_", " "))


def shortened(name: str) -> str:
    """Return a name, such as a value of a column, as it fits a line; the end may be cut."""
    return name if len(name) <= _SHOWN else f"{name[: _SHOWN - 1]}…"


class Part(Section):
    """One of the things that a check looked at, such as a slice."""

    name: str
    rows: int
    verdict: Standing
    champion: float | None = None
    challenger: float | None = None
    measured: float | None = None
    low: float | None = None
    high: float | None = None


class Check(Section):
    """One reason of a verdict."""

    name: str
    """For people; unique in a report."""
    check: CheckName
    verdict: Standing
    required: bool = False
    """Whether it blocks; otherwise it warns."""
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    reason: str
    more_rows: int | None = None
    """So many more test rows would probably decide what is undecided; None if unknown."""
    parts: list[Part] = []

    @property
    def blocks(self) -> bool:
        """Whether a promotion fails by it."""
        return self.required and self.verdict in ("failed", "undecided")


def conclude(checks: Sequence[Check]) -> Verdict:
    """Return the verdict: what must be so is shown, or shown not to be, or open."""
    standings = {check.verdict for check in checks if check.required}
    if "failed" in standings:
        return "keep"
    return (
        "promote"
        if standings <= {"passed", "skipped"} and "passed" in standings
        else ("inconclusive")
    )


def rank(check: Check) -> int:
    """Order checks by what they mean for the verdict; the one that decides comes first."""
    order: tuple[Standing, ...] = ("failed", "undecided", "passed", "skipped")
    return order.index(check.verdict) + (0 if check.required else len(order))


def more_rows(checks: Sequence[Check]) -> int | None:
    """Return how many more test rows would decide an inconclusive verdict, None if unknown."""
    needed = [each.more_rows for each in checks if each.required and each.verdict == "undecided"]
    known = [each for each in needed if each is not None]
    return max(known) if known and len(known) == len(needed) else None


def skipped(check: CheckName, reason: str) -> Check:
    """Return a check that does not apply."""
    return Check(name=check, check=check, verdict="skipped", reason=reason)


def of_difference(
    name: str,
    check: CheckName,
    difference: Difference,
    outcome: Outcome,
    words: dict[str, str],
    config: EvaluateConfig,
    *,
    rows: str = "test",
) -> Check:
    """Return the check of a test of one difference.

    Args:
        name: for people.
        check: what it belongs to.
        difference: between two models.
        outcome: of its test.
        words: what each of the three outcomes means.
        config: with too few groups nothing is shown.
        rows: what was answered; if others than test rows would decide, the reason tells how
            many, and ``Check.more_rows`` does not.
    """
    verdict, needed = outcome.verdict, outcome.more_rows
    interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]"
    reason = (
        f"{words[verdict]}: difference {difference.gain:+.3f} in {interval}, "
        f"threshold {outcome.threshold:+.3f}"
    )
    if verdict == "undecided" and difference.low > outcome.threshold:
        reason += (
            f"; the interval alone would do, but models that are equal come so far apart with "
            f"probability {outcome.p_passed:.2f}, and evaluate.alpha allows {difference.alpha}"
        )
    lacking = config.min_groups - difference.groups
    if lacking > 0:
        verdict = "undecided"
        needed = max(needed or 0, math.ceil(lacking * difference.rows / difference.groups))
        reason = (
            f"not enough data for {name}: the {difference.rows:,} {rows} rows are "
            f"{difference.groups:,} groups of rows, evaluate.min_groups asks for "
            f"{config.min_groups}"
        )
    elif math.isnan(difference.gain):
        reason = f"these rows give {title_of(difference.metric)} no value"
    if verdict != "undecided" or rows != "test":
        if verdict == "undecided" and needed is not None:
            reason += f"; about {needed:,} more {rows} rows would decide"
        needed = None
    return Check(
        name=name,
        check=check,
        verdict=verdict,
        measured=finite(difference.gain),
        low=finite(difference.low),
        high=finite(difference.high),
        threshold=outcome.threshold,
        reason=reason,
        more_rows=needed,
    )


def finite(value: float) -> float | None:
    """Return a number that JSON can carry, or None."""
    return float(value) + 0.0 if math.isfinite(value) else None  # never -0
