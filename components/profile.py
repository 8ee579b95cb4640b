"""The profile: what a champion remembers of the window it was trained on.

Features of the texts and embeddings come from training rows; confidence and error
rate from validation rows, because a model is surer of rows that it has seen. Rows
rehearsed from earlier windows stay out: production is compared with the world as it
was last, not with a mixture of all worlds.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.errors import BundleError

SCHEMA_VERSION = 1
EMBEDDING = "embedding_"
"""The names of the features that are components of the embedding begin so."""

_PUNCTUATION = frozenset(string.punctuation)


@dataclass(frozen=True)
class Profile:
    """Sorted reference values of every feature, by name, and the validation error rate."""

    features: dict[str, NDArray[np.float64]]
    error_rate: float
    window: str

    def save(self, folder: Path) -> None:
        """Write ``profile.json`` and ``profile.safetensors``."""
        from safetensors.numpy import save_file

        description = {
            "schema_version": SCHEMA_VERSION,
            "error_rate": self.error_rate,
            "window": self.window,
        }
        (folder / "profile.json").write_text(json.dumps(description, sort_keys=True))
        save_file(
            {name: np.sort(values) for name, values in self.features.items()},
            folder / "profile.safetensors",
        )

    @classmethod
    def load(cls, folder: Path) -> Profile:
        """Read a profile.

        Raises:
            BundleError: there is none, or it has a newer schema.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            description = json.loads((folder / "profile.json").read_text())
            features = load_file(folder / "profile.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise BundleError(f"the bundle in {folder} has no readable profile") from error
        if description["schema_version"] > SCHEMA_VERSION:
            raise BundleError(f"the profile in {folder} needs a newer Tokiwa; upgrade to read it")
        return cls(features, description["error_rate"], description["window"])


def text_features(texts: Sequence[str], tokenizer: Any) -> dict[str, NDArray[np.float64]]:
    """Return what can be said of texts without a model, an array ``[n]`` per feature."""
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    unknown = tokenizer.unk_token_id
    columns: dict[str, list[float]] = {
        "characters": [len(text) for text in texts],
        "tokens": [len(row) for row in ids],
        "unknown_share": [_share(row.count(unknown), len(row)) for row in ids],
        "upper_share": [_share(sum(map(str.isupper, text)), len(text)) for text in texts],
        "digit_share": [_share(sum(map(str.isdigit, text)), len(text)) for text in texts],
        "punctuation_share": [
            _share(sum(character in _PUNCTUATION for character in text), len(text))
            for text in texts
        ],
    }
    return {name: np.array(values, dtype=np.float64) for name, values in columns.items()}


def embedding_features(vectors: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return one feature per component of the embeddings."""
    return {
        f"{EMBEDDING}{index:03d}": vectors[:, index].astype(np.float64)
        for index in range(vectors.shape[1])
    }


def as_frame(features: dict[str, NDArray[np.float64]]) -> pd.DataFrame:
    """Return features as one column each."""
    return pd.DataFrame(features)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
