"""A stand-in of KServe on a Kubernetes API, which keeps InferenceServices, and of Prometheus.

It refuses what the API server or KServe's webhook would refuse, and plays the controller: a
change is seen after a few looks, and a canary becomes ready unless a test says otherwise.
"""

from __future__ import annotations

import copy
import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kserve

from tests.kubernetes_api import KubernetesApi, Refusal

Json = dict[str, Any]
PATH = r"/apis/serving\.kserve\.io/v1beta1/namespaces/([^/]+)/inferenceservices(?:/([^/]+))?"
MODE = "serving.kserve.io/deploymentMode"
SCALING = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "autoScaling"}


class KServeApi(KubernetesApi):
    """The API server.

    Attributes:
        services: manifests by name.
        changes: the spec after each change.
        unready: bundles whose canary never becomes ready.
        lag: looks until the controller has seen a change.
        before: called with method and path before each request is answered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.services: dict[str, Json] = {}
        self.changes: list[Json] = []
        self.unready: set[str] = set()
        self.lag = 1
        self.before: Callable[[str, str], None] = lambda method, path: None
        self._looks = 0
        self.outage: tuple[int, int] = (503, 0)

    def answer(self, method: str, path: str, query: Any, body: Json | None) -> Any:
        route = re.fullmatch(PATH, path)
        if route is None:
            return super().answer(method, path, query, body)
        self.before(method, path)
        self.flowing.wait()
        with self._lock:
            if self.outage[1]:
                self.outage = (self.outage[0], self.outage[1] - 1)
                raise Refusal(self.outage[0], "ServiceUnavailable", "etcd has no leader")
            if self.deny is not None:
                raise Refusal(self.deny, "Forbidden", 'User "tests" cannot do that')
            return self._service(method, route[2] or "", body)

    def edit(self, name: str, change: Callable[[Json], None]) -> None:
        """Change a service as somebody else would."""
        with self._lock:
            change(self.services[name])
            self.services[name]["metadata"]["resourceVersion"] = self._next()

    def _service(self, method: str, name: str, body: Json | None) -> Json:
        if method == "POST":
            assert body is not None
            name = body["metadata"]["name"]
            if name in self.services:
                raise Refusal(409, "AlreadyExists", f"{name} already exists")
            _check(body)
            body["metadata"] |= {"generation": 1, "resourceVersion": self._next(), "uid": name}
            self._keep(name, body)
        elif name not in self.services:
            raise Refusal(404, "NotFound", f'inferenceservices "{name}" not found')
        elif method == "PUT":
            assert body is not None
            there = self.services[name]
            if body["metadata"].get("resourceVersion") != there["metadata"]["resourceVersion"]:
                raise Refusal(409, "Conflict", "the object has been modified")
            _check(body)
            generation = there["metadata"]["generation"] + (body["spec"] != there["spec"])
            body["metadata"] |= {"generation": generation, "resourceVersion": self._next()}
            body["status"] = there.get("status", {})
            self._keep(name, body)
        else:
            self._control(self.services[name])
        return copy.deepcopy(self.services[name])

    def _keep(self, name: str, service: Json) -> None:
        self.services[name] = service
        self.changes.append(copy.deepcopy(service["spec"]))
        self._looks = 0

    def _control(self, service: Json) -> None:
        self._looks += 1
        if self._looks <= self.lag:
            return
        spec = service["spec"]
        canaries, predictor = spec.get("canary", []), spec["predictor"]
        pins = [_bundle(each["predictor"]) for each in canaries] + [_bundle(predictor)]
        ready = not self.unready & set(pins)
        percent = predictor.get("canaryTrafficPercent")
        traffic = [{"latestRevision": True, "percent": 100 if percent is None else percent}]
        if percent is not None and percent < 100:
            traffic.append({"revisionName": "before", "percent": 100 - percent})
        knative = service["metadata"]["annotations"][MODE] == "Knative"
        conditions = [
            # KServe calls a service ready whose canary is not.
            _condition("Ready", ready or not knative),
            _condition("PredictorReady", True),
        ]
        if canaries:
            conditions.append(_condition("CanaryPredictorReady", ready))
        service["status"] = {
            "observedGeneration": service["metadata"]["generation"],
            "conditions": conditions,
            "components": {"predictor": {"traffic": traffic if ready else []}},
            "canaryStatuses": [
                {
                    "name": each["predictor"]["name"],
                    "ready": ready,
                    "trafficPercent": each["trafficPercent"],
                }
                for each in canaries
            ],
        }


def _check(service: Json) -> None:
    """Refuse what the models of KServe's own SDK do not know, or its webhook forbids."""
    spec, mode = service["spec"], service["metadata"].get("annotations", {}).get(MODE)
    if unknown := list(_unknown(spec, kserve.V1beta1InferenceServiceSpec)):
        raise Refusal(400, "BadRequest", f"strict decoding error: unknown field {unknown}")
    canaries = spec.get("canary", [])
    if mode not in ("Standard", "Knative"):
        raise Refusal(422, "Invalid", f"deploymentMode {mode}")
    if canaries and mode != "Standard":
        raise Refusal(422, "Invalid", "spec.canary needs Standard mode")
    if "canaryTrafficPercent" in spec["predictor"] and mode != "Knative":
        raise Refusal(422, "Invalid", "canaryTrafficPercent needs Knative mode")
    names = [each["predictor"].get("name", "") for each in canaries]
    if len({*names, spec["predictor"].get("name", "")}) <= len(names):
        raise Refusal(422, "Invalid", "predictors have the same name")
    if any(SCALING & set(each["predictor"]) for each in canaries):
        raise Refusal(422, "Invalid", "a canary predictor has no autoscaling fields")
    if sum(each["trafficPercent"] for each in canaries) > 100:
        raise Refusal(422, "Invalid", "more than all traffic")


def _unknown(value: Any, kind: Any) -> Iterator[str]:
    """Yield the keys that a model of the SDK does not know."""
    if not isinstance(value, dict) or not hasattr(kind, "attribute_map"):
        return
    names = {key: name for name, key in kind.attribute_map.items()}
    for key, each in value.items():
        if key not in names:
            yield key
            continue
        inner = kind.openapi_types[names[key]]
        many = re.fullmatch(r"list\[(\w+)\]", inner)
        model = getattr(kserve, many[1] if many else inner, None)
        for one in each if many else [each]:
            yield from _unknown(one, model)


def _bundle(predictor: Json) -> str:
    args = predictor.get("model", {}).get("args", [])
    return next((each.partition("=")[2] for each in args if each.startswith("--bundle=")), "")


def _condition(kind: str, good: bool) -> Json:
    message = "" if good else "containers with unready status: [kserve-container]"
    return {"type": kind, "status": "True" if good else "False", "message": message}


class Prometheus:
    """Answers the queries that are asked of it.

    Attributes:
        versions: requests, failures and seconds of each request, by version.
        down: whether it answers with an error.
    """

    def __init__(self) -> None:
        self.versions: dict[str, tuple[int, int, float]] = {}
        self.down = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _prometheus(self))
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Prometheus:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, query: str) -> list[Json]:
        if "min_over_time" in query:
            return []  # all counters were there before
        found = re.search(r'version="([^"]*)"', query)
        assert found is not None
        requests, failures, seconds = self.versions.get(found[1], (0, 0, 0.0))
        if "tokiwa_requests_total" in query:
            return [{"metric": {"status": "500"}, "value": [0, str(failures)]}]
        answered, total = requests - failures, 0
        rows = []
        for le in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, math.inf):
            total = answered if seconds <= le else 0
            bound = "+Inf" if math.isinf(le) else str(le)
            rows.append({"metric": {"le": bound}, "value": [0, str(total)]})
        return rows


def _prometheus(world: Prometheus) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = parse_qs(address.query)["query"][0]
            result = [] if world.down else world.answer(query)
            data = json.dumps({"data": {"result": result}}).encode()
            self.send_response(503 if world.down else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
