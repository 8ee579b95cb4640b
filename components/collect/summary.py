"""What is kept of a window of any size: a sample of its rows, which parts of it share in making.

The sample is of contents: those with the smallest digests, each by the first row that has it.
Whatever parts a window is cut into, the smallest of their smallest digests are those of the
whole, so that summaries merge without a trace: to the same sample, to the last bit. It is
uniform over the different contents, as the champion's profile is, which was made of rows
without duplicates.

References:
    Bar-Yossef et al. (2002), Counting distinct elements in a data stream (k minimum values);
    Agarwal et al. (2012), Mergeable summaries.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from components.declared_columns import numbers_in, watched_kinds, watched_numbers
from components.sources.mapping import ORDER
from components.sources.rows import Metadata
from components.split import content_digest
from components.store import Store
from components.tasks import TaskConfig
from components.tasks.model import Features

DIGEST = "_digest"
ROWS = b"tokiwa.rows"
OWN = (*ORDER, DIGEST, "group", "text", "label")
"""Columns of a summary that are no features."""
_NEVER = "~"
"""Comes after every digest."""


class Describer(Protocol):
    """Says of contents what takes no network: a model's half that looks at inputs."""

    def input_features(self, contents: Sequence[str]) -> Features:
        """Return numbers, an array ``[n]`` per name."""

    def input_categories(self, contents: Sequence[str]) -> dict[str, list[str]]:
        """Return kinds, a list ``[n]`` per name."""


@dataclass(frozen=True)
class Size:
    """How much of a window is kept.

    Attributes:
        rows: of which the contents are kept, too.
        described: of which the features are; no fewer.
    """

    rows: int
    described: int


@dataclass(frozen=True)
class Summary:
    """A window, or a part of one, in little.

    Attributes:
        frame: the columns ``OWN`` and a column per feature, by digest; ``text`` is None where
            only the features are kept.
        rows: how many rows there are altogether.
    """

    frame: pd.DataFrame
    rows: int

    @classmethod
    def of(
        cls,
        batches: Iterable[Any],
        task: TaskConfig,
        metadata: Metadata,
        model: Describer | None,
        size: Size,
    ) -> Self:
        """Return the summary of rows that come a few at a time, in any order.

        Args:
            batches: Arrow tables, see ``TableSource.batches``.
            task: says what can be read.
            metadata: the declared columns, which are features as well.
            model: says more of contents; without one, only the declared columns are features.
            size: of the summary.
        """
        rows, last, last_text = 0, _NEVER, _NEVER
        waiting = [_described(_no_rows(metadata), metadata, model)]
        for batch in batches:
            rows += batch.num_rows
            near = _up_to(last, batch)
            near = near[task.readable(near["text"])]
            if len(near) > size.described:
                near = _smallest([near], size.described)
            near = _described(near, metadata, model)
            near.loc[near[DIGEST] > last_text, "text"] = None
            waiting.append(near)
            texts = sum(int(each["text"].count()) for each in waiting)
            if sum(map(len, waiting)) > 2 * size.described or texts > 2 * size.rows:
                waiting = [_cut_down(waiting, size)]
                last = _last_of(waiting[0], size.described)
                last_text = _last_of(waiting[0], size.rows)
        return cls(_cut_down(waiting, size), rows)

    def merged(self, other: Summary, size: Size) -> Summary:
        """Return the summary of the rows of both."""
        return Summary(_cut_down([self.frame, other.frame], size), self.rows + other.rows)

    def sample(self, rows: int) -> pd.DataFrame:
        """Return so many rows with their contents, in the order of a window's rows."""
        frame = self.frame.head(rows)
        return frame.sort_values(list(ORDER), kind="stable").reset_index(drop=True)

    def save(self, store: Store, key: str) -> None:
        """Put the summary into a store as a Parquet file."""
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self.frame, preserve_index=False)
        known = {**(table.schema.metadata or {}), ROWS: str(self.rows).encode()}
        file = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(known), file)
        store.put(key, file.getvalue())

    @classmethod
    def load(cls, store: Store, key: str) -> Self:
        """Read a summary from a store.

        Raises:
            ObjectMissing: it is not there.
        """
        import pyarrow.parquet as pq

        table = pq.read_table(io.BytesIO(store.get(key)))
        return cls(table.to_pandas(), int(table.schema.metadata[ROWS]))


def _no_rows(metadata: Metadata) -> pd.DataFrame:
    frame = pd.DataFrame({name: pd.Series([], dtype=object) for name in (*OWN, *metadata)})
    return frame.astype({ORDER[0]: "datetime64[us, UTC]", ORDER[-1]: np.int64})


def _last_of(frame: pd.DataFrame, count: int) -> str:
    """Return the digest that none of the smallest so many can exceed."""
    return str(frame[DIGEST].iloc[count - 1]) if len(frame) >= count else _NEVER


def _up_to(last: str, batch: Any) -> pd.DataFrame:
    """Return the rows of a batch that have a content, and one whose digest is small enough."""
    digests = np.array(
        [_NEVER if text is None else content_digest(text) for text in batch["text"].to_pylist()],
        dtype=object,
    )
    near = ((digests <= last) & (digests != _NEVER)).astype(bool)
    return batch.filter(pa.array(near)).to_pandas().assign(**{DIGEST: digests[near]})


def _described(rows: pd.DataFrame, metadata: Metadata, model: Describer | None) -> pd.DataFrame:
    """Return rows with their features."""
    rows = rows.reset_index(drop=True)
    for name, each in metadata.items():
        if each.kind == "number":
            rows[name] = numbers_in(rows[name])
    contents = rows["text"].tolist()
    features = {
        **(model.input_categories(contents) if model else {}),
        **(model.input_features(contents) if model else {}),
        **watched_kinds(rows, metadata),
        **watched_numbers(rows, metadata),
    }
    return pd.concat([rows[list(OWN)], pd.DataFrame(features, index=rows.index)], axis=1)


def _cut_down(frames: Sequence[pd.DataFrame], size: Size) -> pd.DataFrame:
    """Return what a summary keeps of rows, by digest."""
    frame = _smallest(frames, size.described)
    # The other contents are no longer needed: a digest that was overtaken never comes back.
    frame.loc[size.rows :, "text"] = None
    return frame


def _smallest(frames: Sequence[pd.DataFrame], count: int) -> pd.DataFrame:
    """Return the first row of each of the smallest digests, by digest."""
    there = [frame for frame in frames if len(frame)] or [*frames[:1]]
    frame = pd.concat(there, ignore_index=True) if len(there) > 1 else there[0]
    frame = frame.sort_values([DIGEST, *ORDER], kind="stable")
    return frame.drop_duplicates(DIGEST).head(count).reset_index(drop=True)
