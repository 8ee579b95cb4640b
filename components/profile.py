"""The profile: what a champion remembers of the window it was trained on.

Features of the texts and embeddings come from training rows; confidence and error
rate from validation rows, because a model is surer of rows that it has seen. Rows
rehearsed from earlier windows stay out: production is compared with the world as it
was last, not with a mixture of all worlds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.errors import BundleError

SCHEMA_VERSION = 1
EMBEDDING = "embedding_"
"""The names of the features that are components of the embedding begin so."""


@dataclass(frozen=True)
class Profile:
    """What a champion remembers.

    Attributes:
        features: sorted reference values of every feature, by name.
        error_rate: mean error on the validation rows.
        error_rows: how many rows that mean is of.
        window: name of the window.
    """

    features: dict[str, NDArray[np.float64]]
    error_rate: float
    error_rows: int
    window: str

    def save(self, folder: Path) -> None:
        """Write ``profile.json`` and ``profile.safetensors``."""
        from safetensors.numpy import save_file

        description = {
            "schema_version": SCHEMA_VERSION,
            "error_rate": self.error_rate,
            "error_rows": self.error_rows,
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
        return cls(
            features,
            description["error_rate"],
            description["error_rows"],
            description["window"],
        )


def embedding_features(vectors: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return one feature per component of the embeddings."""
    return {
        f"{EMBEDDING}{index:03d}": vectors[:, index].astype(np.float64)
        for index in range(vectors.shape[1])
    }


def as_frame(features: dict[str, NDArray[np.float64]]) -> pd.DataFrame:
    """Return features as one column each."""
    return pd.DataFrame(features)
