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

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from components.errors import SourceError
from components.settings import Section, digest_of
from components.sources.rows import fingerprint
from components.split import TEST_SHARE, is_test, unit_interval
from components.tasks import TaskConfig

ROWS = "rows.parquet"
VECTORS = "embeddings.safetensors"


class PrepareConfig(Section):
    """Section ``prepare``."""

    valid_share: float = Field(default=0.2, gt=0, lt=0.7)
    """Share of the current window; the test share is always 0.2, see ``split``."""
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

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return ", ".join(f"{count:,} {split}" for split, count in self.rows_by_split.items())


def prepare(
    good: Path,
    window: str,
    window_end: str,
    folder: Path,
    task: TaskConfig,
    config: PrepareConfig,
    vectors_of: Callable[[Sequence[str]], NDArray[np.float32]],
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
    frame.to_parquet(folder / ROWS, index=False)
    vectors = vectors_of(current["text"].tolist())
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
    )


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

    Everything is decided by hashes of groups and ids, so that one more row moves no
    other row.
    """
    test = is_test(frame["group"])
    current = (frame["window"] == window).to_numpy()
    valid = unit_interval(frame["group"], "valid") < config.valid_share / (1 - TEST_SHARE)
    split = np.full(len(frame), "", dtype=object)
    split[current] = "train"
    split[current & valid] = "valid"
    split[current & test] = "test"
    wanted = round(config.rehearsal_share * int((split == "train").sum()))
    place = unit_interval(frame["id"], "sample")
    split[_lowest(place, ~current & ~test & ~valid, wanted)] = "rehearsal"
    split[_lowest(place, ~current & test, config.guard_rows)] = "guard"
    return split


def _lowest(place: NDArray[np.float64], among: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Return the positions of the ``count`` lowest places among some rows."""
    positions = np.flatnonzero(among)
    return positions[np.argsort(place[positions], kind="stable")[:count]]
