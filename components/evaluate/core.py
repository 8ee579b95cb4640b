"""Let challenger and champion sit the same exam, ask every check, and reach a verdict.

Models are compared by macro F1 where they answer with labels, by R² where they answer with
numbers, unless a project says otherwise. A first champion has nobody to beat, so it must beat
the naive answer (the majority class, the mean) and not lose to a simple model on the
pretrained embeddings.
"""

from __future__ import annotations

import math
from pathlib import Path

from pyarrow.parquet import read_schema

from components import bundle
from components.errors import ConfigError
from components.evaluate.check import conclude, finite, more_rows, rank, title_of
from components.evaluate.checks import run_checks
from components.evaluate.checks.serving import batch_times
from components.evaluate.comparison import Difference, detectable_gain
from components.evaluate.config import EvaluateConfig
from components.evaluate.evidence import confusion, gather, scores_of
from components.evaluate.exam import Exam
from components.evaluate.recording import PREDICTIONS, write
from components.evaluate.report import (
    EvaluateReport,
    Gain,
    tell_confusion,
    tell_roc,
    to_html,
    to_markdown,
    to_metrics,
)
from components.evaluate.scoring import sit
from components.tasks import TaskConfig

__all__ = [
    "PREDICTIONS",
    "EvaluateConfig",
    "EvaluateReport",
    "evaluate",
    "tell_confusion",
    "tell_roc",
    "to_html",
    "to_markdown",
    "to_metrics",
]


def evaluate(
    prepared: Path,
    challenger: Path,
    champion: Path | None,
    folder: Path,
    task: TaskConfig,
    config: EvaluateConfig,
) -> EvaluateReport:
    """Compare and decide; write ``predictions.parquet`` and what else was seen, see ``recording``.

    Args:
        prepared: folder that ``prepare`` wrote.
        challenger: sealed bundle of the new model. One that does not load, or does not
            answer, is kept out with a reason.
        champion: bundle in production, or None for a first champion.
        folder: gets the exam, from which the verdict can be reached again.
        task: says what models answer with.
        config: the section ``evaluate``.

    Raises:
        BundleError: a bundle is altered, the champion does not load, or a model does not
            answer what the task asks for.
        ConfigError: the config names a metric or a column that there is not, or the
            hold-out file is not the pinned one.
        SourceError: there are no test rows.
    """
    problems = list(config.unknown(task, read_schema(prepared / "rows.parquet").names))
    if problems:
        raise ConfigError("; ".join(problems))
    exam, examinees = sit(prepared, challenger, champion, task, config)
    write(exam, folder)
    checks = sorted(run_checks(exam, config), key=rank)
    differences = _differences(exam, config)
    primary = differences.get(exam.metric)
    timed = [] if exam.broken else list(examinees)
    return EvaluateReport(
        verdict=conclude(checks),
        metric=exam.metric,
        challenger=bundle.digest_of_folder(challenger),
        champion=bundle.digest_of_folder(champion) if champion else "",
        checks=checks,
        more_rows=more_rows(checks),
        power=_power(primary) if primary else "Nothing was compared.",
        detectable_gain=finite((primary and detectable_gain(primary)) or math.nan),
        gains=[
            Gain(
                metric=name,
                champion=each.champion,
                challenger=each.challenger,
                gain=each.gain,
                low=each.low,
                high=each.high,
            )
            for name, each in differences.items()
            if finite(each.gain) is not None and finite(each.low) is not None
        ],
        opponent="champion" if exam.has_champion else exam.opponents.get("probe", ""),
        scores=scores_of(exam, examinees),
        content=exam.content,
        labels=exam.classes,
        confusion=confusion(exam),
        left_out=exam.left_out,
        rules=exam.rules,
        evidence=gather(
            exam,
            examinees,
            {who: batch_times(exam, who).tolist() for who in timed},
            seed=config.seed,
        ),
    )


def _differences(exam: Exam, config: EvaluateConfig) -> dict[str, Difference]:
    """Return how the models differ on the test rows, by metric; the primary one comes first."""
    if exam.broken:
        return {}
    names = list(dict.fromkeys([exam.metric, *exam.metrics]))
    opponent = "champion" if exam.has_champion else "probe"
    return exam.differences(opponent, exam.of("test"), names, config)


def _power(difference: Difference) -> str:
    """Return one sentence about what these test rows could show."""
    title = title_of(difference.metric)
    rows = f"{difference.rows:,} test rows in {difference.groups:,} groups"
    gain = detectable_gain(difference)
    if gain is None or not math.isfinite(gain):
        return f"Power: on these {rows} the models never differ, so that nothing can be said."
    text = (
        f"Power: with {rows}, a true gain of {gain:.3f} in {title} would be seen four times "
        "out of five; smaller ones mostly would not."
    )
    if math.isfinite(difference.room) and gain > difference.room:
        text += (
            f" That is more than a model without errors would gain ({difference.room:.3f}): "
            "more test rows are needed."
        )
    return text
