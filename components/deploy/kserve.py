"""A rollout on KServe: the deploy step changes the InferenceService and watches it.

The stable predictor's servers follow the ledger. A canary is a predictor of the same kind
whose servers are pinned to the challenger's bundle, which they read from the store like any
other. So a promotion is an entry of the ledger, which the stable pods take up without a
restart, and then the canary goes; a rollback is only the latter.

What the service should be follows from the rollout's last transition alone. The step looks,
changes what differs, and looks again: a step that broke off anywhere is simply run again.
Changes carry the resource version that was read, so nobody's change is lost.

The step's service account may get, create and update ``inferenceservices.serving.kserve.io``.
"""

from __future__ import annotations

import copy
import os
import time
from datetime import UTC, datetime
from typing import Any

from components.deploy.config import KServeConfig
from components.deploy.prometheus import arm_of
from components.errors import BackendError, Unauthorised
from components.freeze import Freezes
from components.ledger import Ledger
from components.rollout.observations import Observations
from components.rollout.record import Rollouts, Transition, advance

GROUP = "serving.kserve.io"
VERSION = f"{GROUP}/v1beta1"
MODE = f"{GROUP}/deploymentMode"
APPLIED = "tokiwa/transition"
"""Annotation: number of the transition that the service was last changed for."""
CALL_S = 30.0
"""For one call of the Kubernetes API."""
TRIES = 6
"""Of a change, while others change the same service or the API is away."""
SCALING = (
    "minReplicas",
    "maxReplicas",
    "scaleMetric",
    "scaleMetricType",
    "scaleTarget",
    "autoScaling",
)

Json = dict[str, Any]


class KServe:
    """The InferenceService of a project; see ``components.deploy.targets.Target``."""

    def __init__(
        self,
        project: str,
        ledger: Ledger,
        freezes: Freezes,
        rollouts: Rollouts,
        config: KServeConfig,
    ) -> None:
        """Name the service; nothing is asked yet."""
        self._name, self._project = config.service or project, project
        self._ledger, self._freezes, self._rollouts = ledger, freezes, rollouts
        self._config = config
        self._seen_s = time.monotonic()
        self._connection: tuple[Any, str] | None = None

    def is_serving(self) -> bool:
        """Tell whether there is a service."""
        return self._get() is not None

    def follow(self, live: Transition) -> Transition:
        """Change and watch the service until the rollout has ended; return its end.

        Raises:
            BackendError: the API is away for long, or refuses a change.
        """
        while True:
            # Where another rollout has taken its place, the canary is that one's.
            self._reach(live if live.is_live else self._rollouts.live())
            if not live.is_live:
                return live
            now = datetime.now(UTC)
            seen = self._observe(live, now)
            _, moved = advance(
                self._rollouts, self._ledger, self._freezes, live, seen, by="deploy", now=now
            )
            if moved is None:
                time.sleep(self._config.poll_s)
                mine = [each for each in self._rollouts.all() if each.rollout == live.rollout]
                moved = mine[-1]
            live = moved

    def settle(self) -> None:
        """Create the service if there is none, and take any canary away."""
        self._reach(None)

    def _reach(self, move: Transition | None) -> None:
        """Make the service what a transition asks for.

        Raises:
            BackendError: it cannot be done.
        """
        for attempt in range(TRIES):
            try:
                found = self._get()
                wanted = desired(found or self._fresh(), move, self._config)
                if found is None:
                    self._call("create", _as_model(wanted), namespace=self._namespace)
                elif not _is_asked(found["spec"], wanted["spec"]):
                    self._call("replace", self._name, _as_model(wanted), namespace=self._namespace)
                return
            except _Again as error:
                if attempt == TRIES - 1:
                    raise BackendError(f"{self._where} cannot be changed: {error}") from error
                time.sleep(min(self._config.poll_s, 0.2 * 2**attempt))

    def _observe(self, live: Transition, now: datetime) -> Observations:
        """Return what was seen of both versions since the stage began, and of the canary."""
        found = self._get()
        if found is None:
            return Observations(broken=f"{self._where} is gone")
        elapsed_s = max(1.0, (now - datetime.fromisoformat(live.at)).total_seconds())
        trouble = not_ready(found, live, self._config)
        if trouble:
            late = elapsed_s > self._config.ready_s
            return Observations(broken=f"the canary is not ready: {trouble}" if late else "")
        head = self._ledger.head()
        champion = head.version or head.bundle[:12] if head else ""
        try:
            arms = [
                arm_of(
                    self._config.prometheus, self._name, version, elapsed_s, live.config.slack_ms
                )
                for version in (champion, live.version or live.bundle[:12])
            ]
        except BackendError as error:
            blind_s = time.monotonic() - self._seen_s
            return Observations(
                broken=f"nobody can watch the canary: {error}"
                if blind_s > self._config.ready_s
                else ""
            )
        self._seen_s = time.monotonic()
        return Observations(champion=arms[0], challenger=arms[1])

    def _fresh(self) -> Json:
        """Return a service for a project that has none yet."""
        return {
            "apiVersion": VERSION,
            "kind": "InferenceService",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "annotations": {MODE: self._config.mode},
            },
            "spec": {
                "predictor": {
                    "serviceAccountName": self._config.service_account,
                    "model": {
                        "runtime": self._config.runtime,
                        "modelFormat": {"name": "tokiwa", "version": "1"},
                        "protocolVersion": "v2",
                    },
                }
            },
        }

    @property
    def _where(self) -> str:
        return f"InferenceService {self._namespace}/{self._name}"

    @property
    def _namespace(self) -> str:
        return self._client()[1]

    def _get(self) -> Json | None:
        for attempt in range(TRIES):
            try:
                found: Json = self._call("get", self._name, namespace=self._namespace)
                return found
            except _Missing:
                return None
            except _Again as error:
                if attempt == TRIES - 1:
                    raise BackendError(f"{self._where} cannot be read: {error}") from error
                time.sleep(min(self._config.poll_s, 0.2 * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    def _call(self, act: str, *given: Any, **named: Any) -> Any:
        """Let KServe's client do something, and turn its errors into ours."""
        client, _ = self._client()
        try:
            return getattr(client, act)(*given, **named)
        except Exception as error:
            raise _explained(error, act, self._where) from error

    def _client(self) -> tuple[Any, str]:
        if self._connection is None:
            self._connection = _connected(self._config.namespace)
        return self._connection


def desired(found: Json, move: Transition | None, config: KServeConfig) -> Json:
    """Return an InferenceService as a transition wants it; ``found`` is left as it is.

    Args:
        found: as it is.
        move: the rollout's last transition; None for no rollout.
        config: how traffic is split.
    """
    wanted = copy.deepcopy(found)
    spec = wanted["spec"]
    annotations = wanted["metadata"].setdefault("annotations", {})
    annotations[APPLIED] = str(move.number if move else 0)
    annotations.setdefault(MODE, config.mode)
    stable = _unpinned(spec["predictor"])
    live = move if move is not None and move.is_live else None
    spec["predictor"] = stable
    spec.pop("canary", None)
    if live is None:
        return wanted
    percent = max(1, round(live.stage.share * 100))
    pinned = _pinned(stable, live)
    if config.mode == "Knative":
        spec["predictor"] = {**pinned, "canaryTrafficPercent": percent}
        return wanted
    for key in SCALING:
        pinned.pop(key, None)
    pinned["name"] = canary_name(live)
    spec["canary"] = [{"trafficPercent": percent, "predictor": pinned}]
    return wanted


def _is_asked(found: Json, wanted: Json) -> bool:
    """Tell whether a service is as it should be; KServe fills in what we leave open."""
    return _holds(found, wanted) and _ours(found) == _ours(wanted)


def _holds(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(key in found and _holds(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(found, list):
        return len(found) == len(wanted) and all(map(_holds, found, wanted))
    return bool(found == wanted)


def _ours(spec: Json) -> Json:
    """Return what nobody fills in but us, and what has to be gone where we leave it out."""
    predictor = spec["predictor"]
    return {
        "percent": predictor.get("canaryTrafficPercent"),
        "args": predictor.get("model", {}).get("args") or [],
        "canaries": len(spec.get("canary") or []),
    }


def canary_name(live: Transition) -> str:
    """Return the name of a challenger's predictor: one for the whole rollout."""
    return f"canary-{live.bundle[:10]}"


def _pinned(predictor: Json, live: Transition) -> Json:
    pinned = copy.deepcopy(predictor)
    version = live.version or live.bundle[:12]
    pin = [f"--bundle={live.bundle}", f"--version={version}"]
    pinned["model"]["args"] = [*pinned["model"].get("args", []), *pin]
    return pinned


def _unpinned(predictor: Json) -> Json:
    stable = copy.deepcopy(predictor)
    stable.pop("canaryTrafficPercent", None)
    model = stable.get("model")
    if not isinstance(model, dict):
        raise BackendError("the service has no spec.predictor.model: it is none of Tokiwa's")
    kept = [
        each for each in model.get("args", []) if not each.startswith(("--bundle=", "--version="))
    ]
    model.pop("args", None)
    if kept:
        model["args"] = kept
    return stable


def not_ready(found: Json, live: Transition, config: KServeConfig) -> str:
    """Return why the canary of a transition does not get its traffic yet; empty if it does."""
    status, percent = found.get("status", {}), max(1, round(live.stage.share * 100))
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return "the controller has not seen the change"
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    asked = "Ready" if config.mode == "Knative" else "CanaryPredictorReady"
    condition = conditions.get(asked, {})
    if condition.get("status") != "True":
        return condition.get("message") or condition.get("reason") or f"{asked} is not said"
    if config.mode == "Knative":
        traffic = status.get("components", {}).get("predictor", {}).get("traffic", [])
        latest = [each.get("percent", 0) for each in traffic if each.get("latestRevision")]
        return "" if latest == [percent] else f"traffic is {latest}, not [{percent}]"
    mine = [
        each for each in status.get("canaryStatuses", []) if each.get("name") == canary_name(live)
    ]
    if not mine or not mine[0].get("ready"):
        return f"{canary_name(live)} has no ready pods"
    given = mine[0].get("trafficPercent", 0)
    return "" if given == percent else f"traffic is {given}, not {percent}"


class _Again(BackendError):
    """A call failed in a way that passes."""


class _Missing(BackendError):
    """There is no such service."""


def _explained(error: Exception, act: str, where: str) -> Exception:
    """Return what KServe's client, which packs everything into one error, meant."""
    cause = error.__context__ if isinstance(error, RuntimeError) else error
    status = getattr(cause, "status", None)
    if status in (401, 403):
        return Unauthorised(f"the Kubernetes API does not let this account {act} {where}")
    if status == 404:
        return _Missing(f"there is no {where}")
    if status == 409 or status is None or status >= 500 or status == 429:
        reason = getattr(cause, "reason", None) or type(cause).__name__
        return _Again(f"the Kubernetes API answers {status or 'nothing'} ({reason})")
    body = str(getattr(cause, "body", cause))[:300]
    return BackendError(f"the Kubernetes API refuses to {act} {where}: {body}")


def _as_model(service: Json) -> Any:
    """Return a service as KServe's client takes it, with nothing of it lost."""
    import kserve
    from kubernetes.client import V1ObjectMeta

    about = service["metadata"]
    return kserve.V1beta1InferenceService(
        api_version=service["apiVersion"],
        kind=service["kind"],
        metadata=V1ObjectMeta(
            name=about["name"],
            namespace=about.get("namespace"),
            annotations=about.get("annotations"),
            labels=about.get("labels"),
            finalizers=about.get("finalizers"),
            owner_references=about.get("ownerReferences"),
            resource_version=about.get("resourceVersion"),
        ),
        spec=service["spec"],
    )


def _connected(namespace: str) -> tuple[Any, str]:
    """Return KServe's client and the namespace.

    Raises:
        BackendError: nothing leads to a cluster.
    """
    import kserve
    from kserve.utils import utils

    try:
        client = kserve.KServeClient(config_file=os.environ.get("KUBECONFIG"))
        where = namespace or utils.get_default_target_namespace()
    except Exception as error:
        raise BackendError(
            f"no way to a Kubernetes cluster: {error}; run in a pod, or set KUBECONFIG"
        ) from error
    api = client.api_instance.api_client
    call = api.call_api

    def call_in_time(*given: Any, **named: Any) -> Any:
        # KServe's client waits for ever, and a single float counts as no time-out.
        named["_request_timeout"] = named.get("_request_timeout") or (CALL_S, CALL_S)
        return call(*given, **named)

    api.call_api = call_in_time
    return client, where
