"""Do declared groups of people get the favourable answer alike?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.evaluate import fairness as rules
from components.evaluate.check import Check, Part, Standing, shortened, skipped
from components.evaluate.config import EvaluateConfig, FairnessConfig
from components.evaluate.exam import Exam
from components.evaluate.slices import value_parts

_NAMED = 5
"""Groups of few rows that a reason names."""
_STANDING: dict[rules.Standing, Standing] = {
    "fair": "passed",
    "unfair": "failed",
    "undecided": "undecided",
}


def fairness(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return two checks for each declared column: four-fifths, and equal opportunity.

    The groups of a column of numbers, such as ages, are the same ranges as its slices.
    """
    settings = config.fairness
    if not settings.columns:
        return [skipped("fairness", "evaluate.fairness.columns names none")]
    test, checks = exam.of("test"), []
    for column in settings.columns:
        places, names, _ = value_parts(exam.rows[column][test].tolist(), config.slices.bins)
        found = rules.fairness(
            column,
            [None if place < 0 else names[place] for place in places.tolist()],
            exam.targets[test],
            _given(exam)[test],
            exam.groups(test).astype(str).tolist(),
            favourable=(exam.labels.index(settings.favourable), settings.favourable),
            min_rows=settings.min_rows,
            min_ratio=settings.min_ratio,
            max_gap=settings.max_gap,
            alpha=config.alpha,
        )
        checks += [
            _check(f"four-fifths of {column}", found.four_fifths, found.left_out, settings),
            _check(
                f"equal opportunity of {column}",
                found.equal_opportunity,
                found.left_out,
                settings,
                lowest=False,
            ),
        ]
    return checks


def _given(exam: Exam) -> NDArray[np.int64]:
    """Return the label that each row really gets ``[n]``, -1 where a person decides."""
    decided = exam.decided["challenger"]
    left = exam.abstained.get("challenger", np.zeros(len(decided), dtype=bool))
    return np.where(left, -1, decided)


def _check(
    name: str,
    treatments: list[rules.Treatment],
    left_out: dict[str, int],
    settings: FairnessConfig,
    *,
    lowest: bool = True,
) -> Check:
    if len(treatments) + len(left_out) < 2:
        reason = f"{name}: all test rows are of one group"
        return Check(name=name, check="fairness", verdict="undecided", reason=reason)
    small = ""
    if left_out:
        named = list(left_out.items())[:_NAMED]
        few = ", ".join(f"{shortened(group)} ({rows})" for group, rows in named)
        more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        small = f"; too few rows to look at: {few}{more}"
    if len(treatments) < 2:
        reason = f"{name}: fewer than two groups have {settings.min_rows} test rows{small}"
        return Check(name=name, check="fairness", verdict="undecided", reason=reason)
    limit = settings.min_ratio if lowest else settings.max_gap
    parts = [
        Part(
            name=each.group,
            rows=each.rate.rows,
            verdict=_STANDING[each.standing],
            challenger=each.rate.measured,
            measured=each.value,
            low=each.low,
            high=each.high,
        )
        for each in treatments
    ]
    known = [part for part in parts if part.measured is not None]
    worst = (min if lowest else max)(known, key=lambda part: part.measured or 0.0, default=None)
    verdict = _STANDING[rules.together(treatments)]
    asked = f"at least {limit:g}" if lowest else f"at most {limit:g}"
    at = f"; the worst is {shortened(worst.name)} with {worst.measured or 0:.3f}" if worst else ""
    words = {"passed": "fair", "failed": "unfair", "undecided": "perhaps unfair"}
    return Check(
        name=name,
        check="fairness",
        verdict=verdict,
        measured=worst.measured if worst else None,
        low=worst.low if worst else None,
        high=worst.high if worst else None,
        threshold=limit,
        reason=f"{words[verdict]}: {name} {asked}{at}{small}",
        parts=parts,
    )
