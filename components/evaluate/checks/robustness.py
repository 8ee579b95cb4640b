"""Do answers stay what they are if contents change and their meaning does not?

Of changes that hardly any content knows (other numbers, where few have one) nothing is asked:
fewer than ``evaluate.min_groups`` groups of changed rows show nothing.
"""

from __future__ import annotations

import numpy as np

from components.evaluate.check import Check, Part, finite, skipped
from components.evaluate.comparison import family, non_inferiority
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam, Perturbed, mean_difference
from components.proportion import upper_bound


def robustness(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return one check of all perturbations, with each as a part."""
    if not exam.perturbed:
        return [skipped("robustness", "evaluate.robustness.rows asks for nothing")]
    changed = {
        name: each
        for name, each in exam.perturbed.items()
        if len(np.unique(each.groups.astype(str))) >= config.min_groups
    }
    if not changed:
        reason = (
            f"not enough data for robustness: no change met {config.min_groups} groups of rows "
            "(evaluate.min_groups); evaluate.robustness.rows may be higher"
        )
        return [Check(name="robustness", check="robustness", verdict="undecided", reason=reason)]
    judge = _compared if exam.has_champion else _alone
    parts = judge(changed, config)
    order = ("failed", "undecided", "passed")
    parts.sort(key=lambda part: (order.index(part.verdict), part.measured or 0.0))
    worst, settings = parts[0], config.robustness
    stay = f"{worst.challenger or 0:.1%} of answers stay with changed {worst.name}"
    if exam.has_champion:
        stay += f", of the champion's {worst.champion or 0:.1%}"
    if too_few := [name for name in exam.perturbed if name not in changed]:
        stay += f"; too few rows to look at: {', '.join(too_few)}"
    words = {
        "passed": "answers stay what they are",
        "failed": "answers change more than they may",
        "undecided": "answers change, perhaps more than they may",
    }
    return [
        Check(
            name="robustness",
            check="robustness",
            verdict=worst.verdict,
            measured=worst.measured,
            low=worst.low,
            high=worst.high,
            threshold=-settings.margin if exam.has_champion else settings.min_agreement,
            reason=f"{words[worst.verdict]}: at worst {stay}",
            parts=parts,
        )
    ]


def _compared(changed: dict[str, Perturbed], config: EvaluateConfig) -> list[Part]:
    """Return by how much more, or fewer, answers stay than of the champion's."""
    differences = {
        name: mean_difference(
            each.kept["champion"].astype(float),
            each.kept["challenger"].astype(float),
            each.groups,
            config,
        )
        for name, each in changed.items()
    }
    tested = {
        name: non_inferiority(each, config.robustness.margin) for name, each in differences.items()
    }
    outcomes = family(tested, config.alpha)
    return [
        Part(
            name=name,
            rows=each.rows,
            verdict=outcomes[name].verdict,
            champion=1 - each.champion,
            challenger=1 - each.challenger,
            measured=finite(each.gain),
            low=finite(each.low),
            high=finite(each.high),
        )
        for name, each in differences.items()
    ]


def _alone(changed: dict[str, Perturbed], config: EvaluateConfig) -> list[Part]:
    """Return how many answers stay; fewer than there must be, only if that is no chance."""
    parts = []
    for name, each in changed.items():
        rows = len(each.groups)
        share = float(each.kept["challenger"].mean())
        high = float(upper_bound(share * rows, rows, 1 - config.alpha))
        least = config.robustness.min_agreement
        verdict = "passed" if share >= least else "failed" if high < least else "undecided"
        parts.append(
            Part(
                name=name,
                rows=rows,
                verdict=verdict,
                challenger=share,
                measured=share,
                high=high,
            )
        )
    return parts
