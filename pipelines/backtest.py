"""Compare policies that were played over the same windows, with an oracle that always retrains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from components.page import curve_plot, page, paragraph, section, table
from components.settings import Section
from components.trigger.config import GovernorConfig, TriggerConfig

ORACLE = "oracle"
ALWAYS = TriggerConfig(
    on=("schedule",),
    schedule_days=1e-6,
    governor=GovernorConfig(cooldown_hours=0, backoff=1, probe=None),
)
"""The policy of the oracle: a retrain on every window."""


class Point(Section):
    """One window under one policy."""

    window: str
    score: float | None
    """Of the model that served in the window, on rows that nobody learns from."""
    retrained: bool
    device_hours: float
    score_after: float | None
    """Of the model that serves afterwards, on the same rows."""


class Summary(Section):
    """What a policy came to.

    Attributes:
        policy: its name.
        retrains: after the first training.
        device_hours: of all its retrains.
        saved: share of the oracle's device-hours that it did without.
        score: mean over the windows.
        regret: mean loss of score to the oracle.
        delay_windows: mean number of windows from a change to the next retrain; None without
            a change that it answered.
        missed: changes that no retrain followed before the next one.
        needless: retrains that answered no change.
    """

    policy: str
    retrains: int
    device_hours: float
    saved: float
    score: float
    regret: float
    delay_windows: float | None
    missed: int
    needless: int


class Backtest(Section):
    """Policies over the same history."""

    schema_version: int = 1
    windows: list[str]
    changes: list[int]
    """Numbers of the windows in which the world changed."""
    points: dict[str, list[Point]]
    summaries: list[Summary]


def compare(
    points: Mapping[str, Sequence[Point]],
    changes: Sequence[int] | None = None,
    relative_gain: float = 0.05,
) -> Backtest:
    """Compare policies with the oracle among them.

    Args:
        points: every window under every policy; the same windows in the same order.
        changes: numbers of the windows in which the world changed. Where nobody knows, the
            windows on which retraining paid off for the oracle by ``relative_gain``.
        relative_gain: share of the score before.

    Raises:
        ValueError: the oracle is missing, or the policies saw different windows.
    """
    if ORACLE not in points:
        raise ValueError(f"policies are compared with {ORACLE!r}")
    windows = [each.window for each in points[ORACLE]]
    if any([each.window for each in played] != windows for played in points.values()):
        raise ValueError("policies are compared over the same windows")
    if changes is None:
        changes = [
            number
            for number, each in enumerate(points[ORACLE])
            if each.score and (each.score_after or 0) > each.score * (1 + relative_gain)
        ]
    return Backtest(
        windows=windows,
        changes=list(changes),
        points={name: list(played) for name, played in points.items()},
        summaries=[_summary(name, points[name], points[ORACLE], changes) for name in points],
    )


def _summary(
    name: str, played: Sequence[Point], oracle: Sequence[Point], changes: Sequence[int]
) -> Summary:
    at = [number for number, each in enumerate(played) if each.retrained]
    ends = [*changes[1:], len(played)][: len(changes)]
    answers = [
        next((number for number in at if change <= number < end), None)
        for change, end in zip(changes, ends, strict=True)
    ]
    answered = [
        (answer, answer - change)
        for answer, change in zip(answers, changes, strict=True)
        if answer is not None
    ]
    scored = [
        (mine.score, best.score)
        for mine, best in zip(played, oracle, strict=True)
        if mine.score is not None and best.score is not None
    ]
    mine, best = (float(np.mean(side)) if scored else 0.0 for side in _sides(scored))
    hours = sum(each.device_hours for each in played)
    most = sum(each.device_hours for each in oracle)
    return Summary(
        policy=name,
        retrains=len(at),
        device_hours=hours,
        saved=1 - hours / most if most else 0.0,
        score=mine,
        regret=best - mine,
        delay_windows=float(np.mean([delay for _, delay in answered])) if answered else None,
        missed=answers.count(None),
        needless=len(at) - len(answered),
    )


def _sides(scored: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [mine for mine, _ in scored], [best for _, best in scored]


HEADER = (
    "policy",
    "retrains",
    "device-hours",
    "saved",
    "delay",
    "missed",
    "needless",
    "score",
    "regret",
)


def rows_of(backtest: Backtest) -> list[dict[str, str]]:
    """Return the summaries as the rows of a table with the columns ``HEADER``."""
    return [
        {
            "policy": each.policy,
            "retrains": str(each.retrains),
            "device-hours": f"{each.device_hours:.3f}",
            "saved": f"{each.saved:.0%}",
            "delay": "–" if each.delay_windows is None else f"{each.delay_windows:.1f} windows",
            "missed": f"{each.missed} of {len(backtest.changes)}",
            "needless": str(each.needless),
            "score": f"{each.score:.3f}",
            "regret": f"{100 * each.regret:+.2f} points",
        }
        for each in backtest.summaries
    ]


def to_html(title: str, backtest: Backtest, score: str) -> str:
    """Return the comparison as a page.

    Args:
        title: of the page.
        backtest: what to show.
        score: what the score is called.
    """
    curves = {
        name: [each.score for each in played if each.score is not None]
        for name, played in backtest.points.items()
    }
    when = ", ".join(backtest.windows[number] for number in backtest.changes) or "never"
    return page(
        title,
        table(HEADER, [[row[name] for name in HEADER] for row in rows_of(backtest)]),
        paragraph(
            f"Score: mean {score} of the model that served, on rows that nobody learns from. "
            f"Regret: what it lost to the oracle, which retrains on every window. "
            f"The world changed in: {when}."
        ),
        section(f"{score} over time", curve_plot(curves, across="window")),
    )
