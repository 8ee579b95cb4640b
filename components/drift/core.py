"""Compare production with the champion's profile: features by KS, errors by Page-Hinkley.

With hundreds of features some are significant by chance, and with many rows a
difference too small to matter is significant too. So a feature counts as moved only
when it is significant after Benjamini-Hochberg and its distance is large enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from components.drift.kolmogorov_smirnov import kolmogorov_smirnov
from components.drift.page_hinkley import page_hinkley
from components.page import bar_plot, page, paragraph, section, verdict
from components.profile import EMBEDDING, Profile
from components.settings import Section

SHOWN_COMPONENTS = 12


class DriftConfig(Section):
    """Section ``drift``."""

    false_discovery_rate: float = Field(default=0.01, gt=0, lt=1)
    min_distance: float = Field(default=0.15, ge=0, le=1)
    """A feature has moved only if its KS distance is at least this."""
    min_rows: int = Field(default=100, ge=10)
    """Fewer rows are not enough for a verdict."""
    error_tolerance: float = Field(default=0.05, ge=0, lt=1)
    """Page-Hinkley's delta: a rise of the error rate that is tolerated."""
    error_threshold: float = Field(default=20.0, gt=0)
    """Page-Hinkley's threshold: more means fewer false alarms and a longer delay."""


Level = Literal[0, 1, 2, 3]
"""Of an alert: 3 at once, 2 within a day, 1 in the weekly review, 0 is none."""

Watched = Literal["input", "embedding", "answer", "confidence", "error"]


class Finding(Section):
    """One thing that is watched, and what a detector says of it."""

    name: str
    watched: Watched
    detector: str
    """Its name in ``DETECTORS``."""
    statistic: float
    effect: float
    """How large the change is, from 0 (none) to 1, whatever the number of rows."""
    threshold: float
    """The effect from which a change counts."""
    p_value: float | None
    """How probable so large a statistic is without a change; None: the detector has none."""
    moved: bool
    """Both significant, among all that is watched, and large enough."""
    level: Level


class Performance(Section):
    """How good the champion is now, beside how good it was when it was trained."""

    source: Literal["measured", "estimated"]
    """From labels that have come since, or from the answers to this window alone."""
    score: str
    """``accuracy``, or another score of which more is better."""
    rows: int
    before: float
    now: float
    low: float
    high: float
    """Interval of ``now`` at 95 %."""
    drop: float
    """Share of ``before`` that is lost; negative where the champion got better."""
    hurts: bool | None
    """Whether the drop counts; None where the interval leaves it open."""


class DriftReport(Section):
    """Whether the inputs moved, and whether it hurts: two findings, not one."""

    schema_version: int = 2
    window: str
    """The window that the champion was trained on, with which this one is compared."""
    rows: int
    needed_rows: int
    """Fewer rows are not enough for a verdict."""
    enough: bool
    """Whether there were rows enough for a verdict on the inputs."""
    moved: bool
    """At least one feature of inputs, embeddings, answers or confidence moved."""
    hurts: bool | None
    """Whether the champion got worse by more than is tolerated; None: it cannot be told."""
    drifted: bool
    """Inputs moved or it hurts: something speaks for a retrain."""
    level: Level
    """The highest of all findings."""
    moved_features: int
    findings: list[Finding]
    """All that is watched, the largest effect first."""
    measured: Performance | None
    """Of the labels that have come since the champion was trained."""
    estimated: Performance | None
    """Of this window, whose labels have not come."""
    labelled_rows: int
    error_rate_before: float
    """On the validation rows, when the champion was trained."""
    error_rate: float | None
    """On the labelled rows since; None without any."""
    error_alarm_row: int | None
    """Where in the labelled rows Page-Hinkley first raised the alarm."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        harm = {True: "hurts", False: "does not hurt", None: "harm unknown"}[self.hurts]
        if not self.enough:
            return f"not enough data: {self.rows} rows, {self.needed_rows} are needed; {harm}"
        worst = self.findings[0]
        state = "moved" if self.moved else "quiet"
        return (
            f"{state}, {harm}: {self.moved_features} of {len(self.findings)} features moved, "
            f"most {worst.name} by {worst.effect:.2f}"
        )


def detect(profile: Path, current: Path, config: DriftConfig) -> DriftReport:
    """Compare a window with a profile.

    Args:
        profile: the champion's bundle.
        current: folder that ``collect`` wrote.
        config: the section ``drift``.

    Raises:
        BundleError: the bundle has no readable profile.
    """
    reference = Profile.load(profile)
    frame = pd.read_parquet(current / "current.parquet")
    errors = pd.read_parquet(current / "errors.parquet")["error"].to_numpy(np.float64)
    enough = len(frame) >= config.min_rows
    features = _features(reference, frame, config) if enough else []
    moved_features = sum(feature.moved for feature in features)
    alarm, _ = page_hinkley(
        errors,
        delta=config.error_tolerance,
        threshold=config.error_threshold,
        prior_mean=reference.error_rate,
        prior_count=reference.error_rows,
    )
    return DriftReport(
        window=reference.window,
        rows=len(frame),
        needed_rows=config.min_rows,
        enough=enough,
        drifted=moved_features > 0 or alarm is not None,
        moved=moved_features > 0,
        hurts=True if alarm is not None else None,
        level=3 if alarm is not None else 1 if moved_features else 0,
        moved_features=moved_features,
        findings=features,
        measured=None,
        estimated=None,
        labelled_rows=len(errors),
        error_rate_before=reference.error_rate,
        error_rate=float(errors.mean()) if len(errors) else None,
        error_alarm_row=alarm,
    )


def _features(reference: Profile, frame: pd.DataFrame, config: DriftConfig) -> list[Finding]:
    tests = {
        name: kolmogorov_smirnov(values, frame[name].to_numpy(np.float64))
        for name, values in reference.features.items()
        if name in frame
    }
    significant = benjamini_hochberg(
        np.array([p_value for _, p_value in tests.values()]), config.false_discovery_rate
    )
    features = [
        Finding(
            name=name,
            watched="embedding" if name.startswith(EMBEDDING) else "input",
            detector="kolmogorov-smirnov",
            statistic=distance,
            effect=distance,
            threshold=config.min_distance,
            p_value=p_value,
            moved=bool(chosen) and distance >= config.min_distance,
            level=1 if chosen and distance >= config.min_distance else 0,
        )
        for (name, (distance, p_value)), chosen in zip(tests.items(), significant, strict=True)
    ]
    return sorted(features, key=lambda feature: -feature.effect)


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


def to_metrics(report: DriftReport) -> dict[str, float]:
    """Return the findings as flat numbers for Kubeflow's metrics view."""
    metrics = {
        "drifted": float(report.drifted),
        "moved_features": float(report.moved_features),
        "largest_distance": max((each.effect for each in report.findings), default=0.0),
    }
    if report.error_rate is not None:
        metrics["error_rate"] = report.error_rate
    return metrics


def to_html(report: DriftReport, window: str, config: DriftConfig) -> str:
    """Return the report as a page."""
    mood = "bad" if report.drifted else "good" if report.enough else "open"
    named = [each for each in report.findings if not each.name.startswith(EMBEDDING)]
    components = [each for each in report.findings if each.name.startswith(EMBEDDING)]
    rates = f"validation error rate {report.error_rate_before:.3f}"
    if report.error_rate is None:
        errors = f"No labels have come since the champion was trained; {rates}."
    else:
        alarm = (
            "Page-Hinkley is quiet"
            if report.error_alarm_row is None
            else f"Page-Hinkley raised the alarm at row {report.error_alarm_row:,}"
        )
        errors = (
            f"{alarm}: error rate {report.error_rate:.3f} over {report.labelled_rows:,} "
            f"labelled rows, {rates}."
        )
    return page(
        f"Drift in window {window}",
        verdict(report.headline, mood),
        section("Errors", paragraph(errors)),
        section(
            f"Inputs and answers, by KS distance to window {report.window}",
            bar_plot([(each.name, each.effect) for each in named], config.min_distance),
        ),
        section(
            f"Embedding, the most distant of {len(components)} components",
            bar_plot(
                [(each.name, each.effect) for each in components[:SHOWN_COMPONENTS]],
                config.min_distance,
            ),
        ),
    )
