"""Infrastructure validation, and the one atomic act of a promotion.

The exact bundle is loaded by the code that will serve it and must give the answers
that were evaluated. Nothing is pushed to a server: servers follow the ledger.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from components import bundle, signature
from components.deploy.budget import Cost, cost_of
from components.deploy.config import DeployConfig
from components.deploy.targets import TARGETS, Site
from components.errors import BundleError, StalePromotion, WorldError
from components.freeze import Freezes
from components.ledger import Ledger
from components.registry import Registry
from components.request_log import RequestLog
from components.rollout.record import Rollouts
from components.serve.model import BundleModel
from components.settings import Section, digest_of
from components.store import ObjectMissing, Store

RECORDED = timedelta(days=7)
"""Requests of so long are replayed, the last of them."""


class Parity(Section):
    """How far the server's answers are from the evaluated ones."""

    schema_version: int = 1
    rows: int
    """Evaluated rows that were answered again."""
    max_difference: float
    """Largest difference of an answer, as a share of the range of answers."""
    cost: Cost | None = None
    """Of answering them in a process of its own; None without a budget."""


class DeployReport(Section):
    """The promotion."""

    schema_version: int = 1
    number: int
    """The new ledger entry: the generation that is served from now on; 0 if there is none."""
    version: str
    waits: bool = False
    """A person has to promote it."""
    frozen: str = ""
    """Who froze the project, in words: then it waits for a thaw, too."""
    rollout: str = ""
    """Where its rollout stands, such as ``shadow 100%`` or ``rolled back``; empty without."""
    why: str = ""
    """Why the rollout stands there."""
    parity: Parity
    alias_error: str
    """Why MLflow's alias could not follow, empty when it did."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        if self.waits:
            return f"version {self.version} is proved, and waits for a person to promote it"
        if self.rollout and not self.number:
            return f"version {self.version} is in rollout: {self.rollout}, {self.why}"
        return f"version {self.version} serves as generation {self.number}"


def deploy(
    digest: str,
    predictions: Path,
    *,
    version: str,
    generation: int,
    code: str,
    key: str,
    by: str,
    reason: str,
    project: str,
    store: Store,
    ledger: Ledger,
    freezes: Freezes,
    rollouts: Rollouts,
    requests: RequestLog,
    registry: Registry,
    config: DeployConfig,
    by_hand: bool = False,
    forgotten: str = "",
) -> DeployReport:
    """Check a published bundle and append it to the ledger, unless a person has to.

    Where the project has a rollout and a champion is served, the challenger has to prove
    itself beside it first. Otherwise it is promoted at once.

    Args:
        digest: the bundle in the store.
        predictions: folder with the ``predictions.parquet`` of its evaluation.
        version: its version in MLflow.
        generation: the ledger's length when the run began.
        code: version of the code that proves the bundle.
        key: makes a retry the same act.
        by: who promotes: a run or a person.
        reason: one sentence for the ledger.
        project: its name.
        store: where the bundle is published.
        ledger: the project's, or a replay's.
        freezes: of the same ledger; while it is frozen, nothing is promoted.
        rollouts: the record beside the ledger.
        requests: what servers were asked, for the budgets.
        registry: MLflow, whose alias mirrors the ledger.
        config: the section ``deploy``.
        by_hand: a person promotes, at once: that is the approval.
        forgotten: why it must not serve unless a person insists, see ``forgotten_since``.

    Raises:
        BackendError: the place where it is to be served cannot be reached.
        BundleError: it is not signed by a trusted key, does not load, or answers otherwise
            than when it was evaluated.
        Frozen: a person promotes a model of a frozen project.
        StalePromotion: the champion moved since the run began, or rows were forgotten.
    """
    if forgotten and all(entry.key != key for entry in ledger.entries()):
        raise StalePromotion(
            f"version {version} is not promoted: {forgotten}; run again, which leaves them out"
        )
    checked = proof(digest, predictions, code, store, config)
    checked = checked.model_copy(
        update={"cost": _cost(digest, predictions, store, requests, config)}
    )
    if by_hand:
        freezes.refuse("a promotion")
    else:
        held = freezes.state()
        if held is not None or config.approval == "required":
            frozen = held.words if held else ""
            return DeployReport(
                number=0,
                version=version,
                waits=True,
                frozen=frozen,
                parity=checked,
                alias_error="",
            )
    target = TARGETS[config.target](Site(project, ledger, freezes, rollouts, config))
    if config.rollout is not None and generation and not by_hand and target.is_serving():
        begun = rollouts.begin(
            rollout=key,
            bundle=digest,
            version=version,
            generation=generation,
            config=config.rollout,
            by=by,
            why=reason,
        )
        stands = target.follow(begun)
        head = ledger.head()
        promoted = head is not None and head.key == key
        return DeployReport(
            number=head.number if head is not None and promoted else 0,
            version=version,
            rollout=stands.words,
            why=stands.reason,
            parity=checked,
            alias_error=_mirrored(registry, ledger, version)
            if promoted and config.mirror_alias
            else "",
        )
    entry = ledger.append(
        action="promote",
        bundle=digest,
        version=version,
        key=key,
        by=by,
        reason=reason,
        expected=generation,
    )
    target.settle()
    alias_error = _mirrored(registry, ledger, entry.version) if config.mirror_alias else ""
    return DeployReport(
        number=entry.number, version=version, parity=checked, alias_error=alias_error
    )


def _mirrored(registry: Registry, ledger: Ledger, version: str) -> str:
    """Let MLflow's alias follow the ledger; return why it could not, empty if it did."""
    try:
        # Not always this version: a retry may come after somebody else's promotion.
        head = ledger.head()
        registry.mirror(head.version if head else version)
    except WorldError as error:
        # The ledger has spoken and servers follow it; the next promotion mends the alias.
        return str(error)
    return ""


def proof(digest: str, predictions: Path, code: str, store: Store, config: DeployConfig) -> Parity:
    """Return the proof that a bundle answers in the server as it was evaluated.

    What one version of the code has proved of a bundle it need not prove again; that the
    bundle is still there and unaltered is checked every time.

    Raises:
        BundleError: it is missing, altered or not signed, does not load, or answers otherwise.
    """
    signature.require(store, digest, config.trusted_keys)
    bundle.fetch(store, digest)
    key = f"proofs/{digest}/{code}-{digest_of(config.model_dump(mode='json'))[:16]}.json"
    try:
        return Parity.from_json(store.get(key).decode())
    except (ObjectMissing, ValueError):
        found = parity(digest, predictions, store, config)
        store.put(key, found.to_json().encode())
        return found


def parity(digest: str, predictions: Path, store: Store, config: DeployConfig) -> Parity:
    """Answer evaluated rows again with the serving code, and compare.

    Raises:
        BundleError: it does not load, or an answer is not what was evaluated.
    """
    # The form that was evaluated: a quantised one was compared with it when it was exported.
    model = BundleModel.load(store, digest, form="safetensors")
    frame = pd.read_parquet(predictions / "predictions.parquet")
    accepted = (row for row, content in enumerate(frame["text"]) if model.accepts(content))
    frame = frame.iloc[list(islice(accepted, config.parity_rows))]
    if frame.empty:
        raise BundleError(
            f"bundle {digest[:12]} cannot be proved: the server accepts none of the evaluated "
            "rows, which are all too large for it; lower validate.max_characters"
        )
    got = model.answers(frame["text"].tolist())
    expected = frame[[f"output_{name}" for name in model.answer_names]].to_numpy(np.float64)
    difference = float(np.abs(got - expected).max()) / model.answer_range
    if not difference <= config.parity_tolerance:
        raise BundleError(
            f"bundle {digest[:12]} answers differently in the server than when it was evaluated: "
            f"answers differ by up to {difference:.4f} of their range"
        )
    return Parity(rows=len(frame), max_difference=difference)


def _cost(
    digest: str, predictions: Path, store: Store, requests: RequestLog, config: DeployConfig
) -> Cost | None:
    """Measure a bundle in a process of its own; None without a budget.

    It is asked what servers were asked lately, or, where none of that was kept, the rows of
    its evaluation.

    Raises:
        BundleError: it goes over a budget, or does not do in a server.
    """
    if config.max_latency_ms is None and config.max_memory_mib is None:
        return None
    model, now = BundleModel.load(store, digest), datetime.now(UTC)
    asked = requests.read(now - RECORDED, now)["text"].dropna()
    if asked.empty:
        asked = pd.read_parquet(predictions / "predictions.parquet", columns=["text"])["text"]
    accepted = [content for content in asked if model.accepts(content)]
    return cost_of(
        store.uri("x").removesuffix("/x"),
        digest,
        accepted[-config.parity_rows :],
        model.sample,
        config.max_latency_ms,
        config.max_memory_mib,
    )
