"""Section ``cluster`` of a project file: what the pods of the steps get on Kubernetes.

Nothing in it changes what a step computes, and a local run reads none of it. Secrets and
config maps are named with their keys; a value never gets into the compiled YAML.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from components.attempts import NODE
from components.settings import Section
from pipelines.quantities import Bytes, Cpu, GpuType, cores, in_bytes

MAX_GPUS = 16
"""More sit in no machine; several machines are the Trainer's business (``finetune.launch``)."""
MAX_WAIT_S = 86_400
"""Longest wait before an attempt: a day."""
OTHERS_LABELS = (
    "tokiwa",
    "pipeline",
    "pipelines.kubeflow.org",
    "workflows.argoproj.io",
    "serving.kserve.io",
    "app.kubernetes.io/component",
)
"""Prefixes of labels, and a label, by which pods are told apart."""
OTHERS_VARIABLES = (
    "TMPDIR",
    "TOKIWA_RUN",
    NODE,
    "HOME",
    "PATH",
    "PYTHONPATH",
    "LD_PRELOAD",
    "LD_LIBRARY_PATH",
)
TAKEN = (
    *("/gcs", "/kfp-launcher", "/minio", "/s3"),
    *("/app", "/bin", "/dev", "/etc", "/lib", "/opt/tokiwa", "/proc", "/sys", "/usr", "/var/run"),
)
"""Where KFP's launcher, the image and Kubernetes have their files."""
_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"


def _object_name(name: str) -> str:
    if not re.fullmatch(rf"{_NAME}(\.{_NAME})*", name) or len(name) > 253:
        raise ValueError("is no name of Kubernetes: small letters, digits, - and . between them")
    return name


def _object_name_or_none(name: str) -> str:
    return _object_name(name) if name else name


def _namespace(name: str) -> str:
    if name and (not re.fullmatch(_NAME, name) or len(name) > 63):
        raise ValueError("is no namespace: up to 63 small letters, digits, and - between them")
    return name


ObjectName = Annotated[str, AfterValidator(_object_name)]
"""Name of an object of Kubernetes."""
NAMED = r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
LabelKey = Annotated[
    str, StringConstraints(pattern=rf"^({_NAME}(\.{_NAME})*/)?{NAMED}$", max_length=317)
]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^({NAMED})?$")]
SecretKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
"""Name of an environment variable."""


def _own_label(key: str) -> str:
    prefix = key.rpartition("/")[0]
    if prefix and {prefix, key} & set(OTHERS_LABELS):
        raise ValueError(
            "is a label that Kubeflow or Tokiwa sets, and network policies and quotas go by"
        )
    return key


OwnLabel = Annotated[LabelKey, AfterValidator(_own_label)]


def _variable_of_others(name: str) -> str:
    if name in OTHERS_VARIABLES:
        raise ValueError("is a variable that the image or Tokiwa sets; choose another")
    return name


OwnVariable = Annotated[Variable, AfterValidator(_variable_of_others)]


def _mount(folder: str) -> str:
    path = PurePosixPath("/", folder.strip("/"))
    if ".." in path.parts or any(
        path.is_relative_to(each) or PurePosixPath(each).is_relative_to(path) for each in TAKEN
    ):
        raise ValueError("would hide what a pod needs; take a folder of its own, such as /scratch")
    return folder


Folder = Annotated[
    str, StringConstraints(pattern=r"^/[-._a-zA-Z0-9/]+$", max_length=200), AfterValidator(_mount)
]


class Gpu(Section):
    """GPUs of a step, all in one machine."""

    type: GpuType = "nvidia.com/gpu"
    count: int = Field(default=1, ge=1, le=MAX_GPUS)


class Toleration(Section):
    """A taint of machines that a step may run on in spite of it; no key tolerates all."""

    key: LabelKey | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    seconds: int | None = Field(default=None, ge=0)
    """How long to stay on a machine that gets the taint; needs the effect NoExecute."""

    @model_validator(mode="after")
    def _as_kubernetes_wants_it(self) -> Toleration:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("a toleration with the operator Exists takes no value")
        if self.key is None and self.operator == "Equal":
            raise ValueError("a toleration without a key needs the operator Exists")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("a toleration's seconds need the effect NoExecute")
        return self


class Affinity(Section):
    """A label that a machine must have, or with a weight should have."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: tuple[LabelValue, ...] = ()
    weight: int | None = Field(default=None, ge=1, le=100)
    """1 to 100 prefers such machines; without it, the step runs on no others."""

    @model_validator(mode="after")
    def _as_kubernetes_wants_it(self) -> Affinity:
        wanted = {
            "Exists": range(1),
            "DoesNotExist": range(1),
            "Gt": range(1, 2),
            "Lt": range(1, 2),
        }
        if len(self.values) not in wanted.get(self.operator, range(1, 1000)):
            raise ValueError(
                f"an affinity by {self.operator} cannot have {len(self.values)} values"
            )
        if self.operator in ("Gt", "Lt") and not re.fullmatch("[0-9]+", self.values[0]):
            raise ValueError(f"an affinity by {self.operator} compares with a whole number")
        return self


class Scratch(Section):
    """A volume for temporary files, at which TMPDIR points.

    Without one, temporary files go to the machine's own disk. What must outlive a pod,
    checkpoints above all, is in the object store in either case.
    """

    mount: Folder = "/scratch"
    claim: ObjectName | None = None
    """A PersistentVolumeClaim that exists."""
    size: Bytes | None = None
    """Size of a volume that is made for the pod and deleted with it."""
    storage_class: ObjectName | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Scratch:
        if (self.claim is None) == (self.size is None):
            raise ValueError("scratch needs either a claim, or the size of a volume of its own")
        if self.claim is not None and self.storage_class is not None:
            raise ValueError("scratch.storage_class belongs to a size; a claim has its own")
        return self


class EnvironmentOf(Section):
    """Keys of a Secret or ConfigMap that become environment variables."""

    name: ObjectName
    keys: dict[SecretKey, OwnVariable] = Field(min_length=1)
    """The variable for each key."""
    optional: bool = False
    """Start without them if they are not there."""


def _variables(*environments: EnvironmentOf) -> list[str]:
    """Return all variables that Secrets and ConfigMaps give."""
    return [variable for each in environments for variable in each.keys.values()]


def _without(
    variables: Collection[str], environments: Iterable[EnvironmentOf]
) -> Iterator[EnvironmentOf]:
    """Yield what is left of Secrets and ConfigMaps without some variables."""
    for each in environments:
        left = {key: name for key, name in each.keys.items() if name not in variables}
        if left:
            yield each.model_copy(update={"keys": left})


class Retries(Section):
    """How often a pod that failed is started again.

    Kubeflow Pipelines counts every failure: its launcher ends with 1 whatever the step
    ended with, so an eviction (75) and a mistake (2) look alike to it. A mistake ends the
    further attempts at once, see ``components.attempts``.
    """

    most: int = Field(default=1, ge=0, le=10)
    wait_s: int = Field(default=30, ge=0, le=3600)
    factor: int = Field(default=2, ge=1, le=10)
    """By which each wait is longer than the one before; Argo reads whole numbers only."""

    @model_validator(mode="after")
    def _waits_are_worth_it(self) -> Retries:
        last_s = self.wait_s * self.factor ** max(0, self.most - 1)
        if last_s > MAX_WAIT_S:
            raise ValueError(
                f"the last of {self.most} waits would take {last_s} s, more than {MAX_WAIT_S}: "
                "lower most, wait_s or factor"
            )
        return self


class RunAs(Section):
    """Whom the process of a step runs as; the image's own user by default."""

    user: int | None = Field(default=None, ge=0)
    group: int | None = Field(default=None, ge=0)
    non_root: bool = True

    @model_validator(mode="after")
    def _root_is_root(self) -> RunAs:
        if self.non_root and self.user == 0:
            raise ValueError("user 0 is root; leave user out, or set non_root: false")
        return self


class Pod(Section):
    """What the pod of a step gets. What a step leaves out comes from the default."""

    cpu: Cpu = "1"
    """Cores to reserve."""
    memory: Bytes = "2Gi"
    """Bytes to reserve."""
    cpu_limit: Cpu | None = None
    """As many as reserved by default."""
    memory_limit: Bytes | None = None
    """As many as reserved by default."""
    gpu: Gpu | None = None
    """For the steps that load a model; no other gets the default's."""
    shared_memory: Bytes | None = None
    """For data loaders' processes; counts as memory of the pod."""
    node_selector: dict[LabelKey, LabelValue] = {}
    tolerations: tuple[Toleration, ...] = ()
    affinity: tuple[Affinity, ...] = ()
    scratch: Scratch | None = None
    secrets: tuple[EnvironmentOf, ...] = (
        # Beside these and those of config_maps come a file's own, which win; an empty list is none.
        EnvironmentOf(
            name="tokiwa-store",
            keys={each: each for each in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")},
            optional=True,
        ),
    )
    config_maps: tuple[EnvironmentOf, ...] = (
        EnvironmentOf(
            name="tokiwa", keys={each: each for each in ("TOKIWA_STORE", "MLFLOW_TRACKING_URI")}
        ),
        EnvironmentOf(
            name="tokiwa",
            keys={each: each for each in ("AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION")},
            optional=True,
        ),
    )
    labels: dict[OwnLabel, LabelValue] = {}
    """Of the pod, for the bill."""
    annotations: dict[LabelKey, str] = {}
    timeout_s: int = Field(default=6 * 3600, ge=60, le=30 * 86_400)
    """After which the pod is stopped, and the step has failed."""
    retries: Retries = Retries()
    run_as: RunAs = RunAs()
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: tuple[ObjectName, ...] = ()
    cache: bool = True
    """Whether a result may be taken from before; the steps that read the world never do."""

    @property
    def limits(self) -> tuple[str, str]:
        """The most of CPU and memory that the pod may use."""
        return self.cpu_limit or self.cpu, self.memory_limit or self.memory

    def impossible(self) -> str:
        """Return the key and what about it no pod can be, or nothing."""
        cpu, memory = self.limits
        if cores(self.cpu) > cores(cpu):
            return f"cpu_limit of {cpu} is below the {self.cpu} that cpu reserves"
        if in_bytes(self.memory) > in_bytes(memory):
            return f"memory_limit of {memory} is below the {self.memory} that memory reserves"
        if self.shared_memory is not None and in_bytes(self.shared_memory) >= in_bytes(memory):
            return f"shared_memory of {self.shared_memory} must be below the pod's {memory}"
        given = Counter(_variables(*self.secrets, *self.config_maps))
        if twice := [name for name, count in given.items() if count > 1]:
            return f"secrets and config_maps give {', '.join(twice)} more than once"
        return ""


class Steps(Section):
    """What single steps get instead of the default."""

    model_config = ConfigDict(serialize_by_alias=True)

    resolve: Pod | None = None
    ingest: Pod | None = None
    validate_: Pod | None = Field(default=None, alias="validate")
    decline: Pod | None = None
    prepare: Pod | None = None
    search: Pod | None = None
    choose: Pod | None = None
    finetune: Pod | None = None
    evaluate: Pod | None = None
    register_: Pod | None = Field(default=None, alias="register")
    deploy: Pod | None = None
    summarize: Pod | None = None
    collect: Pod | None = None
    drift: Pod | None = None
    trigger: Pod | None = None
    notify: Pod | None = None
    score: Pod | None = None


_FIELDS = {field.alias or name: name for name, field in Steps.model_fields.items()}
STEPS = tuple(_FIELDS)
_MODEL = {"cpu": "2", "memory": "6Gi"}
_BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    # Steps that load a model; those that resume from a checkpoint are worth more attempts.
    **dict.fromkeys(("prepare", "evaluate", "deploy", "summarize", "collect", "score"), _MODEL),
    **dict.fromkeys(("search", "finetune"), _MODEL | {"retries": Retries(most=3, wait_s=60)}),
}
WITH_MODEL = tuple(_BUILT_IN)


class ClusterConfig(Section):
    """Section ``cluster``."""

    namespace: Annotated[str, AfterValidator(_namespace)] = ""
    """Of the profile, where Kubeflow has several; empty where it has none."""
    service_account: Annotated[str, AfterValidator(_object_name_or_none)] = ""
    """Under which runs work; Kubeflow's own by default."""
    fan_out: bool = True
    """Compile loops. Some servers stumble over a loop under an exit handler
    (kubeflow/pipelines#12390); a search then has one worker."""
    timeout_s: int | None = Field(default=None, ge=60, le=30 * 86_400)
    """After which a whole run is stopped."""
    keep_s: int | None = Field(default=7 * 86_400, ge=0, le=2_147_483_647)
    """How long Kubernetes keeps the pods of a finished run; null is for ever."""
    default: Pod = Pod()
    steps: Steps = Steps()

    def pod(self, step: str) -> Pod:
        """Return what the pod of a step gets: its own, the default's, or what is built in.

        What the file says counts, also where it says what would be so anyway: ``gpu: null``
        takes the default's GPU from a step. The built-in variables, without which no step finds
        its state, stay beside those of the file.
        """
        own: Pod | None = getattr(self.steps, _FIELDS[step])
        given = dict(_BUILT_IN.get(step, {}))
        for section in (self.default, own):
            if section is not None:
                given |= {name: getattr(section, name) for name in section.model_fields_set}
        own_names = _variables(*given.get("secrets", ()), *given.get("config_maps", ()))
        for name in ("secrets", "config_maps"):
            if given.get(name) != ():
                built_in = Pod.model_fields[name].default
                given[name] = (*given.get(name, ()), *_without(own_names, built_in))
        if step not in WITH_MODEL and (own is None or "gpu" not in own.model_fields_set):
            given["gpu"] = None
        return Pod(**given)

    def impossible(self) -> str:
        """Return the first request that no pod can be, with its place, or nothing."""
        for step in STEPS:
            pod = self.pod(step)
            if wrong := pod.impossible():
                place = "default" if wrong == self.default.impossible() else f"steps.{step}"
                return f"cluster.{place}.{wrong}"
            if pod.gpu is not None and step not in WITH_MODEL:
                return (
                    f"cluster.steps.{step}.gpu would lie idle, for {step} loads no model; "
                    f"these do: {', '.join(WITH_MODEL)}"
                )
        return ""
