"""Would a retrain win? Heads on frozen features say so in seconds.

One head learns what the champion has learnt from, another learns the new labelled rows as
well, by cross-validation; both answer the new rows. What the new rows do not teach a head,
they will hardly teach the whole network: if the gain is shown to be small, the retrain is
skipped. Where it cannot be told, nothing is skipped.

Embeddings are those that earlier runs kept; none is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.embeddings import KeptEmbeddings, Vectors
from components.plan import Base, Data, Live, WindowData
from components.sources import Source, open_source
from components.split import unit_interval
from components.store import Store
from components.tasks import TaskConfig
from components.trigger.config import ProbeConfig
from components.trigger.governor import Said

FOLDS = 5
MIN_GROUPS = 20
"""Of the new rows: of fewer, hardly any is held out beside others that resemble it."""
MAX_ROWS = 4000
"""Of the old rows and of the new ones: more make it slower and hardly surer."""


@dataclass(frozen=True)
class Rows:
    """Labelled rows with their embeddings.

    Attributes:
        vectors: of the pretrained network ``[n, d]``.
        labels: of the task ``[n]``.
        groups: what must not be torn apart ``[n]``.
    """

    vectors: Vectors
    labels: list[str]
    groups: list[str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Gain:
    """What new rows teach a head.

    Attributes:
        mean: gain in accuracy, or in mean absolute error as a share of the labels'
            deviation.
        error: its standard error, rows of a group taken together.
        rows: how many rows it was measured on.
    """

    mean: float
    error: float
    rows: int


def gain(old: Rows, new: Rows, task: TaskConfig) -> Gain:
    """Return how much better a head answers new rows when it may learn from others of them.

    Args:
        old: what the champion has learnt from.
        new: labelled rows that it has not seen.
        task: classes or numbers.
    """
    place = unit_interval(new.groups, "probe")
    fold = (place * FOLDS).astype(int)
    targets, past = np.array(new.labels), np.array(old.labels)
    before = _merits(old.vectors, past, new.vectors, targets, task)
    after = np.zeros(len(new))
    for number in range(FOLDS):
        held = fold == number
        if held.any():
            vectors = np.concatenate([old.vectors, new.vectors[~held]])
            labels = np.concatenate([past, targets[~held]])
            after[held] = _merits(vectors, labels, new.vectors[held], targets[held], task)
    return _mean(after - before, new.groups)


def _merits(
    vectors: Vectors,
    labels: NDArray[np.str_],
    asked: Vectors,
    truth: NDArray[np.str_],
    task: TaskConfig,
) -> NDArray[np.float64]:
    """Fit a head, and return how good its answer to each row is, more for better."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if task.label_names:
        answers = np.full(len(truth), labels[0])
        if len(set(labels)) > 1:
            head = LogisticRegression(max_iter=1000, random_state=0).fit(vectors, labels)
            answers = head.predict(asked)
        right: NDArray[np.float64] = (answers == truth).astype(np.float64)
        return right
    numbers, wanted = labels.astype(np.float64), truth.astype(np.float64)
    guesses = Ridge(random_state=0).fit(vectors, numbers).predict(asked)
    merits: NDArray[np.float64] = np.abs(guesses - wanted) / -(float(wanted.std()) or 1.0)
    return merits


def _mean(gains: NDArray[np.float64], groups: list[str]) -> Gain:
    """Return the mean with the standard error of a ratio of sums over groups."""
    mean = float(gains.mean())
    sums = pd.Series(gains - mean).groupby(groups).sum()
    error = float(np.sqrt((sums**2).sum())) / len(gains)
    return Gain(mean, error, len(gains))


def ask(
    data: Data,
    live: Live,
    base: Base,
    task: TaskConfig,
    code: str,
    store: Store,
    policy: ProbeConfig,
) -> Said:
    """Say whether a retrain could win, as a rule of the governor does.

    Args:
        data: all planned windows.
        live: of them, those whose labels have come since the champion was trained.
        base: the network whose embeddings are kept.
        task: classes or numbers.
        code: version of the code that embedded.
        store: keeps the embeddings.
        policy: the section ``trigger.governor.probe``.
    """
    from scipy.stats import norm

    source, kept = open_source(data.source, store), KeptEmbeddings(store, base, task, code)
    labelled = {each.window.name for each in live.labelled}
    first = min(labelled, default=live.current.window.name)
    old = _rows([each for each in data.windows if each.window.name < first], source, kept, task)
    new = _rows(live.labelled, source, kept, task)
    threshold = f"a gain of over {policy.min_gain:.1%} is possible"
    groups = len(set(new.groups))
    if len(new) < policy.min_rows or groups < MIN_GROUPS or not len(old):
        there = f"{len(new):,} new and {len(old):,} old labelled rows have embeddings"
        needed = f"{policy.min_rows:,} new ones are needed, in {MIN_GROUPS} groups"
        return None, f"{there}, {needed} (there are {groups:,})", threshold
    found = gain(old, new, task)
    most = found.mean + float(norm.ppf(policy.confidence)) * found.error
    measured = (
        f"a head on frozen features gains {found.mean:+.1%} by the new rows, "
        f"at most {most:+.1%} ({found.rows:,} rows)"
    )
    return most > policy.min_gain, measured, threshold


def _rows(
    windows: list[WindowData], source: Source, kept: KeptEmbeddings, task: TaskConfig
) -> Rows:
    """Return the newest rows of windows that have a label and a kept embedding."""
    vectors: list[Vectors] = []
    frames: list[pd.DataFrame] = []
    wanted = MAX_ROWS
    for planned in reversed(windows):
        if wanted <= 0:
            break
        frame = source.read(planned.window).frame
        frame = frame[task.known(frame["label"]) & frame["text"].notna().to_numpy(bool)]
        place = np.sort(np.argsort(unit_interval(frame["id"], "probe"), kind="stable")[:wanted])
        frame = frame.iloc[place]
        there, found = kept.known(planned.kept_as, frame["text"].tolist())
        if len(found):
            frames.append(frame[there])
            vectors.append(found)
            wanted -= len(found)
    if not frames:
        return Rows(np.zeros((0, 0), np.float32), [], [])
    frame = pd.concat(frames)
    return Rows(np.concatenate(vectors), frame["label"].tolist(), frame["group"].tolist())
