"""Where a head is kept between two looks, and which records it has seen.

One object for each step, created if it does not exist, as in the ledger: of two that follow at
the same time, one is told that it was too late, and no record is learnt twice. ::

    {prefix} / online / {champion} / {number}.safetensors

A step without weights is a new beginning: the head is the champion's again and has seen nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import LedgerError
from components.online.core import Progress
from components.online.head import Head
from components.store import Store


@dataclass(frozen=True)
class Step:
    """What is known after a look.

    Attributes:
        number: of the look, 0 before the first.
        head: as it has learnt so far.
        progress: how far it has come.
        seen: digests of the records that were answered, sorted ``[m]``.
        published: bundle of the head that serves; empty while the champion does.
        published_rows: ``Progress.rows`` when it was published.
    """

    number: int
    head: Head
    progress: Progress
    seen: NDArray[np.uint64]
    published: str = ""
    published_rows: int = 0


class KeptHead:
    """The head over one champion."""

    def __init__(self, store: Store, prefix: str, champion: str) -> None:
        """Name the place; nothing is written yet."""
        self._store = store
        self._folder = f"{prefix}/online/{champion}" if prefix else f"online/{champion}"

    def last(self, champion: Head) -> Step:
        """Return the last step; before any, the head as the champion has it.

        Raises:
            LedgerError: it cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        names = [key for key in self._store.list(f"{self._folder}/") if key.endswith(_SUFFIX)]
        first = Head.copy_of(champion.weights, champion.bias)
        if not names:
            return Step(0, first, Progress(), np.zeros(0, np.uint64))
        try:
            tensors = load(self._store.get(max(names)))
            said = json.loads(tensors["said"].tobytes())
            head = Head(tensors["weights"], tensors["bias"])
            return Step(
                number=int(said["number"]),
                head=head if head.weights.size else first,
                progress=Progress.model_validate(said["progress"]),
                seen=tensors["seen"],
                published=said["published"],
                published_rows=int(said["published_rows"]),
            )
        except (SafetensorError, KeyError, ValueError) as error:
            place = self._store.uri(max(names))
            raise LedgerError(f"the online head {place} cannot be read: {error}") from error

    def seen(self) -> NDArray[np.uint64]:
        """Return the digests of the records that the head has seen, sorted ``[m]``.

        Raises:
            LedgerError: they cannot be read.
        """
        return self.last(_NO_HEAD).seen

    def begin_anew(self) -> None:
        """Let the next look begin as the champion, and learn all records again.

        Raises:
            LedgerError: the last step cannot be read.
        """
        while True:  # each turn without an answer means that somebody else has followed
            number = self.last(_NO_HEAD).number + 1
            nothing = np.zeros(0, np.uint64)
            if self.keep(Step(number, _NO_HEAD, Progress(), nothing, published_rows=_LONG_AGO)):
                return

    def keep(self, step: Step) -> bool:
        """Keep a step; False if somebody else has kept one of its number."""
        from safetensors.numpy import save

        said = {
            "number": step.number,
            "progress": step.progress.model_dump(mode="json"),
            "published": step.published,
            "published_rows": step.published_rows,
        }
        tensors: dict[str, NDArray[Any]] = {
            "weights": np.ascontiguousarray(step.head.weights),
            "bias": np.ascontiguousarray(step.head.bias),
            "seen": step.seen,
            "said": np.frombuffer(json.dumps(said).encode(), np.uint8),
        }
        key = f"{self._folder}/{step.number:08d}{_SUFFIX}"
        return self._store.create_if_absent(key, save(tensors))


_SUFFIX = ".safetensors"
_NO_HEAD = Head(np.zeros((0, 0)), np.zeros(0))
_LONG_AGO = -(10**12)
"""Records ago: a head that serves is due to be published anew."""


def digests_of(ids: Sequence[str], labels: Sequence[str]) -> NDArray[np.uint64]:
    """Return what names each record ``[n]``: its id and the label that it came with."""
    return np.array(
        [
            int.from_bytes(hashlib.sha256(f"{row}\0{label}".encode()).digest()[:8])
            for row, label in zip(ids, labels, strict=True)
        ],
        dtype=np.uint64,
    )
