"""Score challenger and champion on the same rows, and reach a verdict.

A first champion has nobody to beat, so it must beat the majority class and not lose
to a linear probe on the pretrained embeddings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from components import bundle
from components.errors import BundleError
from components.evaluate.bootstrap import Difference, f1_difference
from components.page import interval_plot, page, paragraph, section, table, verdict
from components.settings import Section
from components.split import TEST_SHARE
from components.tasks import TASKS, TaskConfig
from components.tasks.text_classification import TextClassifier

Verdict = Literal["promote", "keep", "inconclusive"]
PREDICTIONS = "predictions.parquet"


class EvaluateConfig(Section):
    """Section ``evaluate``: the gate."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability of promoting a model that is no better."""
    guard_margin: float = Field(default=0.03, ge=0, lt=1)
    """How much macro F1 on the earlier windows may fall, at most."""
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


class Scores(Section):
    """What one model reaches on one set of rows."""

    rows: int
    accuracy: float
    macro_f1: float


class EvaluateReport(Section):
    """The verdict with its evidence."""

    schema_version: int = 1
    verdict: Verdict
    challenger: str
    champion: str
    checks: list[Check]
    scores: dict[str, dict[str, Scores]]
    """Scores by model (challenger, champion, majority, probe) and set (test, guard)."""
    labels: tuple[str, ...]
    confusion: list[list[int]]
    """Rows by true and answered label of the challenger on the test set."""

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
        task: names the labels.
        config: the section ``evaluate``.

    Raises:
        BundleError: a bundle is altered, or does not know the task's labels.
    """
    frame = pd.read_parquet(prepared / "rows.parquet")
    # Nothing guards a first champion: there is no earlier promise to break.
    wanted = ["test"] if champion is None else ["test", "guard"]
    scored = frame[frame["split"].isin(wanted)].reset_index(drop=True)
    place = {label: index for index, label in enumerate(task.labels)}
    expected = scored["label"].map(place).to_numpy(np.int64)
    answers: dict[str, NDArray[np.int64]] = {}
    probabilities = _answer(challenger, scored["text"].tolist(), task)
    answers["challenger"] = probabilities.argmax(1)
    if champion is not None:
        answers["champion"] = _answer(champion, scored["text"].tolist(), task).argmax(1)
    else:
        answers |= _baselines(frame, prepared, place)
    sets = {name: (scored["split"] == name).to_numpy() for name in ("test", "guard")}
    sets = {name: rows for name, rows in sets.items() if rows.any()}
    if "test" not in sets:
        raise ValueError("no test rows")

    def compare(opponent: str, name: str) -> Difference:
        rows = sets[name]
        return f1_difference(
            expected[rows],
            answers[opponent][rows],
            answers["challenger"][rows],
            scored["group"].to_numpy(object)[rows],
            classes=len(place),
            alpha=config.alpha,
            resamples=config.resamples,
            seed=config.seed,
        )

    if champion is not None:
        checks = [_better("champion", compare("champion", "test"), config)]
        if "guard" in sets:
            checks.append(_guarded(compare("champion", "guard"), config))
    else:
        checks = [
            _better("majority class", compare("majority", "test"), config),
            _not_worse("linear probe", compare("probe", "test"), config),
        ]
    report = EvaluateReport(
        verdict=conclude(checks),
        challenger=bundle.digest_of_folder(challenger),
        champion=bundle.digest_of_folder(champion) if champion else "",
        checks=checks,
        scores={
            model: {
                name: _scores(expected[rows], answer[rows], len(place))
                for name, rows in sets.items()
            }
            for model, answer in answers.items()
        },
        labels=task.labels,
        confusion=_confusion(expected, answers["challenger"], sets["test"], len(place)),
    )
    columns = {
        f"answer_{model}": [task.labels[i] for i in answer] for model, answer in answers.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    scored[["id", "group", "window", "split", "text", "label"]].assign(
        **columns, **{f"probability_{label}": probabilities[:, i] for label, i in place.items()}
    ).to_parquet(folder / PREDICTIONS, index=False)
    return report


def conclude(checks: list[Check]) -> Verdict:
    """Return the verdict: one shown failure keeps the champion, all passed promotes."""
    if any(check.failed for check in checks):
        return "keep"
    return "promote" if all(check.passed for check in checks) else "inconclusive"


def _better(opponent: str, difference: Difference, config: EvaluateConfig) -> Check:
    passed, failed = difference.low > 0, difference.high < 0
    word = "better than" if passed else "worse than" if failed else "not told apart from"
    name = f"test F1 against {opponent}"
    return _check(name, difference, 0.0, passed, failed, f"{word} {opponent}", config)


def _not_worse(opponent: str, difference: Difference, config: EvaluateConfig) -> Check:
    failed = difference.high < 0
    word = "worse than" if failed else "not worse than"
    name = f"test F1 against {opponent}"
    return _check(name, difference, 0.0, not failed, failed, f"{word} {opponent}", config)


def _guarded(difference: Difference, config: EvaluateConfig) -> Check:
    margin = config.guard_margin
    passed, failed = difference.low > -margin, difference.high < -margin
    word = "not worse than" if passed else "worse than" if failed else "perhaps worse than"
    words = f"{word} the champion on earlier windows"
    return _check("guard F1 against champion", difference, -margin, passed, failed, words, config)


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


def _answer(folder: Path, texts: list[str], task: TaskConfig) -> NDArray[np.float64]:
    """Return probabilities in the order of the task's labels."""
    description = bundle.verify(folder)
    if description.test_share != TEST_SHARE:
        raise BundleError(
            f"the model in {folder} was trained with a test share of {description.test_share}, "
            f"now {TEST_SHARE}: it may have seen the test rows"
        )
    classifier: TextClassifier = TASKS[task.kind].load(folder)
    if set(classifier.labels) != set(task.labels):
        raise BundleError(
            f"the model in {folder} answers {', '.join(classifier.labels)}, "
            f"the project asks for {', '.join(task.labels)}; they cannot be compared"
        )
    order = [classifier.labels.index(label) for label in task.labels]
    return classifier.predict(texts)[:, order]


def _baselines(
    frame: pd.DataFrame, prepared: Path, place: dict[str, int]
) -> dict[str, NDArray[np.int64]]:
    """Return the answers of the majority class and of a linear probe on the test rows."""
    from safetensors.numpy import load_file
    from sklearn.linear_model import LogisticRegression

    vectors = load_file(prepared / "embeddings.safetensors")["vectors"]
    current = frame.iloc[: len(vectors)]
    train = (current["split"] == "train").to_numpy()
    test = (current["split"] == "test").to_numpy()
    targets = current["label"].map(place).to_numpy(np.int64)
    probe = LogisticRegression(max_iter=1000, random_state=0).fit(vectors[train], targets[train])
    majority = np.full(int(test.sum()), np.bincount(targets[train]).argmax(), dtype=np.int64)
    return {"majority": majority, "probe": probe.predict(vectors[test])}


def _scores(expected: NDArray[np.int64], answers: NDArray[np.int64], classes: int) -> Scores:
    from sklearn.metrics import f1_score

    return Scores(
        rows=len(expected),
        accuracy=float((expected == answers).mean()),
        macro_f1=float(
            f1_score(expected, answers, labels=range(classes), average="macro", zero_division=0)
        ),
    )


def _confusion(
    expected: NDArray[np.int64], answers: NDArray[np.int64], rows: NDArray[np.bool_], classes: int
) -> list[list[int]]:
    cells = np.bincount(expected[rows] * classes + answers[rows], minlength=classes**2)
    return [[int(count) for count in row] for row in cells.reshape(classes, classes)]


def to_metrics(report: EvaluateReport) -> dict[str, float]:
    """Return the scores as flat numbers for Kubeflow's metrics view."""
    return {
        f"{model}_{name}_{metric}": getattr(scores, metric)
        for model, sets in report.scores.items()
        for name, scores in sets.items()
        for metric in ("accuracy", "macro_f1")
    }


def to_html(report: EvaluateReport) -> str:
    """Return the report as a page."""
    mood = {"promote": "good", "keep": "bad", "inconclusive": "open"}[report.verdict]
    limit = max(0.05, *(abs(bound) for check in report.checks for bound in (check.low, check.high)))
    return page(
        "Champion gate",
        verdict(report.verdict, mood),
        *(paragraph(check.reason) for check in report.checks),
        section(
            "Difference of macro F1, with its interval",
            interval_plot([(c.name, c.low, c.measured, c.high) for c in report.checks], limit),
        ),
        section(
            "Scores",
            table(
                ("model", "rows of", "rows", "accuracy", "macro F1"),
                [
                    (model, name, scores.rows, scores.accuracy, scores.macro_f1)
                    for model, sets in report.scores.items()
                    for name, scores in sets.items()
                ],
            ),
        ),
        section(
            "Confusion of the challenger on the test rows (true label by row)",
            table(
                ("", *report.labels),
                [(label, *row) for label, row in zip(report.labels, report.confusion, strict=True)],
            ),
        ),
    )
