"""Fine-tune on prepared rows and leave a sealed bundle."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components import bundle, mlmodel
from components.declared_columns import watched_kinds, watched_numbers
from components.errors import ConfigError
from components.finetune.batches import Examples
from components.finetune.checkpoint import Checkpoints
from components.finetune.config import CHAMPION, FinetuneConfig
from components.finetune.export import require_packages, write_exports
from components.finetune.history import Clock, Watcher, overfitting_remark
from components.finetune.memory import explaining_memory
from components.finetune.report import Epoch, FinetuneReport
from components.finetune.start import Start, choose, continued, features_of, start_head
from components.profile import Answers, Columns, Profile, group_numbers
from components.sources.rows import COLUMNS, SPLIT, WINDOW
from components.split import TEST_SHARE
from components.tasks import TASKS, TaskConfig
from components.tasks.model import Model

if TYPE_CHECKING:
    from components.finetune.job import Outcome

__all__ = [
    "FinetuneConfig",
    "Start",
    "choose",
    "finetune",
    "fit_rule",
    "profile_of",
]

EXAMPLES = 3
ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True)
class Trained:
    """A trained model that is not written yet, and how it came about."""

    outcome: Outcome
    start: Start
    train_rows: int
    cut_rows: int
    frame: pd.DataFrame
    device: str
    processes: int
    seconds: float
    """Of all processes that took the training up in turn."""


def finetune(
    prepared: Path,
    start: Start,
    champion: Path | None,
    folder: Path,
    task: TaskConfig,
    config: FinetuneConfig,
    lineage: dict[str, str],
    watcher: Watcher,
    checkpoints: Callable[[str], Checkpoints | None] = lambda name: None,
) -> FinetuneReport:
    """Train on the splits ``train`` and ``rehearsal``; write a sealed bundle to ``folder``.

    Args:
        prepared: folder that ``prepare`` wrote.
        start: where to start, see ``choose``.
        champion: bundle in production, or None.
        folder: where the bundle goes.
        task: what to learn.
        config: the section ``finetune``.
        lineage: digests to write into the bundle.
        watcher: told about loss and scores.
        checkpoints: the place for the state of a training, by its name.

    Raises:
        BundleError: base, champion or teacher do not load.
        ConfigError: the method does not suit the model.
        Evicted: the process was told to stop; the state is kept.
        WorldError: the loss is not finite, or memory does not suffice.
    """
    trained = train(prepared, start, champion, task, config, watcher, checkpoints)
    return write(trained, prepared, folder, task, config, lineage)


@explaining_memory(lambda: "before or after the steps of the training")
def train(
    prepared: Path,
    start: Start,
    champion: Path | None,
    task: TaskConfig,
    config: FinetuneConfig,
    watcher: Watcher,
    checkpoints: Callable[[str], Checkpoints | None],
) -> Trained:
    """Train, see ``finetune``; every process of a training does this, one of them writes."""
    import torch

    from components.finetune.job import Job
    from components.finetune.methods import METHODS
    from components.finetune.optimization import device_of
    from components.finetune.processes import Processes

    require_packages(config.export)
    device, processes = device_of(config), Processes().count
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clock = Clock()
    frame = pd.read_parquet(prepared / "rows.parquet")
    train_rows = frame[frame["split"].isin(["train", "rehearsal"])]
    valid_rows = frame[frame["split"] == "valid"]
    base = start.base.locate()

    def fresh() -> Model:
        torch.manual_seed(config.seed)
        model = TASKS[task.kind].from_base(base, task, dropout=config.dropout)
        model.fit_inputs(train_rows["text"].tolist())
        model.network.to(device)
        if model.fits_head:
            fit_head(model, Examples.of(model, train_rows), Examples.of(model, valid_rows))
        elif config.probes_head:
            _start_head(model, prepared, frame)
        return model

    def rows_of(model: Model) -> tuple[Examples, Examples]:
        rows = Examples.of(model, train_rows)
        return rows.where(model.trains_on(rows.targets)), Examples.of(model, valid_rows)

    continues = champion is not None and start.name == CHAMPION
    model = continued(champion, task, config) if champion is not None and continues else fresh()
    model.network.to(device)
    rows, valid = Examples.of(model, train_rows), Examples.of(model, valid_rows)
    if model.fits_head and continues:
        fit_head(model, rows, valid)
    torch.manual_seed(config.seed)
    outcome = METHODS[config.method](
        Job(
            model,
            rows.where(model.trains_on(rows.targets)),
            valid,
            config,
            fresh,
            _teacher(champion, task, config),
            _Metered(watcher, config, device, processes, clock),
            checkpoints,
            clock,
            rows_of,
        )
    )
    if outcome.model.fits_head:
        fit_head(outcome.model, rows, valid)
    outcome.model.network.to("cpu")
    learnt = int(model.trains_on(rows.targets).sum())
    cut = model.cut_contents(rows.examples)
    return Trained(outcome, start, learnt, cut, frame, str(device), processes, clock.seconds)


@explaining_memory(lambda: "writing the trained model")
def write(
    trained: Trained,
    prepared: Path,
    folder: Path,
    task: TaskConfig,
    config: FinetuneConfig,
    lineage: dict[str, str],
) -> FinetuneReport:
    """Write what was trained as a sealed bundle, see ``finetune``."""
    import torch

    outcome, history, frame = trained.outcome, trained.outcome.history, trained.frame
    model, start = outcome.model, trained.start
    answers = fit_rule(model, frame[frame["split"] == "valid"], config)
    profile, scores = profile_of(prepared, frame, model, answers)
    texts = model.content == "text"
    examples = [
        content[:200] if texts else content
        for content in frame["text"][frame["split"] == "train"].head(EXAMPLES)
    ]
    model.save(folder)
    exports = write_exports(model, folder, frame, config)
    if outcome.adapter:
        _save_adapter(outcome.adapter, config, folder)
    profile.save(folder)
    mlmodel.write(
        folder,
        model.content,
        model.answer_names,
        examples,
        abstains=model.rule is not None and model.rule.abstains,
    )
    digest = bundle.seal(
        folder,
        bundle.Description(
            task=task,
            recipe=config.model_dump(mode="json"),
            lineage={**lineage, "base": start.base.digest},
            scores={f"valid_{name}": value for name, value in scores.items()},
            exports=[export.name for export in exports if export.kept],
            test_share=TEST_SHARE,
            examples=examples,
        ),
    )
    hours = trained.seconds / 3600 * trained.processes
    return FinetuneReport(
        bundle=digest,
        method=config.method,
        start=start.name,
        base=start.base.place,
        start_reason=start.reason,
        candidates=list(start.candidates),
        train_rows=trained.train_rows,
        cut_rows=trained.cut_rows,
        parameters=sum(weight.numel() for weight in model.network.parameters()),
        metric=model.metric,
        scores=scores,
        rule=model.rule,
        epochs=[
            Epoch(train_loss=loss, scores=each)
            for loss, each in zip(history.train_loss, history.valid, strict=True)
        ],
        start_scores=history.start,
        best_epoch=history.best_epoch,
        steps=history.steps,
        frozen_stages=history.cut,
        accumulation=history.accumulation,
        exports=exports,
        note=outcome.note,
        remark=overfitting_remark(history.train_loss, history.valid),
        device=trained.device,
        seconds=trained.seconds,
        rows_per_second=history.rows / trained.seconds,
        tokens_per_second=history.tokens / trained.seconds,
        device_hours=hours,
        cost=hours * config.price_per_device_hour,
        peak_host_gb=peak_host_gb(),
        peak_device_gb=peak_device_gb(torch.device(trained.device)),
    )


def _start_head(model: Model, prepared: Path, frame: pd.DataFrame) -> None:
    """Start a new head from a probe on the embeddings of the current window, which are there."""
    from safetensors.numpy import load_file

    vectors = load_file(prepared / "embeddings.safetensors")["vectors"]
    learn = (frame["split"] == "train").to_numpy()
    start_head(model, Examples.of(model, frame[learn]), vectors[learn[: len(vectors)]])


def fit_head(model: Model, train: Examples, valid: Examples) -> None:
    """Fit a head that has a closed form, on the rows that may be learnt from."""
    import torch

    learn = train.where(model.trains_on(train.targets))
    judge = valid.where(model.trains_on(valid.targets))
    features = torch.from_numpy(features_of(model, learn))
    # Without rows to judge by, the threshold comes from the rows that were learnt.
    judges = torch.from_numpy(features_of(model, judge)) if len(judge) else features
    model.fit_head(features, judges)


def _teacher(champion: Path | None, task: TaskConfig, config: FinetuneConfig) -> Model | None:
    """Return the model that ``distill`` learns from, None where it has to be trained.

    Raises:
        BundleError: there is none at the place that the project names.
        ConfigError: the one that the project names answers in other terms.
    """
    from components.packages import locate

    named = config.distill.teacher != "champion"
    if config.method != "distill" or (champion is None and not named):
        return None
    folder = champion if champion and not named else locate(config.distill.teacher, "")
    kind = bundle.describe(folder).task.kind
    fits = kind == task.kind
    if fits:
        model = TASKS[task.kind].load(folder)
        fits = model.can_continue(task)
    if not fits and named:
        raise ConfigError(
            f"finetune.distill.teacher: {config.distill.teacher} is for {kind}, and answers in "
            f"other terms than the task, {task.kind}: {', '.join(task.answer_names)}"
        )
    return model if fits else None


def _save_adapter(adapter: dict[str, Any], config: FinetuneConfig, folder: Path) -> None:
    from safetensors.torch import save_file

    place = folder / ADAPTER_FOLDER
    place.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.contiguous() for name, weight in adapter.items()},
        place / "adapter_model.safetensors",
        {"lora": config.lora.to_json()},
    )


class _Metered:
    """Adds time, cost and memory to the metrics on their way to a watcher."""

    def __init__(
        self,
        watcher: Watcher,
        config: FinetuneConfig,
        device: Any,
        processes: int,
        clock: Clock,
    ) -> None:
        self._watcher = watcher
        self._price = config.price_per_device_hour
        self._device = device
        self._processes = processes
        self._clock = clock

    def metrics(self, values: dict[str, float], step: int) -> None:
        hours = self._clock.seconds / 3600 * self._processes
        more = {"device_hours": hours, "host_memory_gb": peak_host_gb()}
        if self._price:
            more["cost"] = hours * self._price
        if self._device.type == "cuda":
            more["device_memory_gb"] = peak_device_gb(self._device)
        self._watcher.metrics({**values, **more}, step)

    def progress(self, done: int, total: int, what: str) -> None:
        self._watcher.progress(done, total, what)


def peak_host_gb() -> float:
    """Return the most memory that this process has held, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def peak_device_gb(device: Any) -> float:
    """Return the most memory that was held on a GPU, in gigabytes; 0 for a processor."""
    import torch

    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def fit_rule(model: Model, valid: pd.DataFrame, config: FinetuneConfig) -> NDArray[np.float64]:
    """Fit how a trained model decides; return its answers to the rows, as it now gives them.

    No weight was trained on validation rows, but they named the best epoch, so that what is
    measured on them is a little too good; the gate measures again, on test rows. A part of
    them kept for this alone would be too few rows for either.

    Args:
        model: the trained one; gets its rule.
        valid: validation rows.
        config: the section ``finetune``.
    """
    model.rule = None
    answers = model.predict(valid["text"].tolist())
    targets = model.targets(valid["label"].tolist())
    model.rule = model.fitted_rule(
        targets, answers, config.operating_point, calibrate=config.calibrate
    )
    return answers if model.rule is None else model.rule.calibrated(answers)


def profile_of(
    prepared: Path, frame: pd.DataFrame, model: Model, answers: NDArray[np.float64]
) -> tuple[Profile, dict[str, float]]:
    """Return the profile of a model on prepared rows, and its scores on the validation rows.

    Args:
        prepared: folder that ``prepare`` wrote, for the embeddings.
        frame: its rows.
        model: the trained one.
        answers: its own to the validation rows.
    """
    from safetensors.numpy import load_file

    valid = frame[frame["split"] == "valid"]
    targets = model.targets(valid["label"].tolist())
    # The embeddings are those of the current window's rows, which come first.
    vectors = load_file(prepared / "embeddings.safetensors")["vectors"]
    train = (frame["split"] == "train").to_numpy()
    contents = frame["text"][train].tolist()
    groups = group_numbers(valid["group"])
    declared = [name for name in frame if name not in (*COLUMNS, WINDOW, SPLIT)]
    profile = Profile.of(
        str(frame["window"].iloc[0]),
        inputs=Columns(
            {**model.input_features(contents), **watched_numbers(frame[train], declared)},
            {**model.input_categories(contents), **watched_kinds(frame[train], declared)},
            group_numbers(frame["group"][train]),
        ),
        outputs=Columns(model.answer_features(answers), model.answer_categories(answers), groups),
        errors=model.errors(targets, answers),
        vectors=vectors[train[: len(vectors)]],
        answers=Answers(answers, model.decided(answers), targets.astype(np.int64), groups)
        if model.answers_are_probabilities
        else None,
        kinds=watched_kinds(valid, declared),
    )
    return profile, model.scores(targets, answers)
