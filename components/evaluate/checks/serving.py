"""Is the challenger within the budget of production?

Both models answered the same batches in turns, so that whatever else the machine did
slowed both. The timings are kept with the predictions: who decides again decides the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.evaluate.check import Check, skipped
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam

_MIN_BATCHES = 6
"""Fewer leave the median without bounds."""
_PARTS = 4
"""Batches by the length of their contents: a median of all is blind to the longest."""


def serving(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return a check for each limit of latency, size and memory that applies."""
    settings = config.serving
    checks: list[Check] = []
    challenger = batch_times(exam, "challenger")
    if exam.has_champion:
        ratios = challenger / batch_times(exam, "champion")
        limit = settings.max_latency_ratio
        overall = _latency("latency against champion", ratios, limit, "×")
        checks += [overall, *(_slow_part(ratios, limit) if overall.verdict == "passed" else [])]
    if settings.max_latency_ms is not None:
        checks.append(_latency("latency", challenger, settings.max_latency_ms, " ms"))
    for what, sizes, ratio, limit_mb in (
        ("size", exam.size_bytes, settings.max_size_ratio, settings.max_size_mb),
        ("memory", exam.memory_bytes, settings.max_memory_ratio, settings.max_memory_mb),
    ):
        if not sizes:
            continue
        if ratio is not None and "champion" in sizes:
            measured = sizes["challenger"] / max(1, sizes["champion"])
            checks.append(_limit(f"{what} against champion", measured, ratio, "×"))
        if limit_mb is not None:
            checks.append(_limit(what, sizes["challenger"] / 1e6, limit_mb, " MB"))
    return checks or [skipped("serving", "there is no champion, and no limit is given")]


def batch_times(exam: Exam, model: str) -> NDArray[np.float64]:
    """Return the milliseconds per row of each batch that all models answered ``[batches]``.

    Batches come in the order of the length of their contents.
    """
    asked = exam.of("test", "guard", "holdout")
    _, first = np.unique(exam.batch[asked], return_index=True)
    return np.asarray(exam.milliseconds[model][asked][first])


def median_bounds(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the median and a 99 % interval of it, by order statistics.

    Conover (1999), Practical Nonparametric Statistics, 3.2. With few values the bounds are
    the least and the greatest.
    """
    from scipy.stats import binom

    ordered = np.sort(values)
    place = max(0, int(binom.ppf(0.005, len(values), 0.5)) - 1)
    return float(np.median(values)), float(ordered[place]), float(ordered[-1 - place])


def _latency(name: str, values: NDArray[np.float64], limit: float, unit: str) -> Check:
    if len(values) < _MIN_BATCHES:
        return skipped("serving", f"{len(values)} batches are too few to time").model_copy(
            update={"name": name}
        )
    median, low, high = median_bounds(values)
    verdict = "passed" if median <= limit else "failed" if low > limit else "undecided"
    words = {
        "passed": "within the limit",
        "failed": "too slow",
        "undecided": "perhaps too slow: timings vary too much to tell",
    }
    return Check(
        name=name,
        check="serving",
        verdict=verdict,
        measured=median,
        low=low,
        high=high,
        threshold=limit,
        reason=f"{words[verdict]}: {name} {median:.2f}{unit} in [{low:.2f}, {high:.2f}], "
        f"at most {limit:g}{unit}",
    )


def _slow_part(ratios: NDArray[np.float64], limit: float) -> list[Check]:
    """Return a check that fails if one is shown to be too slow on long, or on short, contents.

    A part of few batches varies, so that what may be chance is no finding here.
    """
    if len(ratios) < _PARTS * _MIN_BATCHES:
        return []
    parts = [median_bounds(each) for each in np.array_split(ratios, _PARTS)]
    place = max(range(_PARTS), key=lambda part: parts[part][1])
    median, low, high = parts[place]
    if low <= limit:
        return []
    name = f"latency against champion, part {place + 1} of {_PARTS} by length"
    return [
        Check(
            name=name,
            check="serving",
            verdict="failed",
            measured=median,
            low=low,
            high=high,
            threshold=limit,
            reason=f"too slow: {name} {median:.2f}× in [{low:.2f}, {high:.2f}], at most {limit:g}×",
        )
    ]


def _limit(name: str, measured: float, limit: float, unit: str) -> Check:
    good = measured <= limit
    return Check(
        name=name,
        check="serving",
        verdict="passed" if good else "failed",
        measured=measured,
        threshold=limit,
        reason=f"{'within the limit' if good else 'too large'}: {name} {measured:.2f}{unit}, "
        f"at most {limit:g}{unit}",
    )
