"""Embeddings of rows by the pretrained network, computed once per row and kept.

Probe, profile and drift all look at the same vectors. They do not depend on any
champion, so that a promotion does not make last week's rows incomparable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.plan import Base
from components.store import ObjectMissing, Store
from components.tasks import TASKS, TaskConfig
from components.tasks.model import length_order

Vectors = NDArray[np.float32]
BATCH_ROWS = 64


def embed(
    contents: Sequence[str],
    base: Path,
    task: TaskConfig,
    on_batch: Callable[[int], None] | None = None,
) -> Vectors:
    """Return what a new head on the base would read, ``float32 [n, d]``, each of length one."""
    import torch

    model = TASKS[task.kind].from_base(base, task, dropout=0.0)
    network: Any = model.network.eval()
    examples = model.encode(contents)
    order = length_order(examples)
    out = np.zeros((len(examples), network.head.in_features), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH_ROWS):
            rows = order[start : start + BATCH_ROWS]
            inputs = model.collate([examples[row] for row in rows])
            features = torch.stack(network.states(network.depth, *inputs))
            out[rows] = torch.nn.functional.normalize(features, dim=-1).numpy()
            if on_batch:
                on_batch(start + len(rows))
    return out


class KeptEmbeddings:
    """Embeddings in the store, one object per base and window."""

    def __init__(self, store: Store, base: Base, task: TaskConfig, code: str) -> None:
        """Keep the vectors of a base model, as one version of the code computes them."""
        self._store = store
        self._base = base
        self._task = task
        reading = f"-{task.reading}" if task.reading else ""
        self._at = f"embeddings/{code}-{base.digest[:32]}-{task.input_size}{reading}"

    def vectors(
        self,
        window_fingerprint: str,
        contents: Sequence[str],
        progress: Callable[[int, int, str], None],
    ) -> Vectors:
        """Return the vectors of a window's contents, computing only the ones not kept.

        Args:
            window_fingerprint: names the object in which they are kept.
            contents: of the rows; ``collect`` sees them all, ``prepare`` those that passed.
            progress: told how many are computed, out of how many.
        """
        from safetensors.numpy import save

        key = f"{self._at}/{window_fingerprint}.safetensors"
        digests = _digests(contents)
        kept, known = self._kept(key)
        missing = [index for index, digest in enumerate(digests) if digest not in known]
        if kept and not missing:
            return _rows(kept["vectors"], [known[digest] for digest in digests])
        computed = embed(
            [contents[index] for index in missing],
            self._base.locate(),
            self._task,
            lambda done: progress(done, len(missing), "rows embedded"),
        )
        names = np.array([list(bytes.fromhex(digests[i])) for i in missing], dtype=np.uint8)
        names = names.reshape(-1, 32)  # also without any
        if kept:
            computed = np.concatenate([kept["vectors"], computed])
            names = np.concatenate([kept["digests"], names])
        self._store.put(key, save({"digests": names, "vectors": computed}))
        known = {bytes(row).hex(): index for index, row in enumerate(names)}
        return _rows(computed, [known[digest] for digest in digests])

    def known(
        self, window_fingerprint: str, contents: Sequence[str]
    ) -> tuple[NDArray[np.bool_], Vectors]:
        """Return which contents have kept vectors, and those, ``[n]`` and ``[known, d]``."""
        kept, known = self._kept(f"{self._at}/{window_fingerprint}.safetensors")
        digests = _digests(contents)
        there = np.array([digest in known for digest in digests], dtype=np.bool_)
        if not there.any():
            return there, np.zeros((0, 0), dtype=np.float32)
        return there, _rows(kept["vectors"], [known[each] for each in digests if each in known])

    def _kept(self, key: str) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
        """Return what is kept of a window, and the place of each content by its digest."""
        from safetensors.numpy import load

        try:
            kept = load(self._store.get(key))
        except ObjectMissing:
            return {}, {}
        return kept, {bytes(row).hex(): index for index, row in enumerate(kept["digests"])}


def _digests(contents: Sequence[str]) -> list[str]:
    return [hashlib.sha256(each.encode("utf-8", "surrogatepass")).hexdigest() for each in contents]


def _rows(vectors: Vectors, indices: Sequence[int]) -> Vectors:
    return np.ascontiguousarray(vectors[np.asarray(indices, dtype=np.int64)])
