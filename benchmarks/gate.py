"""What the gate lets through: simulated challengers, equal, worse and better.

Two models answer the same rows. Each row has a difficulty that both share, each model its own
luck with it, so that their errors are correlated as those of a retrained model are: of rows
that one gets wrong, the other gets most wrong too. A row's margin in favour of the true class
is normal, its mean set by the accuracy that is wanted, and is at once the log odds of the
probability. The gate compares macro F1; classes are as frequent as each other, if not said
otherwise, so that macro F1 of a large test set is the accuracy, and gains are known exactly.

Peers: ``new >= old`` on the same rows, which is what training pipelines do by default, and the
comparison of two scores with a standard error each, as if of different rows.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, run
from components.evaluate.check import conclude
from components.evaluate.checks import run_checks
from components.evaluate.comparison import compare, non_inferiority, superiority
from components.evaluate.config import EvaluateConfig
from components.evaluate.curves import Floats
from components.evaluate.exam import Exam
from components.evaluate.metrics import Scored

PAIRS, QUICK_PAIRS = 2000, 200
EXAMS, QUICK_EXAMS = 100, 20
"""Simulations of all default checks, which take longer than a comparison."""
EXAM_ROWS = {"test": 2000, "valid": 2000, "guard": 1000, "train": 1000}
SPREAD_OF_TIMES = 0.2
GATE = EvaluateConfig()
METRIC = "macro_f1"
POINTS = (0.01, 0.02, 0.03, 0.05)
POWER_ROWS = (200, 400, 1000, 2000)
WANTED_POWER = 0.8
NORMAL_95 = 1.645
TIMED_ROWS = TIMED_RESAMPLES = 10_000
TIMED_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "roc_auc",
    "pr_auc",
    "log_loss",
    "brier",
    "ece",
)
MAX_S, MAX_MB = 2.0, 1000
SCIKIT_LEARN_RESAMPLES = 5


@dataclass(frozen=True)
class Condition:
    """What rows and models are like.

    Attributes:
        rows: in the test set.
        gain: true accuracy of the challenger minus the champion's.
        accuracy: of the champion.
        shared: share of the variance of margins that both models have in common.
        positive: share of rows of the second class.
        noise: share of rows whose label is wrong.
        group_rows: rows of the largest group; sizes are uniform from 1.
        within: share of the variance of margins that rows of a group have in common.
        lean: how much the champion leans to the second class and the challenger to the
            first, so that they err differently while they are equally good.
    """

    rows: int
    gain: float = 0.0
    accuracy: float = 0.85
    shared: float = 0.8
    positive: float = 0.5
    noise: float = 0.0
    group_rows: int = 1
    within: float = 0.5
    lean: float = 0.0


EQUAL = {
    "equal": Condition(0),
    "3 % noisy labels": Condition(0, noise=0.03),
    "groups of 1 to 20 rows": Condition(0, group_rows=20),
    "grouped, 3 % noisy labels": Condition(0, group_rows=20, noise=0.03),
    "5 % positive": Condition(0, positive=0.05, accuracy=0.95),
    "hardly different": Condition(0, shared=0.99),
    "other errors": Condition(0, lean=0.4),
}
EQUAL_ROWS = (30, 50, 100, 400, 2000)
ALL_ROWS = tuple(sorted({*EQUAL_ROWS, *POWER_ROWS}))


def measure(quick: bool) -> list[Figure]:
    """Return rates of promotion, and what a comparison costs."""
    pairs = QUICK_PAIRS if quick else PAIRS
    figures = []
    for name, condition in EQUAL.items():
        for rows in EQUAL_ROWS:
            found = rates(replace(condition, rows=rows), pairs)
            title = f"false promotion/{name}/{rows}"
            figures.append(_level(title, found.better, found.at_least, pairs))
    for rows in POWER_ROWS:
        found = rates(Condition(rows, gain=-GATE.guard_margin), pairs)
        title = f"false promotion/guarded and worse by the margin/{rows}"
        figures.append(_level(title, found.kept, found.at_least, pairs))
    for points in POINTS:
        for rows in POWER_ROWS:
            found = rates(Condition(rows, gain=points), pairs)
            title = f"power/{100 * points:g} points/{rows}/beside"
            for rule, peer in ((">=", found.at_least), ("unpaired", found.unpaired)):
                figures.append(_power(f"{title} {rule}", found.better, peer, points, rows))
    return [*figures, *_with_all_checks(QUICK_EXAMS if quick else EXAMS), *_cost()]


@dataclass(frozen=True)
class Rates:
    """How often something was let through: by us as better, as kept, and by two peers."""

    better: float
    kept: float
    at_least: float
    unpaired: float


def rates(condition: Condition, pairs: int) -> Rates:
    """Return what becomes of so many simulated pairs."""
    verdicts = []
    for trial in range(pairs):
        champion, challenger, groups = simulate(condition, np.random.default_rng(trial))
        difference = compare(
            champion,
            challenger,
            groups,
            [METRIC],
            alpha=GATE.alpha,
            resamples=GATE.resamples,
            seed=trial,
        )[METRIC]
        old, new = ((each.decisions == each.targets).mean() for each in (champion, challenger))
        error = np.sqrt((old * (1 - old) + new * (1 - new)) / condition.rows)
        verdicts.append(
            (
                superiority(difference).verdict == "passed",
                non_inferiority(difference, GATE.guard_margin).verdict == "passed",
                difference.challenger >= difference.champion,
                new - old > NORMAL_95 * error,
            )
        )
    return Rates(*np.mean(verdicts, axis=0).tolist())


def _with_all_checks(exams: int) -> list[Figure]:
    """Return how often the whole gate, as it is by default, lets challengers through."""
    better, equal = (
        sum(
            conclude(run_checks(_exam(gain, np.random.default_rng(trial)), GATE)) == "promote"
            for trial in range(exams)
        )
        / exams
        for gain in (POINTS[-1], 0.0)
    )
    rows = EXAM_ROWS["test"]
    return [
        Figure(
            figure=f"all checks/{100 * POINTS[-1]:g} points better/{rows}",
            ours=better,
            peer=1.0,
            ratio=better,
            goal=f"at least {WANTED_POWER:.0%}",
            holds=better >= WANTED_POWER,
        ),
        _level(f"all checks/equal/{rows}", equal, 0.5, exams),
    ]


def _exam(gain: float, generator: np.random.Generator) -> Exam:
    """Return an exam of two models that sat it side by side on like hardware.

    Contents have a length and an embedding that say nothing of the errors, so that slices by
    length, by language and by clusters of errors are looked at and none is there.
    """
    count = sum(EXAM_ROWS.values())
    pair = simulate(Condition(count, gain=gain), generator)[:2]
    scored = dict(zip(("champion", "challenger"), pair, strict=True))
    targets = pair[0].targets
    split = np.repeat(list(EXAM_ROWS), list(EXAM_ROWS.values()))
    on_test = int((split == "test").sum())
    words = generator.integers(3, 60, count)
    labels = ("bad", "good")
    rows = pd.DataFrame(
        {
            "id": [f"r{number}" for number in range(count)],
            "group": [f"g{number}" for number in range(count)],
            "window": np.where(split == "guard", "2026-01-05", "2026-01-12"),
            "split": split,
            "text": [" ".join(["the film was long"] * length) for length in words],
            "label": [labels[target] for target in targets],
        }
    )
    batch = np.arange(count) // (on_test // 24)

    def slowness(spread: float) -> Floats:
        return np.asarray(np.exp(spread * generator.normal(size=batch.max() + 1))[batch])

    shared = slowness(SPREAD_OF_TIMES)  # what else the machine does slows a batch of both
    return Exam(
        kind="classification",
        content="text",
        metric=METRIC,
        labels=labels,
        rows=rows,
        targets=targets,
        answers={who: each.answers for who, each in scored.items()},
        decided={who: each.decisions for who, each in scored.items()},
        errors={
            who: (each.decisions != targets).astype(np.float64) for who, each in scored.items()
        },
        milliseconds={
            who: shared
            * np.exp(SPREAD_OF_TIMES / 4 * generator.normal(size=batch.max() + 1))[batch]
            for who in scored
        },
        batch=batch,
        size_bytes=dict.fromkeys(scored, 90_000_000),
        features={"characters": words[:on_test].astype(np.float64)},
        vectors=generator.normal(size=(on_test, 32)).astype(np.float32),
    )


def simulate(
    condition: Condition, generator: np.random.Generator
) -> tuple[Scored, Scored, NDArray[np.int64]]:
    """Return what champion and challenger answer, and the group of each row."""
    from scipy.special import expit, ndtri

    rows = condition.rows
    sizes = generator.integers(1, condition.group_rows + 1, rows)
    groups = np.repeat(np.arange(rows), sizes)[:rows]
    within = condition.within if condition.group_rows > 1 else 0.0

    def luck() -> Floats:
        own, common = generator.normal(size=rows), generator.normal(size=rows)[groups]
        return np.asarray(np.sqrt(1 - within) * own + np.sqrt(within) * common)

    true = (generator.random(rows) < condition.positive).astype(int)
    side = 2 * true - 1
    difficulty = luck()
    models: list[Any] = []
    for gain, lean in ((0.0, condition.lean), (condition.gain, -condition.lean)):
        mean = ndtri(condition.accuracy + gain)
        spread = np.sqrt(condition.shared) * difficulty + np.sqrt(1 - condition.shared) * luck()
        positive = expit(2 * (side * (mean + spread) + lean))
        models.append(np.stack([1 - positive, positive], axis=1))
    wrong = generator.random(rows) < condition.noise
    told = np.where(wrong, 1 - true, true)
    champion, challenger = (Scored.of("classification", told, answers) for answers in models)
    return champion, challenger, groups


def _level(name: str, ours: float, peer: float, pairs: int) -> Figure:
    """Return a rate that must not be above the nominal one by more than chance."""
    from scipy.special import betaincinv

    hits = round(ours * pairs)
    low, high = (
        0.0 if hits == 0 else float(betaincinv(hits, pairs - hits + 1, 0.025)),
        float(betaincinv(hits + 1, pairs - hits, 0.975)),
    )
    return Figure(
        figure=name,
        ours=ours,
        peer=peer,
        ratio=round(ours / peer, 3) if peer else None,
        goal=f"at most {GATE.alpha:.0%}; measured from {low:.1%} to {high:.1%}",
        holds=low <= GATE.alpha,
    )


def _power(name: str, ours: float, peer: float, points: float, rows: int) -> Figure:
    """Return how often a gain is seen; the largest must be, and none less than unpaired."""
    must = points == POINTS[-1] and rows == POWER_ROWS[-1]
    unpaired = name.endswith("unpaired")
    goals = [f"at least {WANTED_POWER:.0%}"] * must + ["at least as often"] * unpaired
    return Figure(
        figure=name,
        ours=ours,
        peer=peer,
        ratio=round(ours / peer, 3) if peer else None,
        goal=" and ".join(goals) or "none: what is always let through is always seen",
        holds=(not must or ours >= WANTED_POWER) and (not unpaired or ours >= peer),
    )


def _cost() -> list[Figure]:
    """Return time and peak memory of a comparison, in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        seconds, megabytes = pool.submit(_timed).result()
    peer = _scikit_learn_s()
    size = f"{TIMED_RESAMPLES:,} resamples, {TIMED_ROWS:,} rows, {len(TIMED_METRICS)} metrics"
    return [
        Figure(
            figure=f"cost/seconds/{size}",
            ours=round(seconds, 2),
            peer=round(peer),
            ratio=round(seconds / peer, 5),
            goal=f"less than {MAX_S:g} s on two cores",
            holds=seconds < MAX_S,
        ),
        Figure(
            figure=f"cost/megabytes/{size}",
            ours=round(megabytes),
            peer=MAX_MB,
            ratio=round(megabytes / MAX_MB, 3),
            goal=f"less than {MAX_MB:,} MB at its peak, with the interpreter",
            holds=megabytes < MAX_MB,
        ),
    ]


def _timed() -> tuple[float, float]:
    """Return the seconds and the peak megabytes of a large comparison."""
    champion, challenger, _ = simulate(Condition(TIMED_ROWS), np.random.default_rng(0))

    def all_metrics(resamples: int) -> None:
        compare(
            champion,
            challenger,
            None,
            TIMED_METRICS,
            alpha=GATE.alpha,
            resamples=resamples,
            seed=0,
        )

    all_metrics(100)  # imports what it needs
    started_s = time.perf_counter()
    all_metrics(TIMED_RESAMPLES)
    seconds = time.perf_counter() - started_s
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _scikit_learn_s() -> float:
    """Return the seconds that a loop over scikit-learn's metrics would take.

    It has no calibration error, so that it is spared one of the metrics.
    """
    from sklearn import metrics

    models = simulate(Condition(TIMED_ROWS), np.random.default_rng(0))[:2]
    generator = np.random.default_rng(0)
    started_s = time.perf_counter()
    for _ in range(SCIKIT_LEARN_RESAMPLES):
        drawn = generator.integers(0, TIMED_ROWS, TIMED_ROWS)
        for model in models:
            true, answers = model.targets[drawn], model.answers[drawn]
            given, positive = model.decisions[drawn], answers[:, 1]
            metrics.accuracy_score(true, given)
            metrics.balanced_accuracy_score(true, given)
            metrics.f1_score(true, given, average="macro")
            metrics.roc_auc_score(true, positive)
            metrics.average_precision_score(true, positive)
            metrics.log_loss(true, answers)
            metrics.brier_score_loss(true, positive)
    return (time.perf_counter() - started_s) * TIMED_RESAMPLES / SCIKIT_LEARN_RESAMPLES


def show(figures: Sequence[Figure]) -> None:
    """Print what is wrongly promoted, what is rightly promoted, and the cost."""
    found = {each.figure: each for each in figures}

    def cell(name: str, *peers: str) -> str:
        """Return our rate, and in brackets those of peers, in percent."""
        own = [found[each] for each in (name + peer for peer in peers) if each in found]
        if not own:
            return ""
        colour = "green" if all(each.holds for each in own) else "red"
        beside = ", ".join(f"{each.peer:.0%}" for each in own)
        return f"[{colour}]{own[0].ours:.1%}[/] ({beside})"

    wrong = _table("promoted without being better (by >=)", "models", ALL_ROWS)
    kinds = dict.fromkeys(name.split("/")[1] for name in found if name.startswith("false"))
    for kind in kinds:
        wrong.add_row(kind, *(cell(f"false promotion/{kind}/{rows}", "") for rows in ALL_ROWS))
    right = _table("promoted and better (by >=, by an unpaired test)", "true gain", POWER_ROWS)
    for points in POINTS:
        name = f"{100 * points:g} points"
        cells = (
            cell(f"power/{name}/{rows}", "/beside >=", "/beside unpaired") for rows in POWER_ROWS
        )
        right.add_row(name, *cells)
    wide = Console(highlight=False, emoji=False, width=120)
    wide.print(wrong)
    wide.print(right)
    for each in figures:
        kind, unit, *size = each.figure.split("/")
        if kind == "all checks":
            colour = "green" if each.holds else "red"
            wide.print(
                f"with all checks, {size[0]} test rows, {unit}: "
                f"promoted [{colour}]{each.ours:.1%}[/], {each.goal}"
            )
        if kind == "cost":
            colour = "green" if each.holds else "red"
            wide.print(f"{size[0]}: [{colour}]{each.ours:,g} {unit}[/], {each.goal}")


def _table(title: str, first: str, rows: Sequence[int]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column(first)
    for count in rows:
        table.add_column(f"{count:,} rows", justify="right")
    return table


if __name__ == "__main__":
    sys.exit(run(measure, show))
