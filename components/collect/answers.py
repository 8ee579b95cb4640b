"""A champion's answers to a window, computed once and kept.

This week's rows are looked at again next week, when their labels have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.store import ObjectMissing, Store
from components.tasks.model import Model


@dataclass(frozen=True)
class KeptAnswers:
    """Answers in the store, one object per bundle and window."""

    store: Store
    bundle: str
    model: Model

    def of(self, window_fingerprint: str, contents: Sequence[str]) -> NDArray[np.float64]:
        """Return the answers to a window's contents ``[n, answers]``.

        Args:
            window_fingerprint: stands for the contents, which must always be the same for it.
            contents: what to answer if no answers are kept.
        """
        from safetensors.numpy import load, save

        key = f"answers/{self.bundle}/{window_fingerprint}.safetensors"
        try:
            kept: NDArray[np.float64] = load(self.store.get(key))["answers"]
        except ObjectMissing:
            kept = self.model.predict(contents)
            self.store.put(key, save({"answers": kept}))
        return kept
