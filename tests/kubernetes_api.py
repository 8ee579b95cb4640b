"""A stand-in of a Kubernetes cluster with Kubeflow Trainer, on loopback.

It answers the few routes that the Trainer's SDK asks, keeps what it is given with
resource versions, and checks it by the SDK's own models and by the rules of Trainer's
webhook. What becomes of a ``TrainJob`` a test decides with ``pods``: ``Scripted`` pods print
lines and end with a code, ``Processes`` really run the command of the job, each pod a
process, with the environment that Trainer gives to its containers and no other.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubeflow_trainer_api import models

TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
RUNTIME = "torch-distributed"
TOKEN = "token-of-the-tests"
NAMESPACE = "training"

Json = dict[str, Any]


class Refusal(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass
class Pod:
    """A pod of a job, and what it prints.

    Attributes:
        manifest: as the API gives it.
        lines: printed so far.
        changed: guards both, and is told of every change.
    """

    manifest: Json
    lines: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def ended(self) -> bool:
        return self.manifest["status"]["phase"] in ("Succeeded", "Failed")

    def print(self, line: str) -> None:
        with self.changed:
            self.lines.append(line)
            self.changed.notify_all()

    def run(self) -> None:
        with self.changed:
            self.manifest["status"] = {"phase": "Running"}

    def end(self, code: int, reason: str = "") -> None:
        reason = reason or ("Error" if code else "Completed")
        terminated = {"exitCode": code, "reason": reason}
        status = {
            "name": "node",
            "image": "",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": terminated},
        }
        with self.changed:
            self.manifest["status"] = {
                "phase": "Failed" if code else "Succeeded",
                "containerStatuses": [status],
            }
            if reason == "Preempted":
                condition = {"type": "DisruptionTarget", "status": "True"}
                self.manifest["status"]["conditions"] = [condition]
            self.changed.notify_all()


class Scripted:
    """Pods that print lines and end; ``None`` instead of a code goes on until it is deleted.

    Each start of the job takes the next script, and the last one stays: a script is, for
    every node, its lines, its exit code and perhaps the reason of its end.
    """

    def __init__(self, *scripts: Sequence[tuple[Any, ...]]) -> None:
        self.scripts = list(scripts)
        self.gone = threading.Event()

    def start(self, api: KubernetesApi, job: Json, pods: list[Pod]) -> Callable[[], None]:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        for pod, (lines, code, *reason) in zip(pods, script, strict=True):
            pod.run()
            for line in lines:
                pod.print(line)
            if code is not None:
                pod.end(code, *reason)
        if all(code is not None for _, code, *_ in script):
            api.finish(job, any(code for _, code, *_ in script))
        return self.gone.set


class Pending:
    """Pods that never get a machine."""

    def start(self, api: KubernetesApi, job: Json, pods: list[Pod]) -> Callable[[], None]:
        return lambda: None


class Processes:
    """Pods that run the command of the job on this machine.

    Args:
        folder: working directory of the command, from which it imports its modules.
        volumes: where each volume's mount lies on this machine, if not at the same path.
    """

    def __init__(self, folder: Path, volumes: Path) -> None:
        self.folder, self.volumes = folder, volumes
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, api: KubernetesApi, job: Json, pods: list[Pod]) -> Callable[[], None]:
        trainer = job["spec"]["trainer"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = [*trainer["command"], *trainer.get("args", [])]
        for mount, secret in _secrets(job):
            place = self.volumes / secret
            place.mkdir(parents=True, exist_ok=True)
            for key, value in api.secrets[secret].items():
                (place / key).write_text(value)
            arguments = [str(place) if each == mount else each for each in arguments]
        started = []
        for rank, pod in enumerate(pods):
            environment = {each["name"]: each["value"] for each in trainer.get("env", [])}
            environment |= {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HF_HUB_OFFLINE": "1",
                # Two nodes on one machine; on a cluster, each has an address of its own.
                "GLOO_SOCKET_IFNAME": "lo",
                "PET_NNODES": str(len(pods)),
                "PET_NPROC_PER_NODE": "auto",
                "PET_NODE_RANK": str(rank),
                "PET_MASTER_ADDR": "127.0.0.1",
                "PET_MASTER_PORT": str(port),
            }
            pod.run()
            process = subprocess.Popen(
                arguments,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.processes[pod.manifest["metadata"]["name"]] = process
            reader = threading.Thread(target=_print, args=(process, pod), daemon=True)
            reader.start()
            started.append((process, reader))

        def wait() -> None:
            for process, reader in started:
                process.wait()
                reader.join()
            api.finish(job, any(process.returncode for process, _ in started))

        threading.Thread(target=wait, daemon=True).start()

        def stop() -> None:
            for process, _ in started:
                process.terminate()
            for process, reader in started:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                reader.join()

        return stop

    def kill(self, rank: int, number: int = signal.SIGTERM) -> None:
        """Send a signal to the newest pod of a rank."""
        names = [name for name in self.processes if re.search(rf"-node-0-{rank}-\d+$", name)]
        self.processes[names[-1]].send_signal(number)


def _secrets(job: Json) -> list[tuple[str, str]]:
    """Return where a job mounts which secret."""
    found = []
    for pod in _pod_patches(job):
        secrets = {
            each["name"]: each["secret"]["secretName"]
            for each in pod.get("volumes", [])
            if "secret" in each
        }
        for container in pod.get("containers", []):
            for mount in container.get("volumeMounts", []):
                if mount["name"] in secrets:
                    found.append((mount["mountPath"], secrets[mount["name"]]))
    return found


def _pod_patches(job: Json) -> list[Json]:
    return [
        each["template"]["spec"]["template"]["spec"]
        for patch in job["spec"].get("runtimePatches", [])
        for each in patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    ]


def _print(process: subprocess.Popen[str], pod: Pod) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            pod.print(line.rstrip("\n"))
    code = process.wait()
    pod.end(code if code >= 0 else 128 - code)


class KubernetesApi:
    """The API server; a context manager that leaves nothing running.

    Attributes:
        pods: says what becomes of a job's pods.
        secrets: by name, as a cluster keeps them.
        jobs: the manifests of the jobs that there are, by name.
        created: all jobs ever created, in order.
        deny: a status with which every request is refused, such as 403.
        outage: a status with which requests fail, and how many of them.
        flowing: cleared, requests hang until it is set again.
        cut_log_after: lines after which the next connection to a log breaks.
        asked: method and path of every request.
    """

    def __init__(self, pods: Any = None) -> None:
        self.pods = pods or Pending()
        self.secrets: dict[str, dict[str, str]] = {}
        self.jobs: dict[str, Json] = {}
        self.created: list[Json] = []
        self.deny: int | None = None
        self.outage: tuple[int, int] = (503, 0)
        self.flowing = threading.Event()
        self.flowing.set()
        self.cut_log_after: int | None = None
        self.asked: list[tuple[str, str]] = []
        self._pods: dict[str, list[Pod]] = {}
        self._stops: dict[str, Callable[[], None]] = {}
        self._version = 0
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> KubernetesApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.flowing.set()
        for name in list(self.jobs):
            self.delete(name)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def kubeconfig(self, folder: Path) -> Path:
        """Write a file that leads kubectl and the SDK here."""
        path = folder / "kubeconfig.json"  # JSON is YAML
        address = f"http://127.0.0.1:{self._server.server_address[1]}"
        context = {"cluster": "stand-in", "user": "tests", "namespace": NAMESPACE}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "stand-in", "cluster": {"server": address}}],
            "users": [{"name": "tests", "user": {"token": TOKEN}}],
            "contexts": [{"name": "stand-in", "context": context}],
            "current-context": "stand-in",
        }
        path.write_text(json.dumps(config))
        return path

    # --- what the cluster does -----------------------------------------------------------

    def create(self, namespace: str, job: Json) -> Json:
        name = job.get("metadata", {}).get("name", "")
        _check(job)
        with self._lock:
            if name in self.jobs:
                message = f'trainjobs.trainer.kubeflow.org "{name}" already exists'
                raise Refusal(409, "AlreadyExists", message)
            job["metadata"] |= {
                "namespace": namespace,
                "uid": f"uid-{len(self.created)}",
                "creationTimestamp": _now(),
                "resourceVersion": self._next(),
            }
            self.jobs[name] = job
            self.created.append(json.loads(json.dumps(job)))
            pods = [self._pod(job, rank) for rank in range(job["spec"]["trainer"]["numNodes"])]
            self._pods[name] = pods
            self._stops[name] = self.pods.start(self, job, pods)
            return job

    def finish(self, job: Json, failed: bool, reason: str = "") -> None:
        """Give a job the condition with which it ends."""
        condition = {
            "type": "Failed" if failed else "Complete",
            "status": "True",
            "reason": reason or ("JobsFailed" if failed else "JobsCompleted"),
            "message": "",
            "lastTransitionTime": _now(),
        }
        with self._lock:
            job["status"] = {"conditions": [condition]}
            job["metadata"]["resourceVersion"] = self._next()

    def delete(self, name: str) -> Json:
        with self._lock:
            if name not in self.jobs:
                raise _not_found("trainjobs", name)
            job, stop = self.jobs[name], self._stops.pop(name)
            stop()
            del self.jobs[name]
            for pod in self._pods.pop(name):
                if not pod.ended:
                    pod.end(143)
            return {"kind": "Status", "status": "Success", "details": {"name": job}}

    def _pod(self, job: Json, rank: int) -> Pod:
        name = job["metadata"]["name"]
        labels = {
            "jobset.sigs.k8s.io/jobset-name": name,
            "jobset.sigs.k8s.io/replicatedjob-name": "node",
            "batch.kubernetes.io/job-completion-index": str(rank),
        }
        metadata = {
            "name": f"{name}-node-0-{rank}-{len(self.created)}",
            "namespace": job["metadata"]["namespace"],
            "labels": labels,
            "creationTimestamp": _now(),
            "resourceVersion": self._next(),
        }
        container = {"name": "node", "image": job["spec"]["trainer"]["image"]}
        return Pod(
            {
                "metadata": metadata,
                "spec": {"containers": [container]},
                "status": {"phase": "Pending"},
            }
        )

    def _next(self) -> str:
        self._version += 1
        return str(self._version)

    # --- routes --------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Json | None) -> Any:
        """Return what is answered to a request: JSON, or the pod whose log is read."""
        self.flowing.wait()
        with self._lock:
            if self.outage[1]:
                self.outage = (self.outage[0], self.outage[1] - 1)
                raise Refusal(self.outage[0], "ServiceUnavailable", "etcd has no leader")
        if self.deny is not None:
            raise Refusal(self.deny, "Forbidden", 'User "tests" cannot do that')
        route = re.fullmatch(rf"{TRAINER}/namespaces/([^/]+)/trainjobs(?:/([^/]+))?", path)
        if route is not None:
            return self._trainjobs(method, route[1], route[2], body)
        if re.fullmatch(rf"{TRAINER}/clustertrainingruntimes/{RUNTIME}", path):
            return _runtime()
        if path == f"{TRAINER}/clustertrainingruntimes":
            return {"metadata": {}, "items": [_runtime()]}
        route = re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)/log)?", path)
        if route is not None and route[2] is None:
            wanted = query.get("labelSelector", [""])[0]
            name = re.search(r"jobset-name=([^,]+)", wanted)
            with self._lock:
                pods = self._pods.get(name[1] if name else "", [])
                return {"metadata": {}, "items": [pod.manifest for pod in pods]}
        if route is not None:
            for pod in [each for pods in list(self._pods.values()) for each in pods]:
                if pod.manifest["metadata"]["name"] == route[2]:
                    return pod
            raise _not_found("pods", route[2])
        if path == "/api/v1/namespaces/kubeflow-system/configmaps/kubeflow-trainer-public":
            return {"metadata": {}, "data": {"kubeflow_trainer_version": "v2.3.0"}}
        raise _not_found(*path.rsplit("/", 2)[-2:])

    def _trainjobs(self, method: str, namespace: str, name: str | None, body: Json | None) -> Json:
        with self._lock:
            if method == "POST" and body is not None:
                return self.create(namespace, body)
            if method == "GET" and name is None:
                return {"metadata": {}, "items": list(self.jobs.values())}
            if name not in self.jobs:
                raise _not_found("trainjobs", name or "")
            return self.delete(name) if method == "DELETE" else self.jobs[name]


def _check(job: Json) -> None:
    """Refuse what the API server or the webhook of Trainer would refuse."""
    try:
        known = models.TrainerV1alpha1TrainJob.from_dict(job)
    except ValueError as error:
        raise Refusal(422, "Invalid", str(error)) from error
    assert known is not None
    if known.to_dict() != job:
        raise Refusal(400, "BadRequest", "strict decoding error: unknown field")
    name = job["metadata"]["name"]
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", name):
        raise Refusal(422, "Invalid", f"metadata.name: {name!r} is no RFC 1035 label")
    if job["spec"]["runtimeRef"]["name"] != RUNTIME:
        raise Refusal(422, "Invalid", "spec.runtimeRef: the runtime does not exist")
    for each in job["spec"]["trainer"].get("env", []):
        if each["name"].startswith("PET_"):
            raise Refusal(422, "Invalid", "spec.trainer.env: must not have reserved envs")
    for pod in _pod_patches(job):
        for container in pod.get("containers", []):
            if container["name"] != "node":
                raise Refusal(
                    422, "Invalid", "must not have a container that is not in the runtime"
                )
            if container.get("env"):
                raise Refusal(422, "Invalid", "must not have envs for the node container")


def _runtime() -> Json:
    """Return the runtime that Trainer installs, cut down to what the SDK reads."""
    container = {"name": "node", "image": "pytorch/pytorch"}
    pod = {"template": {"spec": {"containers": [container]}}}
    label = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    template = {"metadata": {"labels": label}, "spec": pod}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": RUNTIME, "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": "node", "template": template}]}},
        },
    }


def _not_found(kind: str, name: str) -> Refusal:
    return Refusal(404, "NotFound", f'{kind} "{name}" not found')


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _handler(api: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_PUT(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def _serve(self) -> None:
            address = urlsplit(self.path)
            query = parse_qs(address.query)
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            api.asked.append((self.command, address.path))
            try:
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    raise Refusal(401, "Unauthorized", "Unauthorized")
                content = json.loads(body) if body else None
                answer = api.answer(self.command, address.path, query, content)
            except Refusal as refusal:
                status = {
                    "kind": "Status",
                    "status": "Failure",
                    "code": refusal.status,
                    "reason": refusal.reason,
                    "message": str(refusal),
                }
                self._send(refusal.status, status)
                return
            if isinstance(answer, Pod):
                with suppress(BrokenPipeError, ConnectionResetError):
                    follow = query.get("follow", ["false"])[0].lower() == "true"
                    tail = int(query.get("tailLines", [len(answer.lines)])[0])
                    self._log(answer, max(0, len(answer.lines) - tail), follow)
            else:
                self._send(200, answer)

        def _send(self, status: int, content: Json) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _log(self, pod: Pod, sent: int, follow: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                with pod.changed:
                    if follow and sent == len(pod.lines) and not pod.ended:
                        pod.changed.wait()
                    lines, ended = pod.lines[sent:], pod.ended
                cut, api.cut_log_after = api.cut_log_after, None
                sent += len(lines)
                lines = lines if cut is None else lines[:cut]
                if lines:
                    data = "".join(f"{line}\n" for line in lines).encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                if cut is not None:
                    self.close_connection = True
                    return
                if not follow or (ended and not lines):
                    self.wfile.write(b"0\r\n\r\n")
                    return

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
