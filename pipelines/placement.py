"""Give the steps of a graph what section ``cluster`` says, through kfp and kfp-kubernetes.

The graph itself stays the same: nothing but the place differs from a local run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl import structures
from kfp.dsl.pipeline_context import Pipeline

from components.attempts import NODE
from pipelines.cluster import Affinity, ClusterConfig, Pod

SHARED_MEMORY = "/dev/shm"
RETRIED_FOR = f"{366 * 86_400}s"
"""Argo counts this from the start of the first attempt, tries nothing again that failed later,
and ends the attempts that it does make by it: so it must be beyond what steps and waits take."""
TITLES = {
    "resolve": "Resolve: look at the world once",
    "ingest": "Ingest the windows",
    "validate": "Validate the rows",
    "decline": "Decline: nothing to train on",
    "prepare": "Prepare: split and embed",
    "search": "Search hyperparameters",
    "choose": "Choose the best trial",
    "finetune": "Fine-tune a challenger",
    "evaluate": "Evaluate against the champion",
    "register": "Register the challenger",
    "deploy": "Deploy: make it champion",
    "summarize": "Summarize a part of the window",
    "collect": "Collect what production saw",
    "drift": "Drift: compare with the profile",
    "trigger": "Trigger: retrain or not",
    "score": "Score the rows of a file",
    "notify": "Notify: how it ended",
}
"""What the UI calls each step."""


@dataclass(frozen=True)
class Placement:
    """Where the steps of a project's graph run.

    Attributes:
        project: the project's name, a label of its pods.
        graph: the graph's name, another one.
        cluster: its section.
    """

    project: str
    graph: str
    cluster: ClusterConfig

    @property
    def pipeline_config(self) -> dsl.PipelineConfig:
        """What concerns a run as a whole."""
        return dsl.PipelineConfig(
            ttl_seconds_after_finished=self.cluster.keep_s,
            active_deadline_seconds=self.cluster.timeout_s,
        )


def place(placement: Placement | None) -> None:
    """Give every step of the graph that is being built its pod; None is a local run.

    The last statement of each graph calls it, so that no step can be forgotten.
    """
    if placement is None:
        return
    for name, task in Pipeline.get_default_pipeline().tasks.items():
        if task.container_spec is not None:
            _place(task, name, placement)


def _place(task: Any, step: str, placement: Placement) -> None:
    pod = placement.cluster.pod(step)
    task.set_display_name(TITLES[step])
    _set_resources(task, pod)
    _choose_machines(task, pod)
    _set_environment(task, pod)
    own = {
        "tokiwa/project": placement.project,
        "tokiwa/graph": placement.graph,
        "tokiwa/step": step,
    }
    for key, value in (pod.labels | own).items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in pod.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)
    kubernetes.set_timeout(task, pod.timeout_s)
    if pod.retries.most:
        task.set_retry(
            pod.retries.most,
            backoff_duration=f"{pod.retries.wait_s}s",
            backoff_factor=pod.retries.factor,
            backoff_max_duration=RETRIED_FOR,
        )
    kubernetes.set_security_context(
        task,
        run_as_user=pod.run_as.user,
        run_as_group=pod.run_as.group,
        run_as_non_root=pod.run_as.non_root,
    )
    kubernetes.set_image_pull_policy(task, pod.image_pull_policy)
    if pod.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(pod.image_pull_secrets))
    if not pod.cache:
        task.set_caching_options(False)


def _set_resources(task: Any, pod: Pod) -> None:
    cpu_limit, memory_limit = pod.limits
    # At once, because each setter of kfp walks the whole stack: 3 s for the default project.
    task.container_spec.resources = structures.ResourceSpec(
        cpu_request=pod.cpu,
        cpu_limit=cpu_limit,
        memory_request=pod.memory,
        memory_limit=memory_limit,
        accelerator_type=pod.gpu and pod.gpu.type,
        accelerator_count=pod.gpu and str(pod.gpu.count),
    )
    if pod.gpu is not None:
        # What GPU pools are tainted with by custom; those of slices of a GPU like the others.
        taint = "nvidia.com/gpu" if pod.gpu.type.startswith("nvidia.com/") else pod.gpu.type
        kubernetes.add_toleration(task, key=taint, operator="Exists", effect="NoSchedule")
    if pod.shared_memory is not None:
        kubernetes.empty_dir_mount(
            task, "shared-memory", SHARED_MEMORY, medium="Memory", size_limit=pod.shared_memory
        )
    scratch = pod.scratch
    if scratch is None:
        return
    if scratch.claim is not None:
        kubernetes.mount_pvc(task, scratch.claim, scratch.mount)
    else:
        kubernetes.add_ephemeral_volume(
            task,
            "scratch",
            scratch.mount,
            access_modes=["ReadWriteOnce"],
            size=scratch.size,
            storage_class_name=scratch.storage_class,
        )
    task.set_env_variable("TMPDIR", scratch.mount)


def _choose_machines(task: Any, pod: Pod) -> None:
    for key, value in pod.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for each in pod.tolerations:
        kubernetes.add_toleration(
            task,
            key=each.key,
            operator=each.operator,
            value=each.value,
            effect=each.effect,
            toleration_seconds=each.seconds,
        )
    # In one term, because a machine that suits one of several terms suits Kubernetes.
    required = [_expression(term) for term in pod.affinity if term.weight is None]
    if required:
        kubernetes.add_node_affinity(task, required)
    for term in pod.affinity:
        if term.weight is not None:
            kubernetes.add_node_affinity(task, [_expression(term)], weight=term.weight)


def _expression(affinity: Affinity) -> dict[str, Any]:
    return {
        "key": affinity.key,
        "operator": affinity.operator,
        "values": list(affinity.values),
    }


def _set_environment(task: Any, pod: Pod) -> None:
    for secret in pod.secrets:
        kubernetes.use_secret_as_env(task, secret.name, dict(secret.keys), optional=secret.optional)
    for each in pod.config_maps:
        kubernetes.use_config_map_as_env(task, each.name, dict(each.keys), optional=each.optional)
    # The id of the run, for the lines that the step prints, and which attempt this is.
    kubernetes.use_field_path_as_env(task, "TOKIWA_RUN", "metadata.labels['pipeline/runid']")
    kubernetes.use_field_path_as_env(
        task, NODE, "metadata.annotations['workflows.argoproj.io/node-name']"
    )
