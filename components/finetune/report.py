"""What is told of a training: the report, its metrics, and its page."""

from __future__ import annotations

from typing import Any

from components.decision_rule import DecisionRule
from components.finetune.config import CHAMPION
from components.finetune.export import Export
from components.finetune.start import Candidate
from components.page import curve_plot, page, paragraph, section, table, verdict
from components.settings import Section


class Epoch(Section):
    """One epoch of the training."""

    train_loss: float
    scores: dict[str, float]
    """On the validation rows; ``loss`` is one of them."""


class FinetuneReport(Section):
    """How training went."""

    schema_version: int = 4
    bundle: str
    method: str
    start: str
    """``base`` or ``champion``."""
    base: str
    """Place of the pretrained model behind it."""
    start_reason: str
    candidates: list[Candidate]
    """What was compared to choose the start, empty if nothing was."""
    train_rows: int
    cut_rows: int
    """Training rows longer than the model reads."""
    parameters: int
    metric: str
    scores: dict[str, float]
    """Of the bundle on the validation rows."""
    rule: DecisionRule | None = None
    """How the model decides; None where answers are numbers."""
    epochs: list[Epoch]
    start_scores: dict[str, float]
    """On the validation rows, before the first step."""
    best_epoch: int
    """The epoch that was kept, counted from one; 0 is the start."""
    steps: int
    frozen_stages: int
    accumulation: int
    """Parts of a step; more than asked for where memory did not suffice."""
    exports: list[Export]
    """Other forms of the model that were asked for, kept or not."""
    note: str
    remark: str
    """What the learning curves show, if it is bad."""
    device: str
    seconds: float
    rows_per_second: float
    tokens_per_second: float
    device_hours: float
    cost: float
    """Device-hours at ``finetune.price_per_device_hour``."""
    peak_host_gb: float
    peak_device_gb: float

    @property
    def headline(self) -> str:
        """The one thing to see."""
        name = self.metric.replace("_", " ")
        cut = f", {self.cut_rows} rows cut" if self.cut_rows else ""
        missed = "; the aim of operating_point was not reached" if self.misses_its_aim else ""
        return (
            f"valid {name} {self.scores[self.metric]:.3f} from the {self.start}, "
            f"{self.steps} steps{cut}{missed}"
        )

    @property
    def misses_its_aim(self) -> bool:
        """Whether no operating point reaches what the project asks for."""
        return self.rule is not None and self.rule.misses_its_aim


def to_metrics(report: FinetuneReport) -> dict[str, float]:
    """Return the scores as flat numbers for Kubeflow's metrics view."""
    return {f"valid_{name}": value for name, value in report.scores.items()}


def to_html(report: FinetuneReport) -> str:
    """Return the report as a page: the learning curves first."""
    name = report.metric.replace("_", " ")
    numbers = range(1, len(report.epochs) + 1)
    rows = [
        (
            f"{number}{' (kept)' if number == report.best_epoch else ''}",
            epoch.train_loss,
            *epoch.scores.values(),
        )
        for number, epoch in zip(numbers, report.epochs, strict=True)
    ]
    doubtful = bool(report.remark) or report.misses_its_aim
    parts = [verdict(report.headline, "open" if doubtful else "good")]
    if report.remark:
        parts.append(paragraph(report.remark))
    if report.epochs:
        curves = {
            "training": [epoch.train_loss for epoch in report.epochs],
            "validation": [epoch.scores["loss"] for epoch in report.epochs],
        }
        parts += [
            section("Loss by epoch", curve_plot(curves)),
            section(
                f"Validation {name} by epoch",
                curve_plot({name: [epoch.scores[report.metric] for epoch in report.epochs]}),
            ),
            section(
                "Epochs",
                table(("epoch", "training loss", *report.epochs[0].scores), rows),
            ),
        ]
    grown = f", grown from {report.base}" if report.start == CHAMPION else f" {report.base}"
    parts.append(section("Start", paragraph(f"{report.start}{grown}: {report.start_reason}.")))
    if report.candidates:
        parts.append(table(*_candidates(report.candidates)))
    facts = [
        ("method", report.method),
        (f"validation {name} at the start", report.start_scores.get(report.metric, "–")),
        ("epoch kept (0 is the start)", report.best_epoch),
        ("rows", report.train_rows),
        ("rows cut at the model's limit", report.cut_rows),
        ("parameters", report.parameters),
        ("steps", report.steps),
        ("rows per second", report.rows_per_second),
        ("tokens per second", report.tokens_per_second),
        ("device", report.device),
        ("device-hours", report.device_hours),
        ("cost", report.cost),
        ("peak memory, GB", report.peak_host_gb),
        ("peak device memory, GB", report.peak_device_gb),
    ]
    parts.append(section("Work", table(("what", "value"), [(a, _shown(b)) for a, b in facts])))
    if report.exports:
        header = ("form", "kept", "MB", "of the weights", "agrees", "score lost", "why not")
        parts.append(
            section("Other forms of the model", table(header, map(_export_row, report.exports)))
        )
    if report.rule is not None:
        parts.append(section("How it decides", *map(paragraph, report.rule.sentences)))
    if report.note:
        parts.append(paragraph(report.note))
    return page("Fine-tuning", *parts)


def _candidates(candidates: list[Candidate]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return head and rows of the table of what was compared to choose the start."""
    head = ("start", "probe", "LogME", "parameters", "MB", "ms/row", "rows/s", "licence", "")
    rows = [
        (
            each.name,
            each.score,
            each.log_evidence,
            each.parameters,
            each.megabytes,
            each.latency_ms,
            each.rows_per_second,
            each.licence or "not known",
            f"left out: {each.left_out}" if each.left_out else "",
        )
        for each in candidates
    ]
    return head, [tuple("–" if cell is None else cell for cell in row) for row in rows]


def _export_row(export: Export) -> tuple[str, ...]:
    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    megabytes = None if export.bytes is None else export.bytes / 1e6
    return (
        export.name,
        "yes" if export.kept else "no",
        shown(megabytes, ".1f"),
        shown(export.size_share, ".1%"),
        shown(export.agreement, ".2%"),
        shown(export.score_loss, "+.4f"),
        export.reason,
    )


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
