"""A champion's answers to a window, computed once and kept.

This week's rows are looked at again next week, when their labels have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.store import ObjectMissing, Store
from components.tasks.text_classification import TextClassifier


@dataclass(frozen=True)
class KeptAnswers:
    """Class probabilities in the store, one object per bundle and window."""

    store: Store
    bundle: str
    classifier: TextClassifier

    def probabilities(self, window_fingerprint: str, texts: Sequence[str]) -> NDArray[np.float64]:
        """Return the probabilities for a window's texts ``[n, k]``.

        Args:
            window_fingerprint: stands for the texts, which must always be the same for it.
            texts: what to answer if no answers are kept.
        """
        from safetensors.numpy import load, save

        key = f"answers/{self.bundle}/{window_fingerprint}.safetensors"
        try:
            kept: NDArray[np.float64] = load(self.store.get(key))["probabilities"]
        except ObjectMissing:
            kept = self.classifier.predict(texts)
            self.store.put(key, save({"probabilities": kept}))
        return kept
