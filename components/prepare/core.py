"""Split good rows, mix in earlier ones, and embed the current window.

========= ============== ==============================================================
split     window         use
========= ============== ==============================================================
train     current        to learn from
rehearsal earlier        a sample of earlier training rows, so that they are not unlearned
valid     current        early stopping, thresholds, the profile's answers
test      current        the gate's primary set
guard     earlier        pooled earlier test rows: what must not get worse
========= ============== ==============================================================
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from components.errors import SourceError
from components.prepare.label_errors import likely_label_errors, out_of_fold, table_vectors
from components.profile import group_numbers
from components.quarantine import REASONS, keys_of
from components.settings import Section, digest_of
from components.sources.rows import fingerprint
from components.split import TEST_SHARE, is_test, unit_interval
from components.tasks import TaskConfig
from components.tasks.tabular_classification import TabularClassification

ROWS = "rows.parquet"
VECTORS = "embeddings.safetensors"
SUSPECTED = "likely-label-error"


class PrepareConfig(Section):
    """Section ``prepare``."""

    valid_share: float = Field(default=0.2, gt=0, lt=0.7)
    """Share of the current window; the test share is always 0.2, see ``split``."""
    valid_split: Literal["hash", "stratified", "time"] = "hash"
    """Which groups of a window validate: by a hash, so many of each label, or the last ones in
    time. Groups stay whole, and the test set stays what it is."""
    label_errors: Literal["off", "warn", "quarantine"] = "off"
    """Whether likely label errors among the training rows are looked for, and what becomes of
    them: they are counted and listed, or put into quarantine and not learnt from."""
    rehearsal_share: float = Field(default=0.5, ge=0, le=10)
    """Earlier training rows to mix in, as a share of the current window's."""
    guard_rows: int = Field(default=1000, ge=0)
    """At most so many earlier test rows guard a promotion."""


class PrepareReport(Section):
    """Rows by split."""

    schema_version: int = 1
    digest: str
    window: str
    window_end: str
    rows_by_split: dict[str, int]
    labels_by_split: dict[str, dict[str, int]]
    suspected: list[str] = []
    """Ids of training rows whose label is likely wrong, the likeliest first."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        said = ", ".join(f"{count:,} {split}" for split, count in self.rows_by_split.items())
        wrong = f"; {len(self.suspected):,} labels are likely wrong" if self.suspected else ""
        return f"{said}{wrong}"


def prepare(
    good: Path,
    window: str,
    window_end: str,
    folder: Path,
    task: TaskConfig,
    config: PrepareConfig,
    vectors_of: Callable[[Sequence[str]], NDArray[np.float32]],
    *,
    confirmed: Container[str] = (),
    keep: Callable[[pd.DataFrame], None] = lambda rows: None,
) -> PrepareReport:
    """Write ``rows.parquet`` with a column ``split``, and the current window's embeddings.

    Args:
        good: folder with the validated rows.
        window: name of the current window; ``window_end`` is its end, ISO 8601.
        window_end: kept with the champion, to know which later labels are new to it.
        folder: where to write. ``embeddings.safetensors`` holds ``vectors [n, d]``
            for the current window's rows, in the order of ``rows.parquet``.
        task: says what cannot be learnt from.
        config: the section ``prepare``.
        vectors_of: embeds contents with the base model.
        confirmed: keys of rows that a person took in again, whatever label they have.
        keep: takes rows that go into quarantine.

    Raises:
        SourceError: the groups fell so that a split is empty, or train has one class.
    """
    from safetensors.numpy import save_file

    frame = pd.read_parquet(good / ROWS)
    frame["split"] = assign(frame, window, config)
    frame = frame[frame["split"] != ""]
    current = frame[frame["window"] == window]
    _require_all_splits(current, window, task)
    frame = pd.concat([current, frame[frame["window"] != window]], ignore_index=True)
    folder.mkdir(parents=True, exist_ok=True)
    vectors = vectors_of(current["text"].tolist())
    suspects: list[int] = []
    if config.label_errors != "off" and task.label_names:
        seen = vectors
        if isinstance(task, TabularClassification):
            seen = table_vectors(current["text"].tolist(), task.columns)
        suspects = _suspects(current, seen, confirmed)
    suspected = current["id"].iloc[suspects].tolist()
    if config.label_errors == "quarantine" and suspects:
        keep(current.iloc[suspects].drop(columns="split").assign(**{REASONS: SUSPECTED}))
        stays = np.delete(np.arange(len(current)), suspects)
        vectors = np.ascontiguousarray(vectors[stays])
        frame = frame.drop(index=suspects).reset_index(drop=True)
        current = frame.iloc[: len(vectors)]
        _require_all_splits(current, window, task)
    frame.to_parquet(folder / ROWS, index=False)
    save_file({"vectors": vectors}, folder / VECTORS)
    labels = {
        split: frame["label"][frame["split"] == split]
        for split in ("train", "rehearsal", "valid", "test", "guard")
        if (frame["split"] == split).any()
    }
    return PrepareReport(
        digest=digest_of([fingerprint(frame, list(frame)), len(vectors)]),
        window=window,
        window_end=window_end,
        rows_by_split={split: len(each) for split, each in labels.items()},
        labels_by_split={split: task.label_counts(each) for split, each in labels.items()},
        suspected=suspected,
    )


def _suspects(
    current: pd.DataFrame, vectors: NDArray[np.float32], confirmed: Container[str]
) -> list[int]:
    """Return the places of training rows of the current window whose label is likely wrong.

    Validation and test rows are left alone: what is easy to predict must not be made the
    measure.
    """
    train = np.flatnonzero(current["split"] == "train")
    rows = current.iloc[train]
    _, targets = np.unique(rows["label"].to_numpy(str), return_inverse=True)
    groups = group_numbers(rows["group"])
    if targets.max() == 0 or groups.max() == 0:
        return []
    answers = out_of_fold(vectors[train], targets, groups)
    keys = keys_of(rows)
    found = likely_label_errors(answers, targets)
    return [int(train[place]) for place in found if keys[place] not in confirmed]


def _require_all_splits(current: pd.DataFrame, window: str, task: TaskConfig) -> None:
    lacking = {
        split: "" if (current["split"] == split).any() else "has no rows"
        for split in ("train", "valid", "test")
    }
    learnt = current["label"][current["split"] == "train"]
    lacking["train"] = lacking["train"] or task.lacking(learnt, 1)
    for split, what in lacking.items():
        if what:
            raise SourceError(
                f"window {window} cannot be split: {split} {what}; "
                "it needs more groups, see source.columns.group"
            )


def assign(frame: pd.DataFrame, window: str, config: PrepareConfig) -> NDArray[np.object_]:
    """Return each row's split, empty for rows that this run does not use.

    The test set, and with ``valid_split`` ``hash`` everything else, is decided by hashes of
    groups and ids, so that one more row moves no other row.

    Raises:
        SourceError: rows are to be split by time, and carry none.
    """
    test = is_test(frame["group"])
    current = (frame["window"] == window).to_numpy()
    valid = _valid(frame, test, config)
    split = np.full(len(frame), "", dtype=object)
    split[current] = "train"
    split[current & valid] = "valid"
    split[current & test] = "test"
    wanted = round(config.rehearsal_share * int((split == "train").sum()))
    place = unit_interval(frame["id"], "sample")
    split[_lowest(place, ~current & ~test & ~valid, wanted)] = "rehearsal"
    split[_lowest(place, ~current & test, config.guard_rows)] = "guard"
    return split


def _valid(
    frame: pd.DataFrame, test: NDArray[np.bool_], config: PrepareConfig
) -> NDArray[np.bool_]:
    """Return which rows validate in the run of their own window ``[n]``; test rows may be any."""
    share = config.valid_share / (1 - TEST_SHARE)
    place = unit_interval(frame["group"], "valid")
    if config.valid_split == "hash":
        return place < share
    if config.valid_split == "time" and len(frame) and frame["time"].isna().all():
        raise SourceError(
            "prepare.valid_split time needs times: set source.columns.time, or split by hash"
        )
    found = np.zeros(len(frame), dtype=bool)
    rest = frame[["window", "group"]].assign(place=place, row=np.arange(len(frame)))
    if config.valid_split == "time":
        moments = pd.to_datetime(frame["time"], utc=True, format="ISO8601", errors="coerce")
        # The last come first; a group happened when its last row did.
        rest["order"] = -(moments.astype("int64").to_numpy() / 1e9)
        parts = ["window"]
    else:
        rest["order"], rest["label"] = place, frame["label"].to_numpy(object)
        first = rest.groupby(["window", "group"])["label"].transform(
            lambda each: each.mode().iloc[0]
        )
        rest["label"] = first
        parts = ["window", "label"]
    for _, part in rest[~test].groupby(parts):
        groups = part.groupby("group").agg(order=("order", "min"), place=("place", "first"))
        sizes = part["group"].value_counts()
        groups = groups.sort_values(["order", "place"], kind="stable")
        # So many groups that their rows come as near to the share as they can.
        before = sizes[groups.index].cumsum() - sizes[groups.index] / 2
        chosen = groups.index[(before <= share * len(part)).to_numpy()]
        found[part["row"][part["group"].isin(chosen)]] = True
    return found


def _lowest(place: NDArray[np.float64], among: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Return the positions of the ``count`` lowest places among some rows."""
    positions = np.flatnonzero(among)
    return positions[np.argsort(place[positions], kind="stable")[:count]]
