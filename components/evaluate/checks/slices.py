"""Does the challenger collapse on some of the rows while it gets better on the whole?

A slice collapses if the challenger loses more than the margin on it, and the loss is no
chance: the p-values of all slices are adjusted together (Holm). One that loses as much and
might do so by chance is named, and stops nobody: a slice need not be shown to be safe. With a
dozen of them, few rows each, no model would ever be promoted.
"""

from __future__ import annotations

import numpy as np

from components.evaluate.check import Check, Part, Standing, finite, shortened, skipped
from components.evaluate.comparison import Difference, family, superiority
from components.evaluate.config import EvaluateConfig
from components.evaluate.error_slices import error_slices
from components.evaluate.exam import Exam
from components.evaluate.slices import Slice, known_slices


def slices(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return one check of all slices of the test and guard rows, with each as a part."""
    if not exam.has_champion:
        return [skipped("slices", "there is no champion")]
    settings = config.slices
    of = exam.of("test", "guard")
    found = [*_known(exam, of, config), *_searched(exam, of, config)]
    if not found:
        reason = f"no slice has evaluate.slices.min_rows, {settings.min_rows} rows"
        return [skipped("slices", reason)]
    differences = {
        each.name: exam.row_difference("champion", _among(of, each.rows), config) for each in found
    }
    outcomes = family({name: superiority(each) for name, each in differences.items()}, config.alpha)
    parts = []
    for name, difference in differences.items():
        standing: Standing = "passed"
        if difference.gain < -settings.margin:
            standing = "failed" if outcomes[name].verdict == "failed" else "undecided"
        parts.append(_part(name, difference, standing))
    order: tuple[Standing, ...] = ("failed", "undecided", "passed")
    parts.sort(key=lambda part: (order.index(part.verdict), part.measured or 0.0))
    worst = parts[0]
    lost = f"{shortened(worst.name)}: {worst.measured or 0:+.3f} on {worst.rows:,} rows"
    words = {
        "failed": f"the challenger collapses on {lost}",
        "undecided": f"no slice is shown to collapse; much is lost on {lost}, perhaps by chance",
        "passed": f"none of {len(parts)} slices collapses; the least gain is on {lost}",
    }
    return [
        Check(
            name="slices",
            check="slices",
            verdict="failed" if worst.verdict == "failed" else "passed",
            measured=worst.measured,
            low=worst.low,
            high=worst.high,
            threshold=-settings.margin,
            reason=f"{words[worst.verdict]}; {settings.margin:g} may be lost",
            parts=parts,
        )
    ]


def _known(exam: Exam, of: np.ndarray, config: EvaluateConfig) -> list[Slice]:
    """Return the slices ``[of.sum()]`` that are known before any model answers."""
    settings, rows = config.slices, exam.rows
    if exam.kind == "regression":
        rows = rows.assign(label=exam.targets)  # as numbers, which texts are never taken for
    return known_slices(
        rows[of],
        settings.columns,
        exam.content,
        min_rows=settings.min_rows,
        bins=settings.bins,
    )


def _searched(exam: Exam, of: np.ndarray, config: EvaluateConfig) -> list[Slice]:
    """Return slices of test rows ``[of.sum()]`` in which the challenger's new errors gather."""
    if not config.slices.search:
        return []
    test = exam.of("test")
    new = exam.errors["challenger"][test] - exam.errors["champion"][test]
    found = error_slices(
        new,
        exam.features,
        exam.vectors,
        exam.groups(test).astype(str).tolist(),
        min_rows=config.slices.min_rows,
        seed=config.seed,
    )
    within = np.zeros((len(found), int(of.sum())), dtype=bool)
    within[:, test[of]] = [each.rows for each in found] if found else within[:, test[of]]
    return [
        Slice(f"{each.name} (found)", rows, each.found)
        for each, rows in zip(found, within, strict=True)
    ]


def _among(of: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return rows ``[n]`` of some rows ``[of.sum()]`` of them."""
    out = np.zeros(len(of), dtype=bool)
    out[np.flatnonzero(of)[rows]] = True
    return out


def _part(name: str, difference: Difference, standing: Standing) -> Part:
    is_score = difference.metric == "accuracy"
    return Part(
        name=name,
        rows=difference.rows,
        verdict=standing,
        champion=difference.champion if is_score else 1 - difference.champion,
        challenger=difference.challenger if is_score else 1 - difference.challenger,
        measured=finite(difference.gain),
        low=finite(difference.low),
        high=finite(difference.high),
    )
