"""What policies save, and what that costs: a year of windows, resampled from real rows.

Sentences of four domains (Hutto & Gilbert, ICWSM 2014): the world before is movie reviews, the
world after it tweets, product reviews or newspaper editorials; it changes at once, slowly, by
season or never. A head on MiniLM's features stands for the model, see
``pipelines.simulation``. The peer is an oracle that retrains on every window.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from benchmarks.figures import Figure, out, run
from components.embeddings import embed
from components.sources import open_source
from components.trigger.config import GovernorConfig, TriggerConfig
from components.windows import ALL_TIME
from pipelines.backtest import ORACLE, Summary
from pipelines.histories import SHAPES, Shape, draw_history
from pipelines.project_file import load
from pipelines.simulation import backtest

PROJECT = "sentiment"
ROWS = 1500
"""Of a window: about what the project's own windows give to train on."""
AFTER = ("tweets", "amazon", "nyt")
SEEDS, QUICK_SEEDS = range(200, 205), range(200, 201)
"""None of them was looked at while the defaults were chosen."""
MIN_SAVED, MAX_REGRET = 0.5, 0.01
POLICIES = {
    "default": TriggerConfig(),
    "label first": TriggerConfig(governor=GovernorConfig(moved_unknown="label")),
}


@dataclass(frozen=True)
class World:
    """All rows with their embeddings, and which domain each is from."""

    vectors: np.ndarray
    labels: np.ndarray
    domains: np.ndarray
    groups: list[str]

    def pool(self, domain: str) -> np.ndarray:
        return np.flatnonzero(self.domains == domain)


def world() -> World:
    project = load(PROJECT, ["source.max_rows_per_window=null"])
    rows = open_source(project.source).read(ALL_TIME).frame
    rows = rows[rows["label"].notna()].reset_index(drop=True)
    vectors = embed(rows["text"].tolist(), project.bases.models[0].locate(), project.task)
    return World(
        vectors=vectors,
        labels=(rows["label"] == project.task.label_names[1]).to_numpy(np.int64),
        domains=rows["id"].str.split(":").str[0].to_numpy(),
        groups=rows["group"].tolist(),
    )


def play(given: World, shape: Shape, after: str, seed: int) -> dict[str, Summary]:
    """Return what each policy and the oracle came to."""
    history = draw_history(
        given.pool("movies"), given.pool(after), given.groups, shape, rows=ROWS, seed=seed
    )
    played = backtest(history, given.vectors, given.labels, POLICIES, seed=seed)
    return {each.policy: each for each in played.summaries}


def figures_of(name: str, policy: str, played: Sequence[dict[str, Summary]]) -> list[Figure]:
    sides = (policy, ORACLE)
    hours, most = (float(np.mean([each[side].device_hours for each in played])) for side in sides)
    score, best = (float(np.mean([each[side].score for each in played])) for side in sides)
    return [
        Figure(
            f"{name}, {policy}: retrains in a year",
            hours,
            most,
            hours / most,
            f"at most {MIN_SAVED:.0%} of the oracle's",
            hours <= MIN_SAVED * most,
        ),
        Figure(
            f"{name}, {policy}: accuracy",
            score,
            best,
            score / best,
            f"regret under {MAX_REGRET:.0%}",
            best - score < MAX_REGRET,
        ),
    ]


def measure(quick: bool) -> list[Figure]:
    given, found = world(), []
    for shape in SHAPES:
        for after in AFTER if shape != "none" else AFTER[:1]:
            name = f"{shape}, movies to {after}" if shape != "none" else "none, movies"
            seeds = QUICK_SEEDS if quick else SEEDS
            played = [play(given, shape, after, seed) for seed in seeds]
            for policy in POLICIES:
                found += figures_of(name, policy, played)
    return found


def show(figures: Sequence[Figure]) -> None:
    table = Table(box=None, header_style="bold")
    for column in ("figure", "policy", "oracle", "goal", "holds"):
        table.add_column(column)
    for each in figures:
        digits = 1 if "retrains" in each.figure else 4
        values = (f"{value:.{digits}f}" for value in (each.ours, each.peer))
        table.add_row(each.figure, *values, each.goal, "yes" if each.holds else "no")
    out.print(table)


if __name__ == "__main__":
    sys.exit(run(measure, show))
