"""Do declared groups of people get the favourable answer alike?"""

from __future__ import annotations

from components.evaluate import fairness as rules
from components.evaluate.check import Check, Part, Standing, skipped
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam
from components.evaluate.slices import value_parts

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
            exam.decided["challenger"][test],
            exam.groups(test).astype(str).tolist(),
            favourable=(exam.labels.index(settings.favourable), settings.favourable),
            min_rows=settings.min_rows,
            min_ratio=settings.min_ratio,
            max_gap=settings.max_gap,
            alpha=config.alpha,
        )
        checks += [
            _check(f"four-fifths of {column}", found.four_fifths, settings.min_ratio, lowest=True),
            _check(
                f"equal opportunity of {column}",
                found.equal_opportunity,
                settings.max_gap,
                lowest=False,
            ),
        ]
    return checks


def _check(name: str, treatments: list[rules.Treatment], limit: float, *, lowest: bool) -> Check:
    if len(treatments) < 2:
        reason = f"{name}: fewer than two groups have evaluate.fairness.min_rows rows"
        return skipped("fairness", reason).model_copy(update={"name": name})
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
    at = f"; the worst is {worst.name} with {worst.measured or 0:.3f}" if worst else ""
    words = {"passed": "fair", "failed": "unfair", "undecided": "perhaps unfair"}
    return Check(
        name=name,
        check="fairness",
        verdict=verdict,
        measured=worst.measured if worst else None,
        low=worst.low if worst else None,
        high=worst.high if worst else None,
        threshold=limit,
        reason=f"{words[verdict]}: {name} {asked}{at}",
        parts=parts,
    )
