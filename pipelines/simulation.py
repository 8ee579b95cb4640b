"""Play a policy over a long history in seconds: heads on frozen features stand for models.

Triggers, governor, events and decisions are the real ones, in a store of their own; a
retrain is a logistic regression on embeddings, and costs one device-hour. What the drift
step finds is played by plain two-sample tests. What comes out tells policies apart; it is no
forecast of what a fine-tuned network would score.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components import home
from components.embeddings import KeptEmbeddings
from components.errors import BadInput
from components.ledger import Events
from components.resolve.core import resolve
from components.settings import digest_of
from components.sources import open_source
from components.store import LocalStore
from components.trigger.config import TriggerConfig
from components.trigger.core import Finding, decide
from pipelines.backtest import ALWAYS, ORACLE, Backtest, Point, compare
from pipelines.histories import WINDOWS, History, Indices, Shape, draw_history
from pipelines.project import ProjectConfig

START = datetime(2026, 1, 5, tzinfo=UTC)
DAYS = 7
LEDGER = "simulation"
REHEARSED = 1.0
"""Rows of earlier windows that a retrain mixes in, as a multiple of the new ones."""
WATCHED_COMPONENTS = 48
"""Of an embedding, so that a year is played in seconds."""
NORMAL_95, NORMAL_99 = 1.645, 2.326
GUARD_MARGIN = 0.03
"""A challenger may lose so much on earlier windows and still be promoted."""

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Watched:
    """What a detector may look at in one window.

    Attributes:
        reference: embeddings on which the champion was judged when it was trained ``[n, d]``.
        current: of the rows that production sees now ``[m, d]``.
        right_before: whether the champion answered each reference row well ``[n]``.
        right_since: the same of the newest window whose labels have come; empty without.
        labelled_rows: labelled rows that have come since the champion was trained.
    """

    reference: Vectors
    current: Vectors
    right_before: NDArray[np.bool_]
    right_since: NDArray[np.bool_]
    labelled_rows: int


Detect = Callable[[Watched], Finding]


def detect(watched: Watched) -> Finding:
    """Look at embeddings by Kolmogorov-Smirnov, and at labels that have come by two shares.

    A component has moved if that is significant among all (Benjamini-Hochberg at 1 %) and
    its distance is 0.15 or more. It hurts if accuracy fell by more than chance allows at 99 %,
    and does not if at 95 % it cannot have fallen by 5 %. Inputs that moved outdate what labels of
    earlier windows say: then only harm is believed.
    """
    from scipy.special import kolmogorov
    from scipy.stats import false_discovery_control

    n, m = len(watched.reference), len(watched.current)
    step = -(-watched.reference.shape[1] // WATCHED_COMPONENTS)
    distances = ks_distances(watched.reference[:, ::step], watched.current[:, ::step])
    p_values = kolmogorov(distances * np.sqrt(n * m / (n + m)))
    moved = int(((false_discovery_control(p_values) <= 0.01) & (distances >= 0.15)).sum())
    before = float(watched.right_before.mean())
    if not len(watched.right_since):
        return Finding(moved=moved > 0, moved_features=moved, performance_before=before)
    now = float(watched.right_since.mean())
    spread = np.sqrt(
        before * (1 - before) / len(watched.right_before)
        + now * (1 - now) / len(watched.right_since)
    )
    low, high = before - now - NORMAL_99 * spread, before - now + NORMAL_95 * spread
    hurts = True if low > 0 else False if high < 0.05 * before and not moved else None
    return Finding(
        moved=moved > 0,
        moved_features=moved,
        hurts=hurts,
        performance_before=before,
        performance=now,
        drop=(before - now) / before if low > 0 else None,
        labelled_rows=watched.labelled_rows,
    )


def ks_distances(first: Vectors, second: Vectors) -> NDArray[np.float64]:
    """Return the Kolmogorov-Smirnov distance of each column ``[d]``; ties count as one step."""
    both = np.concatenate([first, second])
    order = both.argsort(axis=0, kind="stable")
    steps = np.where(order < len(first), 1 / len(first), -1 / len(second)).cumsum(axis=0)
    ordered = np.take_along_axis(both, order, axis=0)
    ends = np.append(ordered[1:] != ordered[:-1], np.ones((1, both.shape[1]), bool), axis=0)
    distances: NDArray[np.float64] = np.where(ends, np.abs(steps), 0).max(axis=0)
    return distances


@dataclass
class _Champion:
    head: Any
    """A classifier of scikit-learn."""
    trained: int
    """Number of the window."""
    name: str

    def right(self, vectors: Vectors, labels: Labels) -> NDArray[np.bool_]:
        if not len(labels):
            return np.zeros(0, np.bool_)
        found: NDArray[np.bool_] = self.head.predict(vectors) == labels
        return found


def simulate(
    history: History,
    vectors: Vectors,
    labels: Labels,
    policy: TriggerConfig,
    *,
    see: Detect = detect,
    seed: int = 0,
) -> list[Point]:
    """Play a policy; labels of a window come one window late, or are bought by a retrain.

    Args:
        history: which rows are in which window.
        vectors: embeddings of all rows ``[n, d]``.
        labels: index of each row's class ``[n]``.
        policy: the section ``trigger``; its probe is not asked, because it would look at the
            very features that play the model here.
        see: what stands for the drift step.
        seed: of the rehearsed rows.
    """
    draw = np.random.default_rng(seed)
    champion = _train(history, 0, vectors, labels, draw)
    points = [_point(history, 0, champion, champion, vectors, labels, retrained=False)]
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        for number in range(1, len(history.windows)):
            before = champion
            now = START + timedelta(days=DAYS * (number + 1))
            decision = decide(
                see(_watched(history, number, champion, vectors, labels)),
                champion=champion.name,
                window=f"{now - timedelta(days=DAYS):%Y-%m-%d}",
                run=f"run-{number:04d}",
                now=now,
                request="",
                store=store,
                ledger=LEDGER,
                config=policy,
                probe=lambda policy: (None, "a simulation has no probe", "no probe"),
                learnt_until=START + timedelta(days=DAYS * (champion.trained + 1)),
            )
            if decision.retrain:
                challenger = _train(history, number, vectors, labels, draw)
                champion = _better(history, number, champion, challenger, vectors, labels)
                Events(store, LEDGER).close(decision.event, decision.run, "done", now=now)
            points.append(
                _point(
                    history, number, before, champion, vectors, labels, retrained=decision.retrain
                )
            )
    return points


def backtest(
    history: History,
    vectors: Vectors,
    labels: Labels,
    policies: Mapping[str, TriggerConfig],
    *,
    see: Detect = detect,
    seed: int = 0,
) -> Backtest:
    """Play policies and the oracle over one history, see ``simulate``."""
    played = {
        name: simulate(history, vectors, labels, policy, see=see, seed=seed)
        for name, policy in {**policies, ORACLE: ALWAYS}.items()
    }
    return compare(played, history.changes)


def backtest_of(
    project: ProjectConfig,
    policies: Mapping[str, TriggerConfig],
    shape: Shape,
    seed: int,
    windows: int | None,
    progress: Callable[[int, int, str], None],
) -> Backtest:
    """Play policies over a history that is resampled from a project's rows.

    The world before is the project's first window; the seed chooses which other one comes
    after it.

    Args:
        project: whose labels are classes, of at least two windows.
        policies: by name.
        shape: of the history.
        seed: of every draw.
        windows: how many, 52 by default.
        progress: told how many rows are embedded, out of how many.

    Raises:
        BadInput: the project has other labels, or too few windows or rows.
    """
    if not project.task.label_names:
        raise BadInput(
            f"{project.name}: a history is played for tasks whose labels are classes; "
            "leave --history out to play its own windows"
        )
    plan = resolve(
        project=project.name,
        source=project.source,
        bases=project.bases,
        config=project.resolve.model_copy(update={"history_windows": 520}),
        window="latest",
        purpose="tuning",
        head=None,
        store=home.store(),
        now=datetime.now(UTC),
    )
    source, kept = (
        open_source(project.source),
        KeptEmbeddings(home.store(), plan.bases.models[0], project.task, plan.code),
    )
    frames, found = [], []
    for planned in plan.data.windows:
        frame = source.read(planned.window).frame
        frame = frame[project.task.known(frame["label"]) & frame["text"].notna().to_numpy(bool)]
        if len(frame):
            frames.append(frame.assign(window=planned.window.name))
            found.append(kept.vectors(planned.kept_as, frame["text"].tolist(), progress))
    if len(frames) < 2:
        raise BadInput(f"{project.name} needs two windows with labelled rows for a history")
    frame = pd.concat(frames, ignore_index=True)
    labels = pd.Categorical(frame["label"], project.task.label_names).codes.astype(np.int64)
    pools = [np.flatnonzero(frame["window"] == name) for name in frame["window"].unique()]
    after = pools[1 + int(np.random.default_rng(seed).integers(len(pools) - 1))]
    try:
        history = draw_history(
            pools[0], after, frame["group"].tolist(), shape, windows=windows or WINDOWS, seed=seed
        )
    except ValueError as error:
        raise BadInput(f"{project.name}: {error}") from error
    return backtest(history, np.concatenate(found), labels, policies, seed=seed)


def _train(
    history: History, number: int, vectors: Vectors, labels: Labels, draw: np.random.Generator
) -> _Champion:
    """Fit a head on a window and as many rows of earlier ones."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    rows = history.windows[number].learnt
    if number:
        earlier = np.concatenate([each.learnt for each in history.windows[:number]])
        rows = np.concatenate([rows, draw.choice(earlier, int(REHEARSED * len(rows)))])
    # Rows of a single class have nothing to tell apart, and it is the answer to all.
    several = len(np.unique(labels[rows])) > 1
    head = LogisticRegression(max_iter=1000, random_state=0) if several else DummyClassifier()
    head.fit(vectors[rows], labels[rows])
    return _Champion(head, number, digest_of([number, rows.tolist()]))


def _better(
    history: History,
    number: int,
    champion: _Champion,
    challenger: _Champion,
    vectors: Vectors,
    labels: Labels,
) -> _Champion:
    """Return who serves: the better one on this window's rows, if it keeps the earlier ones."""

    def score(model: _Champion, rows: Indices) -> float:
        return float(model.right(vectors[rows], labels[rows]).mean())

    here = history.windows[number].seen
    earlier = np.concatenate([each.seen for each in history.windows[:number]])
    gains = score(challenger, here) > score(champion, here)
    keeps = score(challenger, earlier) >= score(champion, earlier) - GUARD_MARGIN
    return challenger if gains and keeps else champion


def _watched(
    history: History, number: int, champion: _Champion, vectors: Vectors, labels: Labels
) -> Watched:
    reference = history.windows[champion.trained].seen
    current = history.windows[number].seen
    since = [each.seen for each in history.windows[champion.trained + 1 : number]]
    newest: Sequence[int] | Indices = since[-1] if since else np.zeros(0, np.int64)
    return Watched(
        reference=vectors[reference],
        current=vectors[current],
        right_before=champion.right(vectors[reference], labels[reference]),
        right_since=champion.right(vectors[newest], labels[newest]),
        labelled_rows=sum(map(len, since)),
    )


def _point(
    history: History,
    number: int,
    before: _Champion,
    after: _Champion,
    vectors: Vectors,
    labels: Labels,
    *,
    retrained: bool,
) -> Point:
    rows = history.windows[number].seen
    begins = START + timedelta(days=DAYS * number)
    return Point(
        window=f"{begins:%Y-%m-%d}",
        score=float(before.right(vectors[rows], labels[rows]).mean()),
        retrained=retrained,
        device_hours=float(retrained),
        score_after=float(after.right(vectors[rows], labels[rows]).mean()),
    )
