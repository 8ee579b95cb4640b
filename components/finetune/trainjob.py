"""Fine-tune on several machines: a ``TrainJob`` of Kubeflow Trainer, followed to its end.

The step lays everything that the training reads into the storage (the object store, or a
volume that is mounted in step and pods), creates the job and passes on what its first pod
tells. Each pod is ``python -m components.finetune.pod ADDRESS KEY``: it fetches the
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

import importlib.util
import queue
import shutil
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from components import bundle
from components.errors import (
    BundleError,
    ConfigError,
    Evicted,
    TokiwaError,
    UserError,
    WorldError,
)
from components.finetune import launch
from components.finetune.cluster import LAST_LINES, NODE, Cluster, Unreachable
from components.finetune.config import TrainJobConfig
from components.finetune.history import Watcher
from components.finetune.job_order import JobOrder, is_in_image
from components.finetune.report import FinetuneReport
from components.finetune.sigterm import told_to_stop
from components.store import ObjectMissing, Store, open_store

if TYPE_CHECKING:
    from kubeflow.trainer.types.types import TrainJob

PATIENCE_S = 300.0
"""How long the Kubernetes API may stay away while a job runs."""
CLOSING_S = 30.0
"""How long the rest of a log may take when its pod has ended."""
CLOSING_TRIES = 3


def run(order: launch.Order, watcher: Watcher) -> FinetuneReport:
    """Fine-tune in a ``TrainJob``; see ``fulfil``.

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
    if not is_in_image(order.start):
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
    if job is None and cluster.create(
        name, order.training, order.config.nodes, [address, _key(order)]
    ):
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
        except Unreachable:
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
