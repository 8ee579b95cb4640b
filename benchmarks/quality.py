"""How well bad data is told from good: likely label errors, and windows that look odd.

Labels: real sentences (Hutto & Gilbert, ICWSM 2014), one in twenty of whose labels is turned
round. Our confident learning and cleanlab's are given the same probabilities out of fold; where
the package cleanlab is not installed, its figures are left out. People disagree on some of these
sentences to begin with, so that what is found beside the turned ones is no false alarm for sure.

Windows: what the checks of row counts and of labels say of windows that are all alike, and of
ones that are not.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from rich.table import Table

from benchmarks.figures import Figure, out, run
from components.embeddings import embed
from components.prepare.label_errors import likely_label_errors, out_of_fold
from components.profile import group_numbers
from components.sources import open_source
from components.tasks.text_classification import TextClassification
from components.validate.checks.balance import balance
from components.validate.checks.row_count import row_count
from components.validate.checks.skew import skew
from components.validate.config import ValidateConfig
from components.validate.sample import Sample
from components.windows import ALL_TIME
from pipelines.project_file import load

TURNED = 0.05
ROWS, QUICK_ROWS = 4000, 1000
SEEDS, QUICK_SEEDS = range(5), range(2)
DRAWS, QUICK_DRAWS = 400, 100
WINDOWS = 9
WINDOW_ROWS = 300
TASK = TextClassification(labels=("x", "y"))
LEVEL = 0.05
"""Of the tests where any change counts, to see that they hold it."""


def label_errors(rows: int, seeds: Sequence[int]) -> list[Figure]:
    """Return precision and recall of ours and of cleanlab's, on the turned labels."""
    project = load("sentiment", ["source.max_rows_per_window=null"])
    frame = open_source(project.source).read(ALL_TIME).frame
    frame = frame[frame["label"].notna() & frame["id"].str.startswith("movies")]
    frame = frame.sample(rows, random_state=0).reset_index(drop=True)
    texts = frame["text"].tolist()
    vectors = embed(texts, project.bases.models[0].locate(), project.task)
    true = (frame["label"] == "positive").to_numpy(np.int64)
    groups = group_numbers(frame["group"])
    peer_there = importlib.util.find_spec("cleanlab") is not None
    ours, peers = [], []
    for seed in seeds:
        turned = np.random.default_rng(seed).random(rows) < TURNED
        labels = np.where(turned, 1 - true, true)
        answers = out_of_fold(vectors, labels, groups)
        ours.append(_quality(likely_label_errors(answers, labels), turned))
        if peer_there:
            from cleanlab.filter import find_label_issues

            found = find_label_issues(labels, answers, filter_by="both")
            peers.append(_quality(np.flatnonzero(found), turned))
    figures = []
    for place, name in enumerate(("precision", "recall")):
        mine = float(np.mean([each[place] for each in ours]))
        theirs = float(np.mean([each[place] for each in peers])) if peers else float("nan")
        figures.append(
            Figure(
                f"turned labels: {name}",
                mine,
                theirs if peers else mine,
                mine / theirs if peers else None,
                "within 0.02 of cleanlab's" if peers else "cleanlab is not installed",
                not peers or mine >= theirs - 0.02,
            )
        )
    return figures


def _quality(found: np.ndarray, turned: np.ndarray) -> tuple[float, float]:
    hits = turned[found].sum()
    return float(hits / max(1, len(found))), float(hits / max(1, turned.sum()))


def windows(draws: int) -> list[Figure]:
    """Return how often each check of a window speaks, by what the windows are like."""
    at_level = ValidateConfig.model_validate(
        {key: {"max_p_value": LEVEL, "min_change": 0.0} for key in ("row_count", "balance")}
    )
    figures = []
    for name, spread, config in (
        ("counts of independent rows, any change", 0.0, at_level),
        ("counts that vary by a third, any change", 0.33, at_level),
        ("counts that vary by a third, as it comes", 0.33, ValidateConfig()),
    ):
        rate = _rate(row_count, draws, config, spread=spread)
        figures.append(_false_alarms(name, rate, config.row_count.max_p_value, draws))
    for name, group_rows, config in (
        ("labels of independent rows, any change", 1, at_level),
        ("labels alike in groups of ten, any change", 10, at_level),
        ("labels alike in groups of ten, as it comes", 10, ValidateConfig()),
    ):
        rate = _rate(balance, draws, config, group_rows=group_rows)
        figures.append(_false_alarms(name, rate, config.balance.max_p_value, draws))
    half = _rate(row_count, draws, ValidateConfig(), spread=0.1, current=0.33)
    figures.append(
        Figure(
            "found: a third of the rows, of counts within a tenth",
            half,
            1,
            half,
            "≥ 0.95",
            half >= 0.95,
        )
    )
    moved = _rate(balance, draws, ValidateConfig(), share=0.75)
    figures.append(
        Figure("found: 75 % of a label instead of 50", moved, 1, moved, "≥ 0.95", moved >= 0.95)
    )
    return figures


def _false_alarms(name: str, rate: float, level: float, draws: int) -> Figure:
    """Return the figure of a rate of false alarms beside the level of its test."""
    limit = level + 3 * np.sqrt(level * (1 - level) / draws)
    return Figure(
        f"false alarms: {name}", rate, level, rate / level, f"≤ {limit:.4f}", bool(rate <= limit)
    )


def _rate(
    check,
    draws: int,
    config: ValidateConfig,
    *,
    spread: float = 0.0,
    group_rows: int = 1,
    current: float = 1.0,
    share: float = 0.5,
) -> float:
    """Return the share of draws in which a check speaks of the last of nine windows."""
    spoke = 0
    names = np.array([f"w{window}" for window in range(WINDOWS)], dtype=object)
    last = np.arange(WINDOWS) == WINDOWS - 1
    for draw in range(draws):
        chance = np.random.default_rng(draw)
        usual = WINDOW_ROWS * np.exp(chance.normal(0, spread, WINDOWS))
        rows = np.maximum(chance.poisson(usual * np.where(last, current, 1.0)), 1)
        window = np.repeat(np.arange(WINDOWS), rows)
        group = window * 10_000 + (
            np.arange(rows.sum()) - np.repeat(rows.cumsum() - rows, rows)
        ) // (group_rows)
        kinds = chance.random(WINDOWS * 10_000) < np.repeat(np.where(last, share, 0.5), 10_000)
        frame = pd.DataFrame(
            {
                "window": names[window],
                "group": group.astype(str).astype(object),
                "label": np.where(kinds[group], "x", "y").astype(object),
            }
        )
        spoke += bool(check(Sample(frame, names[-1], TASK, {}), config))
    return spoke / draws


def skews(draws: int) -> list[Figure]:
    """Return how often real sentences are said to be unlike others of their kind, and cut ones."""
    source = load("sentiment", ["source.max_rows_per_window=null"]).source
    frame = open_source(source).read(ALL_TIME).frame
    frame = frame[frame["id"].str.startswith("movies")].drop_duplicates("text")
    any_change = ValidateConfig.model_validate({"skew": {"max_p_value": LEVEL, "min_change": 1e-9}})
    figures = []
    for name, config in (("any change", any_change), ("as it comes", ValidateConfig())):
        rate = _skewed(frame, draws, config, lambda text: text)
        level = config.skew.max_p_value
        figures.append(_false_alarms(f"sentences beside others, {name}", rate, level, draws))
    for name, change in (
        ("sentences cut to a half", lambda text: text[: len(text) // 2]),
        ("sentences in small letters", str.lower),
    ):
        rate = _skewed(frame, draws, ValidateConfig(), change)
        figures.append(Figure(f"found: {name}", rate, 1, rate, "≥ 0.95", rate >= 0.95))
    return figures


def _skewed(
    frame: pd.DataFrame, draws: int, config: ValidateConfig, change: Callable[[str], str]
) -> float:
    """Return the share of draws in which rows are said to be unlike what the server was asked."""
    spoke = 0
    for draw in range(draws):
        rows = frame.sample(2 * WINDOW_ROWS, random_state=draw)
        learnt, served = rows.iloc[:WINDOW_ROWS], rows.iloc[WINDOW_ROWS:]
        given = learnt.assign(text=learnt["text"].map(change), window="w")
        spoke += bool(skew(Sample(given, "w", TASK, {}, served=served["text"].tolist()), config))
    return spoke / draws


def measure(quick: bool) -> list[Figure]:
    """Return all figures."""
    return [
        *label_errors(*((QUICK_ROWS, QUICK_SEEDS) if quick else (ROWS, SEEDS))),
        *windows(QUICK_DRAWS if quick else DRAWS),
        *skews(QUICK_DRAWS if quick else DRAWS),
    ]


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    table = Table(box=None, header_style="bold")
    for column in ("figure", "ours", "peer or level", "goal", "holds"):
        table.add_column(column)
    for each in figures:
        values = (f"{value:.4f}" for value in (each.ours, each.peer))
        table.add_row(each.figure, *values, each.goal, "yes" if each.holds else "no")
    out.print(table)


if __name__ == "__main__":
    sys.exit(run(measure, show))
