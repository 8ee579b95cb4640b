"""Embeddings of rows by the pretrained encoder, computed once per row and kept.

Probe, profile and drift all look at the same vectors. They do not depend on any
champion, so that a promotion does not make last week's rows incomparable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.plan import Base
from components.store import ObjectMissing, Store

Vectors = NDArray[np.float32]


def embed(
    texts: Sequence[str],
    base: Path,
    max_tokens: int,
    on_batch: Callable[[int], None] | None = None,
) -> Vectors:
    """Return the mean-pooled vectors of texts, ``float32 [n, d]``, each of length one."""
    import torch

    from components.tasks.networks import mean_pool
    from components.tasks.text_classification import (
        encode,
        length_sorted,
        load_encoder,
        usable_tokens,
    )

    encoder, tokenizer = load_encoder(base)
    out = np.zeros((len(texts), encoder.config.hidden_size), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        limit = usable_tokens(encoder.config, max_tokens)
        for rows, ids, mask in length_sorted(encode(tokenizer, texts, limit)):
            tokens = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            out[rows] = torch.nn.functional.normalize(mean_pool(tokens, mask), dim=-1).numpy()
            done += len(rows)
            if on_batch:
                on_batch(done)
    return out


class KeptEmbeddings:
    """Embeddings in the store, one object per encoder and window."""

    def __init__(self, store: Store, base: Base, max_tokens: int, code: str) -> None:
        """Keep the vectors of a base model, as one version of the code computes them."""
        self._store = store
        self._base = base
        self._max_tokens = max_tokens
        self._at = f"embeddings/{code}-{base.digest[:32]}-{max_tokens}"

    def vectors(
        self,
        window_fingerprint: str,
        texts: Sequence[str],
        progress: Callable[[int, int, str], None],
    ) -> Vectors:
        """Return the vectors of a window's texts, computing only the ones not kept.

        Args:
            window_fingerprint: names the object in which they are kept.
            texts: the rows; ``collect`` sees them all, ``prepare`` those that passed.
            progress: told how many are computed, out of how many.
        """
        from safetensors.numpy import load, save

        key = f"{self._at}/{window_fingerprint}.safetensors"
        digests = [
            hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in texts
        ]
        try:
            kept = load(self._store.get(key))
            known = {bytes(row).hex(): index for index, row in enumerate(kept["digests"])}
        except ObjectMissing:
            kept, known = {}, {}
        missing = [index for index, digest in enumerate(digests) if digest not in known]
        if kept and not missing:
            return _rows(kept["vectors"], [known[digest] for digest in digests])
        computed = embed(
            [texts[index] for index in missing],
            self._base.locate(),
            self._max_tokens,
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


def _rows(vectors: Vectors, indices: Sequence[int]) -> Vectors:
    return np.ascontiguousarray(vectors[np.asarray(indices, dtype=np.int64)])
