"""Section ``deploy`` of a project file."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from components.rollout.config import RolloutConfig
from components.serve.model import MAX_CONTENTS
from components.settings import Section
from components.signature import PublicKey


class KServeConfig(Section):
    """Part ``kserve``: the InferenceService of the project."""

    namespace: str = ""
    """Empty for the pod's own, or the kubeconfig's."""
    service: str = ""
    """Name of the InferenceService; empty for the project's name."""
    mode: Literal["Standard", "Knative"] = "Standard"
    """``Standard`` splits traffic with ``spec.canary`` and needs the Gateway API; ``Knative``
    with ``canaryTrafficPercent``."""
    runtime: str = "tokiwa"
    """The ServingRuntime of our server's image."""
    service_account: str = "tokiwa-server"
    """Of pods of a service that the step has to create."""
    prometheus: str = ""
    """Address whose ``/api/v1/query`` knows the metrics of the pods; one that has those of
    several clusters or namespaces must label them with ``namespace``, as its operator does."""
    ready_s: float = Field(default=600.0, gt=0)
    """Within so many seconds a canary has to be ready, and Prometheus to answer."""
    poll_s: float = Field(default=10.0, gt=0)
    """Between looks."""


class DeployConfig(Section):
    """Section ``deploy``."""

    target: Literal["local", "kserve"] = "local"
    """Where models are served, see ``components.deploy.targets``."""
    rollout: RolloutConfig | None = None
    """How a challenger has to prove itself on real requests; none: it is promoted at once,
    and servers swap to it."""
    kserve: KServeConfig = KServeConfig()
    parity_rows: int = Field(default=64, ge=1, le=MAX_CONTENTS)
    """So many evaluated rows are answered again by the serving code."""
    parity_tolerance: float = Field(default=1e-3, gt=0, lt=1)
    """Answers may differ by so much of their range; other batches round differently."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """95 % of recorded requests have to be answered within this, one at a time, by the
    bundle in a server's process of its own."""
    max_memory_mib: int | None = Field(default=None, ge=1)
    """So much memory may that process hold."""
    approval: Literal["none", "required"] = "none"
    """``required``: what passed the gate waits until a person promotes it, see
    ``tokiwa promote``."""
    trusted_keys: tuple[PublicKey, ...] = ()
    """Public keys (Ed25519, PEM) of which one must have signed a bundle that is to serve; all
    bundles are good where none is named. Sections ``serve`` and ``score`` take them over."""
    mirror_alias: bool = True
    """Whether MLflow's alias ``champion`` follows; a replay turns it off, because its
    ledger is not the project's."""

    @model_validator(mode="after")
    def _the_target_can_do_it(self) -> Self:
        if self.target == "kserve" and self.rollout is not None:
            if any(stage.kind == "shadow" for stage in self.rollout.stages):
                raise ValueError("KServe copies no requests: target kserve has no stage shadow")
            if not self.kserve.prometheus:
                raise ValueError("a rollout on kserve is watched by way of kserve.prometheus")
        return self
