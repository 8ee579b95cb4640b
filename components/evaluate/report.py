"""The gate's report, as JSON and as what people read: a page, Markdown, and Kubeflow's views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from components.decision_rule import DecisionRule
from components.evaluate.check import Check, Part, Standing, Verdict, rank, shortened, title_of
from components.evaluate.evidence import Evidence, Shown
from components.page import (
    Said,
    interval_plot,
    marked_words,
    page,
    paragraph,
    picture,
    section,
    square_plot,
    table,
    verdict,
)
from components.settings import Section
from components.tasks.model import Content

_CLAIMS = ("primary", "baselines")
"""The checks that a promotion rests on; the others only did not object."""
_STANDINGS = {"passed": "good", "failed": "bad", "undecided": "open"}
_MAX_LABELS = 40
"""More in a table are not read, and make a page too large."""
_MOODS = {"promote": "good", "keep": "bad", "inconclusive": "open"}


class Gain(Section):
    """By how much the challenger is better in one metric, whichever way it runs."""

    metric: str
    champion: float
    challenger: float
    gain: float
    low: float
    high: float


class EvaluateReport(Section):
    """The verdict with its evidence."""

    schema_version: int = 4
    verdict: Verdict
    metric: str
    """The primary one: what the models are compared by."""
    challenger: str
    champion: str
    checks: list[Check]
    """What decided comes first."""
    more_rows: int | None = None
    """So many more test rows would decide an inconclusive verdict; None if unknown."""
    power: str
    """The smallest gain that these test rows could show."""
    detectable_gain: float | None = None
    gains: list[Gain] = []
    """On the test rows, by metric."""
    opponent: str
    """What the gains are over: the champion, or a baseline."""
    scores: dict[str, dict[str, dict[str, float]]]
    """Scores by model (challenger, champion, naive, probe), set (test, guard, holdout) and
    name; ``rows`` is one of the names."""
    content: Content
    """What rows hold."""
    labels: tuple[str, ...]
    """Empty where answers are numbers."""
    confusion: list[list[int]]
    """Rows by true and answered label of the challenger on the test set; empty without labels."""
    left_out: int = 0
    """Rows whose label one of the models does not know."""
    rules: dict[str, DecisionRule] = {}
    """How models decide, by model; one that is not named gives the most probable label."""
    evidence: Evidence = Evidence()

    @property
    def headline(self) -> str:
        """The one thing to see."""
        first = self.checks[0]
        text = f"{self.verdict}: {first.name}"
        if first.measured is not None:
            text += f" {first.measured:+.3f}"
        if first.low is not None and first.high is not None:
            text += f" [{first.low:+.3f}, {first.high:+.3f}]"
        return text + (f"; {self.more_words}" if self.more_words else "")

    @property
    def more_words(self) -> str:
        """How many more rows would decide; empty if that is no question, or unknown."""
        if self.verdict != "inconclusive" or self.more_rows is None:
            return ""
        return f"about {self.more_rows:,} more test rows would decide"


def tell_confusion(
    report: EvaluateReport, log: Callable[[list[str], list[list[int]]], None]
) -> None:
    """Hand the confusion to Kubeflow's view, if there are labels to confuse."""
    if report.confusion:
        log(list(report.labels), report.confusion)


def tell_roc(
    report: EvaluateReport, log: Callable[[list[float], list[float], list[float]], None]
) -> None:
    """Hand the challenger's ROC curve to Kubeflow's view, which knows a single one."""
    curves = [each for each in report.evidence.roc if each.model == "challenger"]
    if len(curves) == 1:
        (curve,) = curves
        log(curve.false_positive_rate, curve.true_positive_rate, curve.thresholds)


def to_metrics(report: EvaluateReport) -> dict[str, float]:
    """Return the scores as flat numbers for Kubeflow's metrics view."""
    return {
        f"{model}_{name}_{metric}": value
        for model, sets in report.scores.items()
        for name, scores in sets.items()
        for metric, value in scores.items()
        if metric != "rows"
    }


def to_markdown(report: EvaluateReport) -> str:
    """Return verdict, reasons and power as Markdown."""
    lines = [f"# {report.verdict}", "", report.headline, ""]
    lines += ["| check | blocks | verdict | measured | threshold | reason |"]
    lines += ["|---|---|---|---:|---:|---|"]
    for check in report.checks:
        cells = (
            check.name,
            "yes" if check.required else "warns",
            check.verdict,
            _number(check.measured),
            _number(check.threshold),
            check.reason,
        )
        lines.append("| " + " | ".join(map(_in_a_cell, cells)) + " |")
    return "\n".join([*lines, "", report.power, ""])


def _in_a_cell(text: str) -> str:
    """Return a text that ends neither a cell nor a line of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def to_html(report: EvaluateReport) -> str:
    """Return the report as a page that needs nothing but itself."""
    first: str = report.verdict
    if report.verdict == "inconclusive":
        first += f": {report.more_words or 'no number of test rows in sight would decide'}"
    parts = [
        verdict(first, _MOODS[report.verdict]),
        *map(paragraph, _reasons(report)),
        paragraph(report.power),
        *([paragraph(_left_out(report))] if report.left_out else []),
        section("Checks", _checks(report.checks)),
        _rules(report),
        _gains(report),
        *(_parts(check) for check in report.checks if check.parts),
        section("Scores", _scores(report)),
        _labels(report),
        _confusion(report),
        _reliability(report),
        _roc(report),
        _disagreements(report),
        _errors(report),
        section("Timings and sizes", _timings(report.evidence)),
    ]
    return page("Champion gate", *parts)


def _left_out(report: EvaluateReport) -> str:
    return f"Left out are {report.left_out:,} rows whose label one of the models does not know."


def _reasons(report: EvaluateReport) -> list[str]:
    """Return what decided, and what warns."""
    decisive = [check for check in report.checks if check.blocks] or [
        check for check in report.checks if check.check in _CLAIMS and check.verdict == "passed"
    ]
    warned = [check for check in report.checks if not check.required and check.verdict == "failed"]
    return [check.reason for check in decisive] + [f"Warning: {each.reason}" for each in warned]


def _said(standing: Standing) -> Said:
    return Said(standing, _STANDINGS.get(standing, ""))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _checks(checks: Sequence[Check]) -> str:
    return table(
        ("check", "", "verdict", "measured", "threshold", "reason"),
        [
            (
                check.name,
                "blocks" if check.required else "warns",
                _said(check.verdict),
                _number(check.measured),
                _number(check.threshold),
                check.reason,
            )
            for check in sorted(checks, key=rank)
        ],
    )


def _rules(report: EvaluateReport) -> str:
    """Return how models turn probabilities into decisions, where that was fitted."""
    if not report.rules:
        return ""
    said = [f"{who}: {' '.join(rule.sentences)}" for who, rule in report.rules.items()]
    return section("How the models decide", *map(paragraph, said))


def _is_news(metric: str) -> bool:
    """Tell whether a metric says what no other does: micro averages are the accuracy."""
    return not metric.startswith("micro_")


def _gains(report: EvaluateReport) -> str:
    gains = [gain for gain in report.gains if _is_news(gain.metric)]
    if not gains:
        return ""
    # What is counted in units of its own would squeeze all others.
    shown = [gain for gain in gains if max(abs(gain.low), abs(gain.high)) <= 2]
    limit = max([0.05, *(abs(bound) for gain in shown for bound in (gain.low, gain.high))])
    rows = [
        (title_of(gain.metric), gain.champion, gain.challenger, gain.gain, gain.low, gain.high)
        for gain in gains
    ]
    duel = report.evidence.duel
    words = (
        f"On {duel.only_challenger:,} test rows the challenger alone is right, on "
        f"{duel.only_champion:,} the champion alone: p {duel.p_value:.2g} "
        f"({'exact McNemar' if duel.exact else 'McNemar by permuted groups'}, two-sided)."
        if duel
        else ""
    )
    return section(
        f"Gains over the {report.opponent} on the test rows, with their intervals",
        interval_plot([(title_of(g.metric), g.low, g.gain, g.high) for g in shown], limit),
        table(("metric", report.opponent, "challenger", "gain", "low", "high"), rows),
        *([paragraph(words)] if words else []),
    )


def _parts(check: Check) -> str:
    def row(part: Part) -> tuple[object, ...]:
        numbers = (part.champion, part.challenger, part.measured, part.low, part.high)
        return (shortened(part.name), part.rows, _said(part.verdict), *map(_number, numbers))

    header = ("", "rows", "verdict", "champion", "challenger", "measured", "low", "high")
    return section(check.name.capitalize(), table(header, map(row, check.parts)))


def _scores(report: EvaluateReport) -> str:
    columns = [
        (model, name, scores)
        for model, sets in report.scores.items()
        for name, scores in sets.items()
    ]
    names = dict.fromkeys(name for _, _, scores in columns for name in scores)
    metrics = [name for name in names if _is_news(name)]
    return table(
        ("", *(f"{model}, {name}" for model, name, _ in columns)),
        [
            (
                title_of(metric),
                *(
                    f"{scores[metric]:,.0f}" if metric == "rows" else _number(scores.get(metric))
                    for _, _, scores in columns
                ),
            )
            for metric in metrics
        ],
    )


def _labels(report: EvaluateReport) -> str:
    if not report.evidence.by_label:
        return ""
    models = [who for who in ("champion", "challenger") if who in report.scores]
    header = (
        "label",
        "rows",
        *(f"{name}, {who}" for name in ("precision", "recall", "F1") for who in models),
    )
    rows = [
        (
            each.label,
            each.rows,
            *(
                _number(of.get(who))
                for of in (each.precision, each.recall, each.f1)
                for who in models
            ),
        )
        for each in sorted(report.evidence.by_label, key=lambda each: -each.rows)[:_MAX_LABELS]
    ]
    title = "Labels on the test rows"
    if len(report.labels) > _MAX_LABELS:
        title += f": the commonest {_MAX_LABELS} of {len(report.labels):,}"
    return section(title, table(header, rows))


def _confusion(report: EvaluateReport) -> str:
    if not report.confusion:
        return ""
    if len(report.labels) > _MAX_LABELS:
        return _commonest_confusions(report)
    return section(
        "Confusion of the challenger on the test rows (true label by row)",
        table(
            ("", *report.labels),
            [(label, *row) for label, row in zip(report.labels, report.confusion, strict=True)],
        ),
    )


def _commonest_confusions(report: EvaluateReport) -> str:
    wrong = [
        (rows, true, said)
        for true, line in zip(report.labels, report.confusion, strict=True)
        for said, rows in zip(report.labels, line, strict=True)
        if rows and true != said
    ]
    commonest = sorted(wrong, reverse=True)[:_MAX_LABELS]
    return section(
        "Commonest confusions of the challenger on the test rows",
        table(("true", "answered", "rows"), [(true, said, rows) for rows, true, said in commonest]),
    )


def _reliability(report: EvaluateReport) -> str:
    curves = {
        who: [(point.confidence, point.accuracy) for point in points]
        for who, points in report.evidence.reliability.items()
    }
    if not curves:
        return ""
    plot = square_plot(curves, "how sure answers are", "how often they are right")
    return section("Calibration on the test rows", plot)


def _roc(report: EvaluateReport) -> str:
    curves = {
        f"{each.model}, {each.label}": list(
            zip(each.false_positive_rate, each.true_positive_rate, strict=True)
        )
        for each in report.evidence.roc
    }
    if not curves:
        return ""
    return section("ROC on the test rows", square_plot(curves, "false alarms", "found"))


def _disagreements(report: EvaluateReport) -> str:
    rows = report.evidence.disagreements
    if not rows:
        return ""
    return section(
        f"Where the models disagree: {report.evidence.disagreeing:,} test rows",
        *(_row(report, each) for each in rows),
    )


def _errors(report: EvaluateReport) -> str:
    rows = report.evidence.errors
    if not rows:
        return ""
    return section(
        "Worst errors of the challenger",
        paragraph(
            "Shaded is what its answer would lose (blue) or gain (red) without a word, or "
            "without a part of the image; each was left out once."
        ),
        *(_row(report, each) for each in rows),
    )


def _row(report: EvaluateReport, row: Shown) -> str:
    said = f"true {row.label}, challenger {row.challenger}"
    if row.champion:
        said += f", champion {row.champion}"
    if row.sureness is not None:
        said += f" (sure of {row.sureness:.3f})"
    if row.words:
        content = marked_words(row.words)
    elif report.content == "image":
        content = picture(row.content, row.tiles)
    else:
        content = paragraph(row.content)
    return f"{content}{paragraph(f'{shortened(row.id)}: {said}')}<hr>"


def _timings(evidence: Evidence) -> str:
    def megabytes(sizes: dict[str, int], who: str) -> str:
        return f"{sizes[who] / 1e6:,.1f}" if who in sizes else "–"

    rows = [
        (
            who,
            len(times),
            f"{np.median(times):.3f}" if times else "–",
            megabytes(evidence.size_bytes, who),
            megabytes(evidence.memory_bytes, who),
        )
        for who, times in evidence.milliseconds.items()
    ]
    header = ("model", "batches", "median ms per row", "MB on disk", "MB in memory")
    return table(header, rows)
