"""How much a score owes to chance: train with several seeds on several folds.

One score of one training says little; two trainings that differ in their seed alone may
differ by points. ``tokiwa evaluate`` trains the project's recipe afresh, from a base model,
on every fold with every seed, and tells mean, standard deviation and interval.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.errors import BadInput
from components.finetune import core as finetune
from components.finetune.history import Silent
from components.page import page, paragraph, section, table, verdict
from components.prepare.core import ROWS, VECTORS
from components.settings import Section
from components.split import TEST_SHARE, unit_interval
from components.tasks.model import Model
from pipelines.project import ProjectConfig
from pipelines.rows import prepared_rows

Folds = Literal["stratified", "grouped", "time"]
CURRENT = ("train", "valid", "test")
"""Splits of the current window; rows of earlier windows only ever help to learn."""
LEVEL = 0.95


class Score(Section):
    """One score of one training."""

    fold: int
    seed: int
    rows: int
    """That were learnt from."""
    scores: dict[str, float]
    """On the fold's own rows."""


class Summary(Section):
    """A score over all trainings."""

    mean: float
    deviation: float
    """Standard deviation over trainings."""
    seed_deviation: float | None
    """Of trainings that differ in their seed alone; None with one seed."""
    low: float
    high: float
    """95 % interval of the mean score of a training on so many rows."""


class RepeatabilityReport(Section):
    """What several trainings came to."""

    schema_version: int = 1
    window: str
    folds: Folds
    metric: str
    trainings: list[Score]
    summaries: dict[str, Summary]

    @property
    def headline(self) -> str:
        """The one thing to see."""
        found = self.summaries[self.metric]
        return (
            f"{self.metric.replace('_', ' ')} {found.mean:.3f} ± {found.deviation:.3f} over "
            f"{len(self.trainings)} trainings, 95 % interval [{found.low:.3f}, {found.high:.3f}]"
        )


def repeatability(
    project: ProjectConfig,
    window: str,
    folds: int,
    seeds: int,
    kind: Folds,
    progress: Callable[[int, int, str], None],
) -> RepeatabilityReport:
    """Train on every fold with every seed, from a base model, and score the rest.

    Args:
        project: its recipe and rows; no champion takes part, which may have seen the rows.
        window: see ``resolve``.
        folds: how many parts the window's rows are cut into.
        seeds: trainings of each fold.
        kind: ``stratified`` keeps groups together and labels in balance, ``grouped`` keeps
            groups together, ``time`` learns from the past and is tested on what follows.
        progress: told of trainings, and of embedded rows before.

    Raises:
        BadInput: there are too few rows or groups for so many folds, or no times.
    """
    config = project.finetune.model_copy(update={"start": "base", "search": None})
    with tempfile.TemporaryDirectory() as scratch:
        plan, _ = prepared_rows(project, window, None, Path(scratch), progress)
        prepared = Path(scratch) / "prepared"
        frame = pd.read_parquet(prepared / ROWS)
        start = finetune.choose(prepared, plan.bases.models, None, project.task, config, Silent())
        trainings: list[Score] = []
        parts = list(splits(frame, folds, kind, project.prepare.valid_share))
        for fold, split in enumerate(parts):
            lacking = project.task.lacking(frame["label"][split == "train"], 1)
            if lacking:
                raise BadInput(f"what fold {fold + 1} of {folds} learns from {lacking}")
        for fold, split in enumerate(parts):
            place = Path(scratch) / f"fold-{fold}"
            place.mkdir()
            frame.assign(split=split).to_parquet(place / ROWS, index=False)
            shutil.copyfile(prepared / VECTORS, place / VECTORS)
            for seed in range(seeds):
                settings = config.model_copy(update={"seed": config.seed + seed})
                trained = finetune.train(
                    place, start, None, project.task, settings, Silent(), lambda _: None
                )
                finetune.fit_rule(trained.outcome.model, frame[split == "valid"], settings)
                scores = scores_of(trained.outcome.model, frame[split == "test"])
                rows = trained.train_rows
                trainings.append(Score(fold=fold, seed=settings.seed, rows=rows, scores=scores))
                progress(len(trainings), folds * seeds, "trainings")
        metric = trained.outcome.model.metric
    share = float(np.mean([(split == "test").sum() / (split == "train").sum() for split in parts]))
    return RepeatabilityReport(
        window=plan.live.current.window.name,
        folds=kind,
        metric=metric,
        trainings=trainings,
        summaries={
            name: summary(
                np.array([each.scores[name] for each in trainings]).reshape(folds, seeds), share
            )
            for name in trainings[0].scores
        },
    )


def scores_of(model: Model, frame: pd.DataFrame) -> dict[str, float]:
    """Return a model's scores on the rows of a frame."""
    answers = model.predict(frame["text"].tolist())
    return model.scores(model.targets(frame["label"].tolist()), answers)


def splits(
    frame: pd.DataFrame, folds: int, kind: Folds, valid_share: float
) -> Iterator[NDArray[np.object_]]:
    """Yield the column ``split`` of prepared rows for each fold.

    The rows of the current window change places; ``guard`` rests, and ``rehearsal`` stays but
    for groups that this fold is tested on, or chooses the best epoch by.

    Raises:
        BadInput: there are too few rows or groups for so many folds, or no times.
    """
    at = np.flatnonzero(frame["split"].isin(CURRENT))
    rows = frame.iloc[at]
    for number, (learnt, tested) in enumerate(_folds(rows, folds, kind), 1):
        split = np.full(len(frame), "", dtype=object)
        split[at[tested]] = "test"
        valid = _valid(rows.iloc[learnt], valid_share / (1 - TEST_SHARE), kind)
        split[at[learnt[valid]]] = "valid"
        judged = frame["group"].isin(frame["group"][split != ""])
        split[at[learnt[~valid]]] = "train"
        split[(frame["split"] == "rehearsal") & ~judged] = "rehearsal"
        lacking = [name for name in CURRENT if not (split == name).any()]
        if lacking:
            raise BadInput(
                f"fold {number} of {folds} has no {lacking[0]} rows; take fewer folds, or cut "
                "them otherwise with --by"
            )
        yield split


def _folds(
    rows: pd.DataFrame, folds: int, kind: Folds
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the places of rows to learn from and of rows to test, for each fold."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    groups = rows["group"].to_numpy(object)
    count = len(np.unique(groups.astype(str)))
    wanted = folds + (kind == "time")
    if count < 2 * wanted:
        raise BadInput(f"{folds} folds need {2 * wanted} groups of rows or more; there are {count}")
    if kind == "time":
        yield from _onwards(rows, groups, folds)
        return
    splitter = StratifiedGroupKFold if kind == "stratified" else GroupKFold
    yield from splitter(folds, shuffle=True, random_state=0).split(rows, _strata(rows), groups)


def _onwards(
    rows: pd.DataFrame, groups: NDArray[np.object_], folds: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield growing pasts with what follows each; a group lies where its last row does."""
    times = pd.to_datetime(rows["time"], utc=True, errors="coerce", format="ISO8601")
    last = times.groupby(groups).transform("max").to_numpy()
    # Rows of one moment are not torn apart: nobody could have learnt from half of them.
    moments = np.unique(last)
    if times.isna().any() or len(moments) < folds + 1:
        raise BadInput(
            f"folds by time need a time in every row and {folds + 1} different ones; "
            "set source.columns.time, or use --by stratified"
        )
    edges = [moments[round(len(moments) * part / (folds + 1))] for part in range(1, folds + 1)]
    for fold, edge in enumerate(edges):
        end = edges[fold + 1] if fold + 1 < folds else None
        after = last >= edge
        tested = after if end is None else after & (last < end)
        yield np.flatnonzero(last < edge), np.flatnonzero(tested)


def _strata(rows: pd.DataFrame) -> NDArray[Any]:
    """Return the label of each row, or the quarter that its number lies in."""
    numbers = pd.to_numeric(rows["label"], errors="coerce")
    if numbers.notna().all() and numbers.nunique() > 10:
        return np.asarray(pd.qcut(numbers, 4, labels=False, duplicates="drop"))
    return np.asarray(rows["label"])


def _valid(rows: pd.DataFrame, share: float, kind: Folds) -> NDArray[np.bool_]:
    """Return which of the rows to learn from name the best epoch: a share of the groups."""
    if kind == "time":
        times = pd.to_datetime(rows["time"], utc=True, format="ISO8601")
        last = times.groupby(rows["group"].to_numpy(object)).transform("max")
        edge = last.sort_values().iloc[round(len(last) * (1 - share))]
        return np.asarray(last >= edge)
    return unit_interval(rows["group"], "valid") < share


def summary(scores: NDArray[np.float64], test_by_train: float) -> Summary:
    """Return mean, deviation and interval of scores ``[folds, seeds]``.

    Trainings on overlapping rows are no independent evidence: the variance of their mean is
    (1 / n + test rows / training rows) times that of one (Nadeau & Bengio 2003,
    https://doi.org/10.1023/A:1024068626366), n being the number of folds. Seeds are
    averaged first, as they make nothing new of the rows.
    """
    from scipy.stats import t

    by_fold = scores.mean(1)
    folds, seeds = scores.shape
    mean, deviation = float(scores.mean()), float(scores.std(ddof=1)) if scores.size > 1 else 0.0
    reach = math.inf
    if folds > 1:
        error = float(by_fold.std(ddof=1)) * math.sqrt(1 / folds + test_by_train)
        reach = float(t.ppf(0.5 + LEVEL / 2, folds - 1)) * error
    seed_deviation = float(np.sqrt(scores.var(1, ddof=1).mean())) if seeds > 1 else None
    return Summary(
        mean=mean,
        deviation=deviation,
        seed_deviation=seed_deviation,
        low=mean - reach,
        high=mean + reach,
    )


def to_html(report: RepeatabilityReport) -> str:
    """Return the report as a page."""
    shown = {name.replace("_", " "): each for name, each in report.summaries.items()}
    return page(
        "Repeatability",
        verdict(report.headline, "open"),
        paragraph(
            f"Trained afresh on {report.folds} folds of window {report.window}; the interval is "
            "that of the mean score, corrected for rows that trainings share."
        ),
        section(
            "Scores",
            table(
                ("score", "mean", "deviation", "by seed alone", "low", "high"),
                [
                    (
                        name,
                        each.mean,
                        each.deviation,
                        "–" if each.seed_deviation is None else each.seed_deviation,
                        each.low,
                        each.high,
                    )
                    for name, each in shown.items()
                ],
            ),
        ),
        section(
            "Trainings",
            table(
                ("fold", "seed", "rows", *shown),
                [
                    (each.fold, each.seed, each.rows, *each.scores.values())
                    for each in report.trainings
                ],
            ),
        ),
    )
