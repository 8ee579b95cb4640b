"""Infrastructure validation, and the one atomic act of a promotion.

The exact bundle is loaded by the code that will serve it and must give the answers
that were evaluated. Nothing is pushed to a server: servers follow the ledger.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from components import bundle
from components.errors import BundleError
from components.ledger import Ledger
from components.registry import Registry
from components.serve.model import MAX_CHARACTERS, MAX_TEXTS, BundleModel
from components.settings import Section
from components.store import Store


class DeployConfig(Section):
    """Section ``deploy``."""

    parity_rows: int = Field(default=64, ge=1, le=MAX_TEXTS)
    """So many evaluated rows are answered again by the serving code."""
    parity_tolerance: float = Field(default=1e-3, gt=0, lt=1)
    """Probabilities may differ by so much; other batches round differently."""
    mirror_alias: bool = True
    """Whether MLflow's alias ``champion`` follows; a replay turns it off, because its
    ledger is not the project's."""


class DeployReport(Section):
    """The promotion."""

    schema_version: int = 1
    number: int
    """The new ledger entry: the generation that is served from now on."""
    version: str
    parity_rows: int
    max_difference: float

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return f"version {self.version} serves as generation {self.number}"


def deploy(
    digest: str,
    predictions: Path,
    *,
    version: str,
    generation: int,
    run: str,
    reason: str,
    action: Literal["promote", "publish", "adopt"] = "promote",
    store: Store,
    ledger: Ledger,
    registry: Registry,
    config: DeployConfig,
) -> DeployReport:
    """Check a published bundle and append it to the ledger.

    Args:
        digest: the bundle in the store.
        predictions: folder with the ``predictions.parquet`` of its evaluation.
        version: its version in MLflow.
        generation: the ledger's length when the run began.
        run: id of this run; with the digest it makes a retry the same act.
        reason: one sentence for the ledger.
        action: what the ledger should say.
        store: where the bundle is published.
        ledger: the project's, or a replay's.
        registry: MLflow, whose alias mirrors the ledger.
        config: the section ``deploy``.

    Raises:
        BundleError: it does not load, or answers otherwise than when it was evaluated.
        StalePromotion: the champion moved since the run began.
    """
    rows, difference = parity(digest, predictions, store, config)
    entry = ledger.append(
        action=action,
        bundle=digest,
        version=version,
        key=f"{run}/{digest}",
        by=f"run {run}",
        reason=reason,
        expected=generation,
    )
    if config.mirror_alias:
        # Not always this version: a retry may come after somebody else's promotion.
        registry.mirror((ledger.head() or entry).version)
    return DeployReport(
        number=entry.number, version=version, parity_rows=rows, max_difference=difference
    )


def parity(
    digest: str, predictions: Path, store: Store, config: DeployConfig
) -> tuple[int, float]:
    """Return how many rows were answered again, and the largest difference.

    Raises:
        BundleError: an answer or a probability is not what was evaluated.
    """
    model = BundleModel.load(store, digest)
    frame = pd.read_parquet(predictions / "predictions.parquet")
    frame = frame[frame["text"].str.len() <= MAX_CHARACTERS].head(config.parity_rows)
    answers = model.predict(frame["text"].tolist())
    got = np.array([[answer.probabilities[label] for label in model.labels] for answer in answers])
    expected = frame[[f"probability_{label}" for label in model.labels]].to_numpy(np.float64)
    difference = float(np.abs(got - expected).max())
    if not difference <= config.parity_tolerance:
        raise BundleError(
            f"bundle {digest[:12]} answers differently in the server than when it was evaluated: "
            f"probabilities differ by up to {difference:.4f}"
        )
    return len(frame), difference
