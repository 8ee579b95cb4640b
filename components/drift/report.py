"""The page of the drift step: the verdict, what it rests on, and what moved most."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from components.drift.core import DriftConfig, DriftReport, stream_of
from components.drift.detectors.detector import bin_edges, binned
from components.drift.detectors.page_hinkley import PageHinkley
from components.drift.findings import Finding
from components.drift.performance import Performance
from components.page import (
    Said,
    bar_plot,
    page,
    paragraph,
    section,
    share_plot,
    stream_plot,
    table,
    verdict,
)
from components.profile import EMBEDDING, Profile, counts_of

SHOWN_COMPONENTS = 12
SHOWN_DISTRIBUTIONS = 6
SHOWN_POINTS = 400


def to_html(
    report: DriftReport, profile: Path, current: Path, window: str, config: DriftConfig
) -> str:
    """Return the report as a page.

    Args:
        report: what ``detect`` found.
        profile: the champion's bundle.
        current: folder that ``collect`` wrote.
        window: name of the window.
        config: the section ``drift``.
    """
    reference = Profile.load(profile)
    frame = pd.read_parquet(current / "current.parquet")
    errors = pd.read_parquet(current / "errors.parquet")["error"].to_numpy(np.float64)
    return page(
        f"Drift in window {window}",
        verdict(report.headline, _mood(report)),
        section("Does it hurt?", *_performance(report)),
        *_effects(report),
        *_distributions(report, reference, frame, window),
        section("Errors over time", *_over_time(report, reference, errors, config)),
        *_schema(report),
    )


def to_markdown(report: DriftReport, window: str) -> str:
    """Return the verdict for Kubeflow's page of a run."""
    lines = [f"**Window {window}: {report.headline}**", "", f"Alert level {report.level}.", ""]
    for found in (report.measured, report.estimated):
        if found is not None:
            where = f" in window {found.window}" if found.window else ""
            lines.append(
                f"- {found.source}{where}: {found.score.replace('_', ' ')} {found.now:.3f} "
                f"({found.low:.3f} to {found.high:.3f}), was {found.before:.3f}"
            )
    moved = [each for each in report.findings if each.moved][:SHOWN_DISTRIBUTIONS]
    lines += [f"- {each.name} ({each.detector}): {each.effect:.2f}" for each in moved]
    return "\n".join([*lines, *(f"- {each}" for each in report.schema_changes)]) + "\n"


def _mood(report: DriftReport) -> str:
    if report.hurts or report.level == 3:
        return "bad"
    return "open" if report.moved or not report.enough else "good"


_HARM = {True: Said("yes", "bad"), False: Said("no", "good"), None: Said("open", "open")}


def _performance(report: DriftReport) -> list[str]:
    known = [each for each in (report.measured, report.estimated) if each is not None]
    if not known:
        return [
            paragraph("Nothing tells: too few labels have come, and answers are no probabilities.")
        ]
    kinds = {
        "none": "No drift was found.",
        "data": "Data drift: what comes in moved.",
        "concept": "Concept drift: errors rose more than the inputs explain.",
        "data and concept": "Inputs moved, and errors rose more than that explains.",
    }
    parts = [paragraph(kinds[report.kind]), table(_HEADER, [_line(each) for each in known])]
    if report.reconciled:
        rows = [
            (
                each.window,
                each.rows,
                f"{each.estimated:.3f} ({each.low:.3f} to {each.high:.3f})",
                each.measured,
                Said("yes", "good") if each.held else Said("no", "bad"),
            )
            for each in report.reconciled
        ]
        header = ("window", "rows", "was estimated", "measured since", "estimate held")
        parts += [paragraph("Estimates, once labels had come:"), table(header, rows)]
    return parts


_HEADER = ("", "score", "rows", "when trained", "now", "95 %", "relative drop", "hurts")


def _line(found: Performance) -> tuple[object, ...]:
    return (
        f"{found.source}, window {found.window}" if found.window else found.source,
        found.score.replace("_", " "),
        found.rows,
        found.before,
        found.now,
        f"{found.low:.3f} to {found.high:.3f}",
        f"{found.drop:+.1%} ({found.drop_low:+.1%} to {found.drop_high:+.1%})",
        _HARM[found.hurts],
    )


def _effects(report: DriftReport) -> list[str]:
    """Return bars of effects, a plot for each detector, as each has its own measure."""
    parts = []
    tested = [each for each in report.findings if each.p_value is not None]
    for detector in dict.fromkeys(each.detector for each in tested):
        found = [each for each in tested if each.detector == detector]
        named = [each for each in found if not each.name.startswith(EMBEDDING)]
        components = [each for each in found if each.name.startswith(EMBEDDING)]
        shown = [*named, *components[:SHOWN_COMPONENTS]]
        bars = [(each.name, min(1.0, max(0.0, each.effect))) for each in shown]
        more = len(components) - SHOWN_COMPONENTS
        parts.append(
            section(
                f"{detector.replace('-', ' ').capitalize()}, against window {report.window}",
                bar_plot(bars, min(1.0, shown[0].threshold)),
                *([paragraph(f"and {more} more components of the embedding")] if more > 0 else []),
            )
        )
    moved = [each for each in tested if each.moved][:SHOWN_COMPONENTS]
    if moved:
        header = ("moved", "detector", "effect", "counts from", "p-value", "level")
        rows = [_row(each) for each in moved]
        parts.append(section("What moved most", table(header, rows)))
    return parts


def _row(found: Finding) -> tuple[object, ...]:
    p_value = f"{found.p_value:.1e}"
    return found.name, found.detector, found.effect, found.threshold, p_value, found.level


def _distributions(
    report: DriftReport, reference: Profile, frame: pd.DataFrame, window: str
) -> list[str]:
    """Return the distributions of what moved most, side by side, then and now."""
    names = [each.name for each in report.findings if not each.name.startswith(EMBEDDING)]
    parts = []
    for name in dict.fromkeys(names):
        if name in reference.categories and name in frame:
            then, now = reference.categories[name], counts_of(frame[name].astype(str).tolist())
            kinds = sorted({*then, *now}, key=lambda kind: -then.get(kind, 0))[:12]
            totals = max(1, sum(then.values())), max(1, sum(now.values()))
            rows = [
                (kind, then.get(kind, 0) / totals[0], now.get(kind, 0) / totals[1])
                for kind in kinds
            ]
        elif name in reference.numbers and name in frame:
            then_values = reference.numbers[name].values
            now_values = frame[name].to_numpy(np.float64)
            now_values = now_values[np.isfinite(now_values)]
            if not len(then_values) or not len(now_values):
                continue
            rows = _bins(then_values, now_values)
        else:
            continue
        sides = (f"window {report.window}", f"window {window}")
        parts.append(section(name.replace("_", " "), share_plot(rows, sides)))
    return parts[:SHOWN_DISTRIBUTIONS]


def _bins(then: np.ndarray, now: np.ndarray) -> list[tuple[str, float, float]]:
    """Return shares of values between the quantiles of those of then."""
    counts, edges = binned(then, now, bins=8), bin_edges(then, bins=8)
    names = [
        f"under {edges[0]:.3g}",
        *(
            f"{low:.3g}" if np.nextafter(low, high) == high else f"{low:.3g} to {high:.3g}"
            for low, high in itertools.pairwise(edges)
        ),
        f"from {edges[-1]:.3g}",
    ]
    shares = [side / side.sum() for side in counts]
    return [(name, float(a), float(b)) for name, a, b in zip(names, *shares, strict=True)]


def _over_time(
    report: DriftReport, reference: Profile, errors: np.ndarray, config: DriftConfig
) -> list[str]:
    rates = f"validation error rate {report.error_rate_before:.3f}"
    if report.error_rate is None:
        return [paragraph(f"No labels have come since the champion was trained; {rates}.")]
    state = (
        "No alarm that counts"
        if report.error_alarm_row is None
        else f"First alarm at row {report.error_alarm_row:,}"
    )
    parts = [
        paragraph(
            f"{state}: error rate {report.error_rate:.3f} over {report.labelled_rows:,} "
            f"labelled rows, {rates}."
        )
    ]
    test = stream_of("page-hinkley", config, reference.error_rate, reference.error_rows)
    assert isinstance(test, PageHinkley)
    alarms, statistic = test.look(errors)
    every = max(1, len(statistic) // SHOWN_POINTS)
    places = [alarm // every for alarm in alarms]
    parts.append(stream_plot(statistic[::every].tolist(), config.error_threshold, places))
    parts.append(
        paragraph(
            "Page-Hinkley's statistic; after an alarm it begins anew. Alarms of rows that are "
            "older than a measurement which shows no harm count no more."
        )
    )
    return parts


def _schema(report: DriftReport) -> list[str]:
    if not report.schema_changes:
        return []
    return [section("Columns", *(paragraph(each) for each in report.schema_changes))]
