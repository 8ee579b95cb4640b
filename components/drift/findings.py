"""What is found when everything that a profile remembers is compared with a window.

With hundreds of features some are significant by chance, and with many rows a difference
too small to matter is significant too. So a feature has moved only when it is significant
after Benjamini-Hochberg and its effect is large enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.declared_columns import COLUMN, MISSING, as_known
from components.distribution import Distribution, effective_category_rows, effective_rows
from components.drift.detectors import DETECTORS
from components.drift.detectors.detector import Comparison, binned
from components.drift.gaps import GAP, fallen_behind
from components.profile import (
    DECIDED,
    EMBEDDING,
    PROBABILITY,
    Profile,
    counts_of,
    group_numbers,
)
from components.settings import Section

Level = Literal[0, 1, 2, 3]
"""Of an alert: 3 at once, 2 within a day, 1 in the weekly review, 0 is none."""

Watched = Literal["input", "embedding", "answer", "error"]

GRAVE = 2.0
"""So many times the effect that counts is looked at within a day."""
ANSWERS = ("answer", "confidence", "value")
OUTPUTS_FROM = ("id", "group", "is_test", DECIDED)
"""Columns of a collected window that are no features."""


class Finding(Section):
    """One thing that is watched, and what a detector says of it."""

    name: str
    watched: Watched
    detector: str
    """Its name in ``DETECTORS``."""
    statistic: float
    effect: float
    """How large the change is, whatever the number of rows; in the detector's own measure."""
    threshold: float
    """The effect from which a change counts."""
    p_value: float | None
    """How probable so large a statistic is without a change; None for a stream's detector."""
    moved: bool
    """Both significant, among all that is watched, and large enough."""
    level: Level

    @property
    def times_threshold(self) -> float:
        """The effect in units of what counts, to compare detectors with each other."""
        return self.effect / self.threshold if self.threshold else float(self.moved)


@dataclass(frozen=True)
class Choice:
    """Which detectors look at what, see ``DriftConfig``."""

    numbers: Sequence[str]
    categories: Sequence[str]
    vectors: Sequence[str]
    min_effect: dict[str, float]
    max_gap: float
    rate: float


@dataclass(frozen=True)
class _Test:
    """A comparison that was made, before it is judged among all others."""

    name: str
    watched: Watched
    detector: str
    found: Comparison
    rank_error: float = 0.0


def compared(
    profile: Profile,
    frame: pd.DataFrame,
    labelled: pd.DataFrame,
    choice: Choice,
    inputs: pd.DataFrame | None = None,
) -> list[Finding]:
    """Return what the detectors find in a window, the largest effect first.

    Args:
        profile: of the champion.
        frame: a window's rows, as ``collect`` wrote them.
        labelled: rows whose labels have come, likewise.
        choice: of detectors.
        inputs: more rows, with some of the columns only; what they have is looked at there.
    """
    sides = [frame] if inputs is None else [inputs, frame]
    tests = [
        *_numbers(profile, sides, choice),
        *_categories(profile, sides, choice),
        *_vectors(profile, frame, choice),
        *_kind_errors(profile, labelled),
    ]
    significant = benjamini_hochberg(np.array([each.found.p_value for each in tests]), choice.rate)
    findings = [_judged(each, bool(significant[index]), choice) for index, each in enumerate(tests)]
    return sorted(findings, key=lambda each: -each.times_threshold)


def schema_changes(profile: Profile, frame: pd.DataFrame) -> list[str]:
    """Return how the columns of a window differ from those of the profile, in words."""
    changes = []
    for name in profile.numbers:
        if name not in frame:
            changes.append(f"column {name} is missing")
        elif not pd.api.types.is_numeric_dtype(frame[name]):
            changes.append(f"column {name} was numbers and is {frame[name].dtype}")
    changes += [f"column {name} is missing" for name in profile.categories if name not in frame]
    if not len(profile.vectors):  # an older profile does not know all that is collected today
        return changes
    known = {*profile.numbers, *profile.categories, *OUTPUTS_FROM, "answer"}
    for name in frame:
        if name not in known and not str(name).startswith((EMBEDDING, PROBABILITY)):
            changes.append(f"column {name} is new")
    return changes


def _judged(test: _Test, significant: bool, choice: Choice) -> Finding:
    if test.detector == GAP:
        threshold = choice.max_gap
    else:
        threshold = choice.min_effect.get(test.detector, DETECTORS[test.detector].threshold)
    moved = significant and test.found.effect - test.rank_error >= threshold
    grave: Level = 3 if test.detector == GAP else 2
    is_grave = test.detector == GAP or test.found.effect >= GRAVE * threshold
    level: Level = 0 if not moved else grave if is_grave else 1
    return Finding(
        name=test.name,
        watched=test.watched,
        detector=test.detector,
        statistic=test.found.statistic,
        effect=test.found.effect,
        threshold=threshold,
        p_value=test.found.p_value,
        moved=moved,
        level=level,
    )


def _watched(name: str) -> Watched:
    if name.startswith(EMBEDDING):
        return "embedding"
    return "answer" if name.removesuffix(f" {MISSING}") in ANSWERS else "input"


def _numbers(profile: Profile, sides: Sequence[pd.DataFrame], choice: Choice) -> Iterator[_Test]:
    """Compare columns of numbers, components of embeddings among them, and what is missing."""
    grouped = [(frame, _groups(frame)) for frame in sides]
    for name, reference, worth in _references(profile):
        frame, groups = _side_with(name, grouped)
        if name not in frame or not pd.api.types.is_numeric_dtype(frame[name]):
            continue
        raw = frame[name].to_numpy(np.float64)
        finite = np.isfinite(raw)
        current = Distribution(raw)
        if reference.missing or current.missing:
            then, now = (
                np.array([each.rows, each.missing], np.float64) for each in (reference, current)
            )
            there = effective_rows(finite.astype(np.float64), groups) / len(raw)
            yield from _counted(f"{name} {MISSING}", then, now, choice.categories, there, there)
        current_rows = effective_rows(raw[finite], groups[finite])
        for detector in choice.numbers:
            tool = DETECTORS[detector]
            if min(reference.rows, current.rows) < tool.min_rows:
                continue
            then, now = reference.values, current.values
            if tool.kind == "categories":
                then, now = binned(then, now)
            found = tool.compare(
                then, now, reference_rows=worth * reference.rows, current_rows=current_rows
            )
            error = reference.rank_error + current.rank_error
            yield _Test(name, _watched(name), detector, found, error)


def _references(profile: Profile) -> Iterator[tuple[str, Distribution, float]]:
    """Return name, distribution and share of independent rows of each column of numbers."""
    for name, each in profile.numbers.items():
        yield name, each, profile.independent.get(name, 1.0)
    for index in range(profile.vectors.shape[1]):
        values = profile.vectors[:, index].astype(np.float64)
        worth = effective_rows(values, profile.vector_groups) / max(1, len(values))
        yield f"{EMBEDDING}{index:03d}", Distribution(values), worth


def _side_with(
    name: str, sides: Sequence[tuple[pd.DataFrame, NDArray[np.int64]]]
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the first side that has a column, or the last, with the groups of its rows."""
    return next((side for side in sides if name in side[0]), sides[-1])


def _categories(profile: Profile, sides: Sequence[pd.DataFrame], choice: Choice) -> Iterator[_Test]:
    grouped = [(frame, _groups(frame)) for frame in sides]
    for name, known in profile.categories.items():
        frame, groups = _side_with(name, grouped)
        if name not in frame:
            continue
        values = as_known(frame[name].fillna(MISSING).astype(str).tolist(), known)
        current = counts_of(values)
        kinds = sorted({*known, *current})
        before, now = (
            np.array([side.get(kind, 0) for kind in kinds], np.float64) for side in (known, current)
        )
        worth = effective_category_rows(values, groups) / len(values)
        there = profile.independent.get(name, 1.0)
        yield from _counted(name, before, now, choice.categories, there, worth)


def _counted(
    name: str,
    reference: NDArray[np.float64],
    current: NDArray[np.float64],
    detectors: Sequence[str],
    reference_worth: float,
    current_worth: float,
) -> Iterator[_Test]:
    for detector in detectors:
        if min(reference.sum(), current.sum()) >= DETECTORS[detector].min_rows:
            found = DETECTORS[detector].compare(
                reference,
                current,
                reference_rows=reference.sum() * reference_worth,
                current_rows=current.sum() * current_worth,
            )
            yield _Test(name, _watched(name), detector, found)


def _vectors(profile: Profile, frame: pd.DataFrame, choice: Choice) -> Iterator[_Test]:
    """Compare the embeddings as a whole."""
    names = [name for name in frame if str(name).startswith(EMBEDDING)]
    reference = profile.vectors
    if not len(names) == reference.shape[1] > 0:
        return
    current = frame[names].to_numpy(np.float32)
    whole = np.isfinite(current).all(1)
    current, groups = current[whole], _groups(frame)[whole]
    for detector in choice.vectors:
        tool = DETECTORS[detector]
        if min(len(reference), len(current)) >= tool.min_rows:
            found = tool.compare(
                reference,
                current,
                reference_groups=profile.vector_groups,
                current_groups=groups,
            )
            yield _Test("embedding", "embedding", detector, found)


def _kind_errors(profile: Profile, labelled: pd.DataFrame) -> Iterator[_Test]:
    """Ask of each declared column whether some kind of row fell behind all the others."""
    for name, then in profile.kind_errors.items():
        if name not in labelled or not len(labelled):
            continue
        found = fallen_behind(
            then,
            as_known(labelled[name].astype(str).tolist(), then),
            labelled["error"].to_numpy(np.float64),
            _groups(labelled),
        )
        if found is not None:
            kind, comparison = found
            where = f"error where {name.removeprefix(COLUMN)} is {kind}"
            yield _Test(where, "error", GAP, comparison)


def _groups(frame: pd.DataFrame) -> NDArray[np.int64]:
    return group_numbers(frame["group"]) if "group" in frame else np.arange(len(frame))


def benjamini_hochberg(p_values: NDArray[np.float64], rate: float) -> NDArray[np.bool_]:
    """Tell which hypotheses to reject so that at most ``rate`` of them are false on average.

    Benjamini & Hochberg (1995), Journal of the Royal Statistical Society B 57.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    passes = p_values[order] <= rate * np.arange(1, count + 1) / count
    rejected = np.zeros(count, dtype=bool)
    if passes.any():
        rejected[order[: int(np.flatnonzero(passes)[-1]) + 1]] = True
    return rejected
