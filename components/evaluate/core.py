"""Score challenger and champion on the same rows, and reach a verdict.

Models are compared by macro F1 where they answer with labels, by R² where they answer with
numbers. A first champion has nobody to beat, so it must beat the naive answer (the majority
class, the mean) and not lose to a simple model on the pretrained embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from components import bundle
from components.errors import BundleError
from components.evaluate.bootstrap import Difference, f1_difference, r2_difference
from components.page import interval_plot, page, paragraph, section, table, verdict
from components.settings import Section
from components.split import TEST_SHARE
from components.tasks import TASKS, TaskConfig
from components.tasks.model import Labelled, Model

Verdict = Literal["promote", "keep", "inconclusive"]
PREDICTIONS = "predictions.parquet"


class EvaluateConfig(Section):
    """Section ``evaluate``: the gate."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability of promoting a model that is no better."""
    guard_margin: float = Field(default=0.03, ge=0, lt=1)
    """How much the score on the earlier windows may fall, at most."""
    min_groups: int = Field(default=30, ge=2)
    """With fewer groups of test rows an interval cannot be trusted: inconclusive."""
    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    seed: int = Field(default=0, ge=0)


class Check(Section):
    """One reason of a verdict."""

    name: str
    passed: bool
    failed: bool
    """Shown to be bad; a check that neither passed nor failed is undecided."""
    measured: float
    low: float
    high: float
    threshold: float
    reason: str


class EvaluateReport(Section):
    """The verdict with its evidence."""

    schema_version: int = 2
    verdict: Verdict
    metric: str
    """What the models are compared by: ``macro_f1`` or ``r2``."""
    challenger: str
    champion: str
    checks: list[Check]
    scores: dict[str, dict[str, dict[str, float]]]
    """Scores by model (challenger, champion, naive, probe), set (test, guard) and name;
    ``rows`` is one of the names."""
    labels: tuple[str, ...]
    """Empty where answers are numbers."""
    confusion: list[list[int]]
    """Rows by true and answered label of the challenger on the test set; empty without labels."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        first = self.checks[0]
        interval = f"[{first.low:+.3f}, {first.high:+.3f}]"
        return f"{self.verdict}: {first.name} {first.measured:+.3f} {interval}"


def evaluate(
    prepared: Path,
    challenger: Path,
    champion: Path | None,
    folder: Path,
    task: TaskConfig,
    config: EvaluateConfig,
) -> EvaluateReport:
    """Compare and decide; write ``predictions.parquet`` with a row per scored row.

    Args:
        prepared: folder that ``prepare`` wrote.
        challenger: sealed bundle of the new model.
        champion: bundle in production, or None for a first champion.
        folder: gets the predictions, from which the verdict can be computed again.
        task: says what models answer with.
        config: the section ``evaluate``.

    Raises:
        BundleError: a bundle is altered, or does not answer what the task asks for.
    """
    frame = pd.read_parquet(prepared / "rows.parquet")
    # Nothing guards a first champion: there is no earlier promise to break.
    wanted = ["test"] if champion is None else ["test", "guard"]
    scored = frame[frame["split"].isin(wanted)].reset_index(drop=True)
    contents = scored["text"].tolist()
    model = _load(challenger, task)
    targets = model.targets(scored["label"].tolist())
    answers = {"challenger": model.predict(contents)}
    if champion is not None:
        rival = _load(champion, task)
        order = [rival.answer_names.index(name) for name in model.answer_names]
        answers["champion"] = rival.predict(contents)[:, order]
    else:
        answers |= _baselines(frame, prepared, model)
    sets = {name: (scored["split"] == name).to_numpy() for name in ("test", "guard")}
    sets = {name: rows for name, rows in sets.items() if rows.any()}
    if "test" not in sets:
        raise ValueError("no test rows")

    def compare(opponent: str, name: str) -> Difference:
        rows = sets[name]
        return _DIFFERENCES[model.gate_metric](
            model,
            targets[rows],
            answers[opponent][rows],
            answers["challenger"][rows],
            scored["group"].to_numpy(object)[rows],
            config,
        )

    score = _TITLES[model.gate_metric]
    if champion is not None:
        checks = [_better(score, "champion", compare("champion", "test"), config)]
        if "guard" in sets:
            checks.append(_guarded(score, compare("champion", "guard"), config))
    else:
        checks = [
            _better(score, model.naive, compare("naive", "test"), config),
            _not_worse(score, model.probe, compare("probe", "test"), config),
        ]
    decisions = {name: model.decisions(answer) for name, answer in answers.items()}
    on_test = scored["split"] == "test"
    report = EvaluateReport(
        verdict=conclude(checks),
        metric=model.gate_metric,
        challenger=bundle.digest_of_folder(challenger),
        champion=bundle.digest_of_folder(champion) if champion else "",
        checks=checks,
        scores={
            who: {
                name: {"rows": int(rows.sum()), **model.scores(targets[rows], answer[rows])}
                for name, rows in sets.items()
            }
            for who, answer in answers.items()
        },
        labels=task.label_names,
        confusion=_confusion(
            task.label_names,
            scored["label"][on_test].tolist(),
            pd.Series(decisions["challenger"])[on_test].tolist(),
        ),
    )
    outputs = dict(zip(model.answer_names, answers["challenger"].T, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    scored[["id", "group", "window", "split", "text", "label"]].assign(
        **{f"answer_{who}": said for who, said in decisions.items()},
        **{f"output_{name}": outputs[name] for name in task.answer_names},
    ).to_parquet(folder / PREDICTIONS, index=False)
    return report


def conclude(checks: list[Check]) -> Verdict:
    """Return the verdict: one shown failure keeps the champion, all passed promotes."""
    if any(check.failed for check in checks):
        return "keep"
    return "promote" if all(check.passed for check in checks) else "inconclusive"


def _better(score: str, opponent: str, difference: Difference, config: EvaluateConfig) -> Check:
    passed, failed = difference.low > 0, difference.high < 0
    word = "better than" if passed else "worse than" if failed else "not told apart from"
    name = f"test {score} against {opponent}"
    return _check(name, difference, 0.0, passed, failed, f"{word} {opponent}", config)


def _not_worse(score: str, opponent: str, difference: Difference, config: EvaluateConfig) -> Check:
    failed = difference.high < 0
    word = "worse than" if failed else "not worse than"
    name = f"test {score} against {opponent}"
    return _check(name, difference, 0.0, not failed, failed, f"{word} {opponent}", config)


def _guarded(score: str, difference: Difference, config: EvaluateConfig) -> Check:
    margin = config.guard_margin
    passed, failed = difference.low > -margin, difference.high < -margin
    word = "not worse than" if passed else "worse than" if failed else "perhaps worse than"
    words = f"{word} the champion on earlier windows"
    name = f"guard {score} against champion"
    return _check(name, difference, -margin, passed, failed, words, config)


def _check(
    name: str,
    difference: Difference,
    threshold: float,
    passed: bool,
    failed: bool,
    words: str,
    config: EvaluateConfig,
) -> Check:
    """Return a check; one with too few groups is neither passed nor failed."""
    enough = difference.groups >= config.min_groups
    reason = (
        f"{words}: difference {difference.estimate:+.3f} "
        f"in [{difference.low:+.3f}, {difference.high:+.3f}], threshold {threshold:+.3f}"
    )
    if not enough:
        reason = (
            f"not enough data for {name}: {difference.groups} groups of rows, "
            f"evaluate.min_groups asks for {config.min_groups}"
        )
    return Check(
        name=name,
        passed=passed and enough,
        failed=failed and enough,
        measured=difference.estimate,
        low=difference.low,
        high=difference.high,
        threshold=threshold,
        reason=reason,
    )


def _load(folder: Path, task: TaskConfig) -> Model:
    """Return the model of a bundle, if it can be asked about the task's test rows."""
    description = bundle.verify(folder)
    if description.test_share != TEST_SHARE:
        raise BundleError(
            f"the model in {folder} was trained with a test share of {description.test_share}, "
            f"now {TEST_SHARE}: it may have seen the test rows"
        )
    model = TASKS[description.task.kind].load(folder)
    if set(model.answer_names) != set(task.answer_names):
        raise BundleError(
            f"the model in {folder} answers {', '.join(model.answer_names)}, "
            f"the project asks for {', '.join(task.answer_names)}; they cannot be compared"
        )
    return model


def _baselines(frame: pd.DataFrame, prepared: Path, model: Model) -> dict[str, NDArray[np.float64]]:
    """Return what needs no network to answer, on the test rows."""
    from safetensors.numpy import load_file

    vectors = load_file(prepared / "embeddings.safetensors")["vectors"]
    current = frame.iloc[: len(vectors)]
    rows = {name: (current["split"] == name).to_numpy() for name in ("train", "valid", "test")}
    train, valid = (
        Labelled(vectors[rows[name]], model.targets(current["label"][rows[name]].tolist()))
        for name in ("train", "valid")
    )
    return {
        "naive": model.naive_answers(train.targets, int(rows["test"].sum())),
        "probe": model.probe_answers(train, valid, vectors[rows["test"]]),
    }


def _f1_difference(
    model: Model,
    targets: NDArray[Any],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    groups: NDArray[np.object_],
    config: EvaluateConfig,
) -> Difference:
    return f1_difference(
        targets,
        a.argmax(1),
        b.argmax(1),
        groups,
        classes=len(model.answer_names),
        alpha=config.alpha,
        resamples=config.resamples,
        seed=config.seed,
    )


def _r2_difference(
    model: Model,
    targets: NDArray[Any],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    groups: NDArray[np.object_],
    config: EvaluateConfig,
) -> Difference:
    return r2_difference(
        targets,
        a[:, 0],
        b[:, 0],
        groups,
        alpha=config.alpha,
        resamples=config.resamples,
        seed=config.seed,
    )


_DIFFERENCES = {"macro_f1": _f1_difference, "r2": _r2_difference}
_TITLES = {"macro_f1": "F1", "r2": "R²"}
"""What models are compared by: ``Model.gate_metric``."""


def _confusion(labels: Sequence[str], true: Sequence[str], said: Sequence[str]) -> list[list[int]]:
    """Return rows by true and answered label; empty where answers are no labels."""
    if not labels:
        return []
    place = {label: index for index, label in enumerate(labels)}
    cells = np.array([place[a] * len(labels) + place[b] for a, b in zip(true, said, strict=True)])
    counts = np.bincount(cells, minlength=len(labels) ** 2).reshape(len(labels), len(labels))
    return [[int(count) for count in row] for row in counts]


def tell_confusion(
    report: EvaluateReport, log: Callable[[list[str], list[list[int]]], None]
) -> None:
    """Hand the confusion to Kubeflow's view, if there are labels to confuse."""
    if report.labels:
        log(list(report.labels), report.confusion)


def to_metrics(report: EvaluateReport) -> dict[str, float]:
    """Return the scores as flat numbers for Kubeflow's metrics view."""
    return {
        f"{model}_{name}_{metric}": value
        for model, sets in report.scores.items()
        for name, scores in sets.items()
        for metric, value in scores.items()
        if metric != "rows"
    }


def to_html(report: EvaluateReport) -> str:
    """Return the report as a page."""
    mood = {"promote": "good", "keep": "bad", "inconclusive": "open"}[report.verdict]
    limit = max(0.05, *(abs(bound) for check in report.checks for bound in (check.low, check.high)))
    confusion = section(
        "Confusion of the challenger on the test rows (true label by row)",
        table(
            ("", *report.labels),
            [(label, *row) for label, row in zip(report.labels, report.confusion, strict=True)],
        ),
    )
    metrics = [name for name in report.scores["challenger"]["test"] if name != "rows"]
    return page(
        "Champion gate",
        verdict(report.verdict, mood),
        *(paragraph(check.reason) for check in report.checks),
        section(
            f"Difference of {_TITLES[report.metric]}, with its interval",
            interval_plot([(c.name, c.low, c.measured, c.high) for c in report.checks], limit),
        ),
        section(
            "Scores",
            table(
                ("model", "rows of", "rows", *(name.replace("_", " ") for name in metrics)),
                [
                    (model, name, int(scores["rows"]), *(scores[each] for each in metrics))
                    for model, sets in report.scores.items()
                    for name, scores in sets.items()
                ],
            ),
        ),
        *([confusion] if report.confusion else []),
    )
