"""Fine-tune on several machines: a ``TrainJob`` of Kubeflow Trainer, followed to its end.

The step lays everything that the training reads into the storage (the object store, or a
volume that is mounted in step and pods), creates the job and passes on what its first pod
tells. Each pod is ``python -m components.finetune.trainjob ADDRESS KEY``: it fetches the
order, starts torchrun for its GPUs, and the first one leaves report and bundle in the
storage, where the step finds them::

    trainjobs/<training>/order.json, prepared/…, base/…      written by the step
    checkpoints/<training>/…                                 by the first process
    trainjobs/<training>/report.json, bundles/<digest>/…     by the first pod

The job's name follows from the training. A step that is stopped leaves its job running,
and a retried step adopts it instead of starting a second one; the job's own deadline ends
it if nobody comes back. It is deleted when its bundle has arrived, and kept when it failed.

The step's service account needs, in the namespace of the job: create, get and delete
``trainjobs.trainer.kubeflow.org``; get ``trainingruntimes``; list ``pods``; get
``pods/log``; and in the cluster: get ``clustertrainingruntimes``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from components import bundle, images
from components.errors import (
    BundleError,
    ConfigError,
    Evicted,
    TokiwaError,
    UserError,
    WorldError,
)
from components.finetune import launch
from components.finetune.config import FinetuneConfig, TrainJobConfig
from components.finetune.core import FinetuneReport, Start
from components.finetune.history import Silent, Watcher
from components.finetune.sigterm import told_to_stop
from components.settings import Section
from components.store import ObjectMissing, Store, open_store
from components.tasks import TaskConfig

if TYPE_CHECKING:
    from kubeflow.trainer.types.types import TrainJob

Answer = TypeVar("Answer")

SECRET_FOLDER = "/var/run/secrets/tokiwa"
"""Where the pods find the secret: a file for each of its keys."""
ENVIRONMENT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Variables of the step that its pods get, too; none of them is secret."""
NODE = "node"
ANSWER_S = 130.0
"""How long one question to the Kubernetes API may take; the SDK's own limit is 120 s."""
PATIENCE_S = 300.0
"""How long the Kubernetes API may stay away while a job runs."""
DELETION_S = 120.0
CLOSING_S = 30.0
"""How long the rest of a log may take when its pod has ended."""
CLOSING_TRIES = 3
LAST_LINES = 15


class JobOrder(Section):
    """An order as pods read it: what was a folder of the step lies in the storage."""

    start: Start
    """Its pretrained model is in a package of the image, or else lies in the storage."""
    champion: str
    """Digest of the bundle, or empty."""
    task: TaskConfig
    config: FinetuneConfig
    lineage: dict[str, str]
    training: str


# --- the step --------------------------------------------------------------------------


def run(order: launch.Order, watcher: Watcher) -> FinetuneReport:
    """Fine-tune in a ``TrainJob``; see ``launch.fulfil``.

    Raises:
        ConfigError: something of the order cannot travel to other machines.
        Evicted: the step was told to stop; the job goes on.
        UserError: the training found something wrong with the project.
        WorldError: the job failed, or the cluster does not do what is asked.
    """
    address = _address(order)
    if importlib.util.find_spec("kubeflow") is None:
        raise ConfigError(
            f"finetune.nodes is {order.config.nodes}, which needs Kubeflow's SDK; "
            "install with: pip install 'tokiwa[trainjob]'"
        )
    order = order.model_copy(update={"store": address})
    store = open_store(address)
    report = _arrived(order, store)
    if report is not None:
        return report
    _publish(order, store)
    cluster = Cluster(order.config.trainjob)
    name = name_of(order.training)
    with told_to_stop() as told:
        for start in range(order.config.trainjob.evictions + 1):
            _ensure(cluster, name, order, address)
            failure = _followed(cluster, name, order.config.trainjob, watcher, told)
            if failure is None:
                break
            if not isinstance(failure, Evicted) or start == order.config.trainjob.evictions:
                raise failure
            print(f"{failure}; the TrainJob {name} is started again", flush=True)
            cluster.delete(name)
    report = _arrived(order, store)
    if report is None:
        raise WorldError(
            f"the TrainJob {name} is complete, but its bundle is not in {store.uri(_key(order))}; "
            "do the pods reach the same storage? Delete the job to train again"
        )
    try:
        cluster.delete(name)
    except WorldError as error:  # the bundle is here, and that is what counts
        print(f"the TrainJob {name} is left behind: {error}", flush=True)
    _clear(order, store)
    return report


def name_of(training: str) -> str:
    """Return the name of the job of a training, the same for every try."""
    return f"tokiwa-{training[:20].lower()}"


def _address(order: launch.Order) -> str:
    """Return the address of the storage, the same for step and pods."""
    config = order.config
    storage = config.trainjob.storage
    if storage != "store":
        if not Path(storage.path).is_dir():
            raise ConfigError(
                f"finetune.trainjob.storage: no volume is mounted at {storage.path} in this step"
            )
        return storage.path
    if not order.store.startswith("s3://"):
        raise ConfigError(
            f"finetune.nodes is {config.nodes}, but the object store is a folder of this "
            "machine: set TOKIWA_STORE to s3://bucket/prefix, or finetune.trainjob.storage to "
            "a shared volume"
        )
    for key, place in (
        ("distill.teacher", config.distill.teacher if config.method == "distill" else ""),
        ("augment.synonyms", config.augment.synonyms),
    ):
        if place not in ("", "champion") and ":" not in place:
            raise ConfigError(
                f"finetune.{key} is {place}, which other machines do not have: put it in a "
                "package of the image (package:path), or on a volume in finetune.trainjob.storage"
            )
    return order.store


def _key(order: launch.Order) -> str:
    return f"trainjobs/{order.training}"


def _publish(order: launch.Order, store: Store) -> None:
    """Lay everything that the training reads into the storage; the order comes last."""
    key = _key(order)
    if store.exists(f"{key}/order.json") and store.get(f"{key}/order.json"):
        return
    store.upload_directory(f"{key}/prepared", order.prepared)
    if not _is_in_image(order.start):
        store.upload_directory(f"{key}/base", order.start.base.locate())
    travelling = JobOrder(
        start=order.start,
        champion="" if order.champion is None else bundle.publish(store, order.champion),
        task=order.task,
        config=order.config,
        lineage=order.lineage,
        training=order.training,
    )
    store.put(f"{key}/order.json", travelling.to_json().encode())


def _is_in_image(start: Start) -> bool:
    return ":" in start.base.place


def _arrived(order: launch.Order, store: Store) -> FinetuneReport | None:
    """Fetch report and bundle, if they are there."""
    try:
        content = store.get(f"{_key(order)}/report.json")
        report = FinetuneReport.from_json(content.decode())
        shutil.rmtree(order.folder, ignore_errors=True)
        store.download_directory(bundle.key_of(report.bundle), order.folder)
        bundle.verify(order.folder, report.bundle)
    except (ObjectMissing, BundleError):
        return None
    return report


def _clear(order: launch.Order, store: Store) -> None:
    """Empty what only the training needed; the order first, as it promises the rest."""
    order.clear()
    key = _key(order)
    for each in (f"{key}/order.json", *store.list(f"{key}/prepared/"), *store.list(f"{key}/base/")):
        store.put(each, b"")


def _ensure(cluster: Cluster, name: str, order: launch.Order, address: str) -> None:
    """Adopt the job of an earlier try, or create it; one that failed makes room."""
    job = cluster.job(name)
    if job is not None and job.status == "Failed":
        print(f"the TrainJob {name} of an earlier try failed; it is started again", flush=True)
        cluster.delete(name)
        job = None
    if job is None and cluster.create(name, order, address):
        print(f"created the TrainJob {name} of {order.config.nodes} nodes", flush=True)
    else:
        print(f"adopted the TrainJob {name}, which is there already", flush=True)


def _followed(
    cluster: Cluster, name: str, config: TrainJobConfig, watcher: Watcher, told: threading.Event
) -> TokiwaError | None:
    """Follow a job to its end; return None when it is complete, else why it failed."""
    output = _Output(cluster, name, watcher)
    # The job's own deadline comes first, if its controller knows of it.
    deadline_s = time.monotonic() + config.timeout_hours * 3600 + PATIENCE_S
    seen_s, state = time.monotonic(), ""
    while True:
        try:
            job = cluster.job(name)
        except _Unreachable:
            if time.monotonic() - seen_s > PATIENCE_S:
                raise
        else:
            if job is None:
                raise WorldError(f"the TrainJob {name} was deleted while the step followed it")
            seen_s = time.monotonic()
            states = {step.name: step.status for step in job.steps}
            now = ", ".join(f"{step} {states[step]}" for step in sorted(states))
            if now != state:
                print(f"TrainJob {name}: {job.status}; {now}", flush=True)
                state = now
            output.follow(states.get(f"{NODE}-0"))
            output.pass_on()
            if job.status in ("Complete", "Failed"):
                output.close()
                return None if job.status == "Complete" else _failure(cluster, job, output)
        if told.wait(config.poll_s):
            raise Evicted(f"the step was told to stop; the TrainJob {name} goes on without it")
        if time.monotonic() > deadline_s:
            raise _too_long(name, config, state)


def _too_long(name: str, config: TrainJobConfig, state: str) -> WorldError:
    return WorldError(
        f"the TrainJob {name} did not end within {config.timeout_hours:g} hours "
        f"({state or 'it has no pods'}); raise finetune.trainjob.timeout_hours, or see why its "
        "pods do not start"
    )


def _failure(cluster: Cluster, job: TrainJob, output: _Output) -> TokiwaError:
    """Return why a job failed, in the words of the training if it had any."""
    ends = cluster.ends(job.name)
    said = [output.failure] if output.failure else []
    for step in job.steps:
        if step.name != f"{NODE}-0":
            said += filter(None, map(_failure_in, cluster.last_lines(step.pod_name)))
    if cluster.reason(job.name) == "DeadlineExceeded":  # which also tells its pods to stop
        return _too_long(job.name, cluster.config, "it was ended by its deadline")
    for message, exit_code in said:
        if exit_code == UserError.exit_code:
            return UserError(message)
    ways = ", ".join(f"{pod} ended with {end}" for pod, end in sorted(ends.items()))
    told_to_stop = any(exit_code == Evicted.exit_code for _, exit_code in said)
    # Nodes that lose another one fail, too: what they say of it is no reason.
    if told_to_stop or any(end.is_eviction for end in ends.values()):
        return Evicted(f"the TrainJob {job.name} lost a machine ({ways or 'its pods are gone'})")
    if said:
        return launch.error_of(*said[0])
    lines = "".join(f"\n    {line}" for line in output.last)
    return WorldError(
        f"the TrainJob {job.name} failed: {ways or 'its pods are gone'}"
        + (f"; the last lines of its first pod are:{lines}" if lines else "")
    )


def _failure_in(line: str) -> tuple[str, int] | None:
    said = launch.heard(line)
    return (str(said[1][0]), int(said[1][1])) if said and said[0] == "failed" else None


class _Output:
    """What the first pod prints, read in a thread because reading waits for more."""

    def __init__(self, cluster: Cluster, name: str, watcher: Watcher) -> None:
        self._cluster, self._name, self._watcher = cluster, name, watcher
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._complete = False
        self._passed: list[int] = []  # hashes of the lines that came so far
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.failure: tuple[str, int] | None = None

    def follow(self, phase: str | None) -> None:
        """Read on, if there is a pod to read from and nobody reads."""
        ended = phase in ("Succeeded", "Failed")
        self._complete = self._complete and ended
        reads = self._thread is not None and self._thread.is_alive()
        if phase in (None, "Pending") or reads or self._complete:
            return
        self._thread = threading.Thread(target=self._read, args=(ended,), daemon=True)
        self._thread.start()

    def _read(self, ended: bool) -> None:
        number = 0
        try:
            for line in self._cluster.lines(self._name, f"{NODE}-0"):
                # A log is read from its beginning again when the connection broke. One that
                # begins otherwise is that of a new container.
                if number < len(self._passed) and self._passed[number] != hash(line):
                    del self._passed[number:]
                if number == len(self._passed):
                    self._passed.append(hash(line))
                    self._lines.put(line)
                number += 1
        except WorldError:
            return  # the next look at the job tells whether it matters
        self._complete = ended

    def pass_on(self) -> None:
        """Pass on what has come since the last time."""
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return
            self.failure = _failure_in(line) or self.failure
            if launch.heard(line) is None:
                self.last.append(line)
            launch.pass_on(line, self._watcher)

    def close(self) -> None:
        """Read to the end of a pod that has ended."""
        for _ in range(CLOSING_TRIES):
            self.follow("Succeeded")
            if self._thread is not None:
                self._thread.join(CLOSING_S)
            if self._complete:
                break
        self.pass_on()


# --- the cluster -----------------------------------------------------------------------


class _Unreachable(WorldError):
    """The Kubernetes API did not answer, or not now."""


class _NotThere(WorldError):
    """The Kubernetes API knows no such object."""


class _Taken(WorldError):
    """There is an object of this name already."""


@dataclass(frozen=True)
class End:
    """How a pod's container ended."""

    code: int
    reason: str = ""
    disrupted: bool = False
    """The pod was taken away, or its machine was lost."""

    @property
    def is_eviction(self) -> bool:
        """Whether it is worth a retry."""
        return self.disrupted or self.code == Evicted.exit_code

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason not in ("", "Error") else ""
        return f"exit code {self.code}{reason}"


@dataclass
class Cluster:
    """What is asked of Kubeflow Trainer, with errors that say what to do.

    Every question is bounded in time.
    """

    config: TrainJobConfig
    _client: Any = field(init=False)

    def __post_init__(self) -> None:
        """Find the cluster: that of the pod, or that of ``KUBECONFIG``."""
        from kubeflow.trainer import KubernetesBackendConfig, TrainerClient
        from kubernetes.config import ConfigException

        settings = KubernetesBackendConfig(
            namespace=self.config.namespace or None, config_file=os.environ.get("KUBECONFIG")
        )
        try:
            self._client = self._ask("connect to the cluster", lambda: TrainerClient(settings))
        except ConfigException as error:
            raise WorldError(
                "finetune.nodes is more than 1, but there is no cluster here: neither is this "
                f"a pod, nor is there a kubeconfig ({error})"
            ) from error

    @property
    def namespace(self) -> str:
        """Where jobs are created."""
        return str(self._client.backend.namespace)

    def job(self, name: str) -> TrainJob | None:
        """Return a job with its pods, None if there is none."""
        try:
            job: TrainJob = self._ask(
                f"read the TrainJob {name}", lambda: self._client.get_job(name)
            )
        except _NotThere:
            return None
        return job

    def create(self, name: str, order: launch.Order, address: str) -> bool:
        """Create a job; False if somebody else was first.

        Raises:
            ConfigError: there is no such runtime, or the cluster refuses the job.
        """
        runtime = self.config.runtime
        try:
            self._ask(f"read the runtime {runtime}", lambda: self._client.get_runtime(runtime))
        except _NotThere as error:
            raise ConfigError(
                f"finetune.trainjob.runtime: there is no training runtime {runtime!r} in the "
                f"cluster or its namespace {self.namespace}"
            ) from error
        trainer, options = self._described(name, order, address)
        try:
            self._ask(
                f"create the TrainJob {name}",
                lambda: self._client.train(runtime=runtime, trainer=trainer, options=options),
            )
        except _Taken:
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete a job and wait until it is gone."""
        try:
            self._ask(f"delete the TrainJob {name}", lambda: self._client.delete_job(name))
        except _NotThere:
            return
        deadline_s = time.monotonic() + DELETION_S
        while self.job(name) is not None:
            if time.monotonic() > deadline_s:
                raise WorldError(f"the TrainJob {name} is being deleted, and does not go away")
            time.sleep(min(1.0, self.config.poll_s))

    def lines(self, name: str, step: str) -> Iterator[str]:
        """Yield what a pod of a job has printed and goes on to print; waits for more."""
        try:
            yield from self._client.get_job_logs(name, follow=True, step=step)
        except Exception as error:
            raise self._explained(f"read the log of {step} of {name}", error) from error

    def last_lines(self, pod: str) -> list[str]:
        """Return the last lines of a pod, none if it is gone."""
        core = self._client.backend.core_api

        def read() -> bytes:
            # Raw, because the client takes a log of one line of JSON for an object.
            answer = core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=NODE,
                tail_lines=LAST_LINES,
                _preload_content=False,
            )
            return bytes(answer.data)

        try:
            content = self._ask(f"read the log of {pod}", read)
        except WorldError:
            return []
        return content.decode(errors="replace").splitlines()

    def ends(self, name: str) -> dict[str, End]:
        """Return how the containers of a job's pods ended, by pod; only what went wrong."""
        from kubeflow.trainer.constants.constants import POD_LABEL_SELECTOR

        core = self._client.backend.core_api
        try:
            pods = self._ask(
                f"list the pods of {name}",
                lambda: core.list_namespaced_pod(
                    self.namespace, label_selector=POD_LABEL_SELECTOR.format(trainjob_name=name)
                ),
            )
        except WorldError:
            return {}
        found = {}
        for pod in pods.items:
            gone = {each.type for each in pod.status.conditions or [] if each.status == "True"}
            disrupted = "DisruptionTarget" in gone or pod.status.reason in ("Evicted", "NodeLost")
            for status in pod.status.container_statuses or []:
                end = status.state.terminated or status.last_state.terminated
                if end is not None and (end.exit_code or disrupted):
                    found[pod.metadata.name] = End(end.exit_code, end.reason or "", disrupted)
            if disrupted:
                found.setdefault(pod.metadata.name, End(137, pod.status.reason or "", True))
        return found

    def reason(self, name: str) -> str:
        """Return the reason that a failed job gives, empty if it gives none."""
        from kubeflow.trainer.constants.constants import GROUP, TRAINJOB_PLURAL, VERSION

        read = self._client.backend.custom_api.get_namespaced_custom_object
        try:
            job: dict[str, Any] = self._ask(
                f"read the TrainJob {name}",
                lambda: read(GROUP, VERSION, self.namespace, TRAINJOB_PLURAL, name),
            )
        except WorldError:
            return ""
        for each in job.get("status", {}).get("conditions", []):
            if each["type"] == "Failed" and each["status"] == "True":
                return str(each["reason"])
        return ""

    def _described(self, name: str, order: launch.Order, address: str) -> tuple[Any, list[Any]]:
        """Return what the SDK makes a TrainJob of."""
        from kubeflow.trainer import CustomTrainerContainer
        from kubeflow.trainer.options import (
            ActiveDeadlineSeconds,
            Labels,
            Name,
            TrainerArgs,
            TrainerCommand,
        )

        config = self.config
        resources = {"gpu": config.gpus_per_node, "cpu": config.cpu, "memory": config.memory}
        environment = {key: os.environ[key] for key in ENVIRONMENT if os.environ.get(key)}
        trainer = CustomTrainerContainer(
            image=config.image or images.TRAIN,
            num_nodes=order.config.nodes,
            resources_per_node={key: str(each) for key, each in resources.items() if each} or None,
            env={**environment, "TOKIWA_TRAINING": order.training},
        )
        arguments = [address, _key(order)]
        arguments += ["--secret", SECRET_FOLDER] if config.secret else []
        return trainer, [
            Name(name),
            Labels({"app.kubernetes.io/managed-by": "tokiwa"}),
            TrainerCommand(["python", "-m", "components.finetune.trainjob"]),
            TrainerArgs(arguments),
            ActiveDeadlineSeconds(max(1, round(config.timeout_hours * 3600))),
            self._patch(),
        ]

    def _patch(self) -> Any:
        """Return what the pods need beyond the runtime: volumes and an account.

        A secret comes as files, because Trainer accepts no variables of its containers that
        refer to one.
        """
        from kubeflow.trainer.options import (
            ContainerPatch,
            JobSetSpecPatch,
            JobSetTemplatePatch,
            JobSpecPatch,
            JobTemplatePatch,
            PodSpecPatch,
            PodTemplatePatch,
            ReplicatedJobPatch,
            RuntimePatch,
            TrainingRuntimeSpecPatch,
        )

        config = self.config
        # NCCL's processes of one machine meet there; 64 MiB, the default, are too little.
        volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
        mounts: list[dict[str, Any]] = [{"name": "shm", "mountPath": "/dev/shm"}]
        if config.storage != "store":
            claim = {"claimName": config.storage.claim}
            volumes.append({"name": "storage", "persistentVolumeClaim": claim})
            mounts.append({"name": "storage", "mountPath": config.storage.path})
        if config.secret:
            volumes.append({"name": "secret", "secret": {"secretName": config.secret}})
            mounts.append({"name": "secret", "mountPath": SECRET_FOLDER, "readOnly": True})
        pod = PodSpecPatch(
            service_account_name=config.service_account or None,
            volumes=volumes,
            containers=[ContainerPatch(NODE, volume_mounts=mounts)],
        )
        job = JobTemplatePatch(spec=JobSpecPatch(PodTemplatePatch(spec=pod)))
        jobs = JobSetSpecPatch([ReplicatedJobPatch(NODE, job)])
        return RuntimePatch(TrainingRuntimeSpecPatch(JobSetTemplatePatch(spec=jobs)))

    def _ask(self, act: str, question: Callable[[], Answer]) -> Answer:
        """Return the answer to a question that may take ``ANSWER_S`` at most."""
        answers: queue.SimpleQueue[tuple[Answer | None, Exception | None]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put((question(), None))
            except Exception as error:
                answers.put((None, error))

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer, error = answers.get(timeout=ANSWER_S)
        except queue.Empty:
            raise _Unreachable(
                f"cannot {act}: the Kubernetes API does not answer within {ANSWER_S:g} s"
            ) from None
        if error is not None:
            raise self._explained(act, error) from error
        return answer  # type: ignore[return-value]

    def _explained(self, act: str, error: BaseException) -> Exception:
        """Return a clear error for what the SDK raised; what is no answer stays as it is."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ApiException | HTTPError | TimeoutError):
            cause = cause.__cause__
        if cause is None and isinstance(error, Exception):
            return error
        if not isinstance(cause, ApiException):
            return _Unreachable(f"cannot {act}: the Kubernetes API does not answer ({cause})")
        said = _message(cause)
        if cause.status == 404:
            return _NotThere(f"cannot {act}: {said}")
        if cause.status == 409:
            return _Taken(f"cannot {act}: {said}")
        if cause.status in (401, 403):
            return WorldError(
                f"cannot {act}: the Kubernetes API denies access ({cause.status}: {said}); the "
                "step's service account needs the rights that components/finetune/trainjob.py lists"
            )
        if cause.status in (400, 422):
            return ConfigError(f"cannot {act}: the cluster refuses it: {said}")
        return _Unreachable(f"cannot {act}: the Kubernetes API answers {cause.status}: {said}")


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)


# --- a pod -----------------------------------------------------------------------------


def main(address: str, key: str, secret: Path | None) -> int:
    """Be a pod of the job: train with the others, and leave what came of it.

    Args:
        address: of the storage.
        key: of the order, without ``/order.json``.
        secret: folder whose files become environment variables.

    Returns:
        The exit code; what went wrong is told in the last line.
    """
    signal.signal(signal.SIGTERM, _evicted)  # the first process of a container ignores it
    first = int(os.environ.get("PET_NODE_RANK", "0")) == 0
    for file in sorted(secret.iterdir()) if secret is not None else []:
        if file.is_file():
            os.environ[file.name] = file.read_text().strip()
    try:
        with tempfile.TemporaryDirectory() as place:
            store = open_store(address)
            order = _fetched(store, address, key, Path(place))
            watcher = launch.Telling() if first else Silent()
            count = launch.processes_of(order.config)
            report = launch.together(order, watcher, count, alone=False)
            if report is not None:
                bundle.publish(store, order.folder)
                store.put(f"{key}/report.json", report.to_json().encode())
    except TokiwaError as error:
        launch.tell("failed", str(error), error.exit_code)
        return error.exit_code
    return 0


def _evicted(*_: object) -> None:
    raise Evicted("the pod was told to stop")


def _fetched(store: Store, address: str, key: str, place: Path) -> launch.Order:
    """Fetch what an order needs; return it as one of this machine."""
    travelled = JobOrder.from_json(store.get(f"{key}/order.json").decode())
    store.download_directory(f"{key}/prepared", place / "prepared")
    start = travelled.start
    if not _is_in_image(start):
        store.download_directory(f"{key}/base", place / "base")
        base = start.base.model_copy(update={"place": str(place / "base")})
        start = start.model_copy(update={"base": base})
    return launch.Order(
        prepared=place / "prepared",
        start=start,
        champion=bundle.fetch_champion(store, travelled.champion),
        folder=place / "bundle",
        task=travelled.task,
        config=travelled.config,
        lineage=travelled.lineage,
        store=address,
        training=travelled.training,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A pod of a TrainJob that fine-tunes.")
    parser.add_argument("address", help="of the storage")
    parser.add_argument("key", help="of the order in the storage")
    parser.add_argument("--secret", type=Path, help="folder: its files become variables")
    given = parser.parse_args()
    sys.exit(main(given.address, given.key, given.secret))
