"""What is asked of Kubeflow Trainer through the Kubernetes API, with errors that say what to do."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from components import images
from components.errors import ConfigError, Evicted, WorldError
from components.finetune.config import TrainJobConfig

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
DELETION_S = 120.0
LAST_LINES = 15


class Unreachable(WorldError):
    """The Kubernetes API did not answer, or not now."""


class NotThere(WorldError):
    """The Kubernetes API knows no such object."""


class Taken(WorldError):
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
        except NotThere:
            return None
        return job

    def create(self, name: str, training: str, nodes: int, arguments: list[str]) -> bool:
        """Create a job; False if somebody else was first.

        Args:
            name: of the job.
            training: what it trains, for the eyes of people.
            nodes: how many pods.
            arguments: of ``components.finetune.pod``.

        Raises:
            ConfigError: there is no such runtime, or the cluster refuses the job.
        """
        runtime = self.config.runtime
        try:
            self._ask(f"read the runtime {runtime}", lambda: self._client.get_runtime(runtime))
        except NotThere as error:
            raise ConfigError(
                f"finetune.trainjob.runtime: there is no training runtime {runtime!r} in the "
                f"cluster or its namespace {self.namespace}"
            ) from error
        trainer, options = self._described(name, training, nodes, arguments)
        try:
            self._ask(
                f"create the TrainJob {name}",
                lambda: self._client.train(runtime=runtime, trainer=trainer, options=options),
            )
        except Taken:
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete a job and wait until it is gone."""
        try:
            self._ask(f"delete the TrainJob {name}", lambda: self._client.delete_job(name))
        except NotThere:
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

    def _described(
        self, name: str, training: str, nodes: int, arguments: list[str]
    ) -> tuple[Any, list[Any]]:
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
            num_nodes=nodes,
            resources_per_node={key: str(each) for key, each in resources.items() if each} or None,
            env={**environment, "TOKIWA_TRAINING": training},
        )
        secret = ["--secret", SECRET_FOLDER] if config.secret else []
        return trainer, [
            Name(name),
            Labels({"app.kubernetes.io/managed-by": "tokiwa"}),
            TrainerCommand(["python", "-m", "components.finetune.pod"]),
            TrainerArgs([*arguments, *secret]),
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
        answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put((question(), None))
            except Exception as error:
                answers.put((None, error))

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer, error = answers.get(timeout=ANSWER_S)
        except queue.Empty:
            raise Unreachable(
                f"cannot {act}: the Kubernetes API does not answer within {ANSWER_S:g} s"
            ) from None
        if error is not None:
            raise self._explained(act, error) from error
        return cast(Answer, answer)

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
            return Unreachable(f"cannot {act}: the Kubernetes API does not answer ({cause})")
        said = _message(cause)
        if cause.status == 404:
            return NotThere(f"cannot {act}: {said}")
        if cause.status == 409:
            return Taken(f"cannot {act}: {said}")
        if cause.status in (401, 403):
            return WorldError(
                f"cannot {act}: the Kubernetes API denies access ({cause.status}: {said}); the "
                "step's service account needs the rights that components/finetune/trainjob.py lists"
            )
        if cause.status in (400, 422):
            return ConfigError(f"cannot {act}: the cluster refuses it: {said}")
        return Unreachable(f"cannot {act}: the Kubernetes API answers {cause.status}: {said}")


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
