"""The prequential test: every labelled record is answered first, and learnt from then.

The head begins as the champion's own last layer, over the champion's frozen encoder. Each
record is answered by both; when the head errs less, beyond doubt, it serves. When the
champion then errs less, the head falls back, and begins anew.

Dawid (1984), https://doi.org/10.2307/2981683; Gama, Sebastião & Rodrigues (2013),
https://doi.org/10.1007/s10994-012-5320-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.online.evidence import Evidence
from components.online.head import Floats, Head
from components.settings import Section

Errors = Callable[[NDArray[np.int64], Floats], Floats]
"""How wrong each answer is, 0 to 1 ``[n]``, of targets ``[n]`` and outputs ``[n, k]``."""


class OnlineConfig(Section):
    """Section ``online``."""

    learning_rate: float = Field(default=0.2, gt=0, le=1)
    """How far a record moves the head towards its label."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """How probable it is, at most, that a head which is no better ever serves."""
    min_rows: int = Field(default=100, ge=1)
    """No head serves before so many records."""
    false_fallback_rows: int = Field(default=10_000, ge=100)
    """A head that serves and is as good as the champion falls back no more often than once in so
    many records, on average."""
    publish_rows: int = Field(default=500, ge=1)
    """A head that serves is published anew after so many records."""


class Change(Section):
    """A record after which another model serves."""

    row: int
    """How many records had been answered, over all time."""
    to: Literal["head", "champion"]
    evidence: float
    """By how much the capital of who bet on it had grown."""


class Progress(Section):
    """How far the head has come. Counts are since it began as the champion."""

    schema_version: int = 1
    serves: bool = False
    """Whether the head has beaten the champion, and was not beaten since."""
    rows: int = 0
    """Records that were answered, over all time."""
    learnt: int = 0
    """Records among them that were learnt from; test rows never are."""
    champion_error: float = 0.0
    """Sum over all records."""
    served_error: float = 0.0
    """Sum of what was, or would have been, answered: by the head while it serves."""
    evidence: Evidence = Evidence()
    """That the head is better, while it learns; that it is worse, while it serves."""
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Records:
    """Labelled records, oldest first.

    Attributes:
        features: what the head reads ``[n, d]``.
        targets: index of the class of each ``[n]``.
        learnable: which may be learnt from ``[n]``; test rows are only answered.
    """

    features: Floats
    targets: NDArray[np.int64]
    learnable: NDArray[np.bool_]


def follow(
    head: Head,
    champion: Head,
    progress: Progress,
    records: Records,
    errors: Errors,
    config: OnlineConfig,
) -> Progress:
    """Answer records and learn from them, one at a time; return how far the head has come.

    Args:
        head: learns, in place.
        champion: the champion's own last layer.
        progress: before these records.
        records: the next ones.
        errors: how wrong outputs are.
        config: the section ``online``.
    """
    by_champion = errors(records.targets, champion.outputs(records.features))
    evidence, serves, changes = progress.evidence, progress.serves, list(progress.changes)
    learnt, served_error = progress.learnt, progress.served_error
    for number, (features, target) in enumerate(
        zip(records.features, records.targets.tolist(), strict=True)
    ):
        row = slice(number, number + 1)
        error = float(errors(records.targets[row], head.outputs(records.features[row]))[0])
        gain = float(by_champion[number]) - error
        served_error += error if serves else float(by_champion[number])
        evidence = evidence.after(-gain, restarts=True) if serves else evidence.after(gain)
        if records.learnable[number]:
            head.partial_fit(features, target, config.learning_rate)
            learnt += 1
        if _is_enough(evidence, serves, config):
            if serves:
                head.weights[:], head.bias[:] = champion.weights, champion.bias
            serves = not serves
            changes.append(
                Change(
                    row=progress.rows + number + 1,
                    to="head" if serves else "champion",
                    evidence=math.exp(evidence.highest),
                )
            )
            evidence = Evidence()
    return progress.model_copy(
        update={
            "serves": serves,
            "rows": progress.rows + len(records.targets),
            "learnt": learnt,
            "champion_error": progress.champion_error + float(by_champion.sum()),
            "served_error": served_error,
            "evidence": evidence,
            "changes": tuple(changes),
        }
    )


def _is_enough(evidence: Evidence, serves: bool, config: OnlineConfig) -> bool:
    """Tell whether the other of the two is to serve."""
    if serves:
        return evidence.highest >= math.log(config.false_fallback_rows)
    return evidence.rows >= config.min_rows and evidence.p_value <= config.alpha
