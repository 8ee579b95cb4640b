"""Compare production with the champion's profile: features by KS, errors by Page-Hinkley.

With hundreds of features some are significant by chance, and with many rows a
difference too small to matter is significant too. So a feature counts as moved only
when it is significant after Benjamini-Hochberg and its distance is large enough.
"""

from __future__ import annotations

from pathlib import Path

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


class Feature(Section):
    """The test of one feature."""

    name: str
    distance: float
    p_value: float
    moved: bool


class DriftReport(Section):
    """Whether inputs moved, and whether errors rose."""

    schema_version: int = 1
    window: str
    rows: int
    enough: bool
    """Whether there were rows enough for a verdict on the features."""
    drifted: bool
    """Inputs moved or errors rose: something speaks for a retrain."""
    moved: bool
    """At least one feature moved."""
    moved_features: int
    features: list[Feature]
    """All features, the most distant first."""
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
        if not self.enough:
            return f"not enough data: {self.rows} rows"
        worst = self.features[0]
        state = "drifted" if self.drifted else "quiet"
        return (
            f"{state}: {self.moved_features} of {len(self.features)} features moved, "
            f"most {worst.name} by {worst.distance:.2f}"
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
        enough=enough,
        drifted=moved_features > 0 or alarm is not None,
        moved=moved_features > 0,
        moved_features=moved_features,
        features=features,
        labelled_rows=len(errors),
        error_rate_before=reference.error_rate,
        error_rate=float(errors.mean()) if len(errors) else None,
        error_alarm_row=alarm,
    )


def _features(reference: Profile, frame: pd.DataFrame, config: DriftConfig) -> list[Feature]:
    tests = {
        name: kolmogorov_smirnov(values, frame[name].to_numpy(np.float64))
        for name, values in reference.features.items()
        if name in frame
    }
    significant = benjamini_hochberg(
        np.array([p_value for _, p_value in tests.values()]), config.false_discovery_rate
    )
    features = [
        Feature(
            name=name,
            distance=distance,
            p_value=p_value,
            moved=bool(chosen) and distance >= config.min_distance,
        )
        for (name, (distance, p_value)), chosen in zip(tests.items(), significant, strict=True)
    ]
    return sorted(features, key=lambda feature: -feature.distance)


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
        "largest_distance": max((feature.distance for feature in report.features), default=0.0),
    }
    if report.error_rate is not None:
        metrics["error_rate"] = report.error_rate
    return metrics


def to_html(report: DriftReport, window: str, config: DriftConfig) -> str:
    """Return the report as a page."""
    mood = "bad" if report.drifted else "good" if report.enough else "open"
    named = [each for each in report.features if not each.name.startswith(EMBEDDING)]
    components = [each for each in report.features if each.name.startswith(EMBEDDING)]
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
            bar_plot([(each.name, each.distance) for each in named], config.min_distance),
        ),
        section(
            f"Embedding, the most distant of {len(components)} components",
            bar_plot(
                [(each.name, each.distance) for each in components[:SHOWN_COMPONENTS]],
                config.min_distance,
            ),
        ),
    )
