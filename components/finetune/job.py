"""What a method is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from components.errors import ConfigError
from components.finetune.batches import Examples
from components.finetune.checkpoint import Checkpoints
from components.finetune.config import FinetuneConfig
from components.finetune.history import Clock, History, Silent, Watcher
from components.finetune.loop import Phase, Training
from components.tasks.model import Model


@dataclass(frozen=True)
class Job:
    """A model to fine-tune, and everything that a method may need for it.

    Attributes:
        model: where to start; a method may change it in place.
        train: rows to learn from.
        valid: rows that name the best epoch.
        config: the section ``finetune``.
        fresh: makes a new model on the pretrained base.
        teacher: a model to learn from, if there is one.
        watcher: told about loss and scores.
        checkpoints: gives the place for the state of a training by its name.
        clock: counts the seconds of all trainings of the job.
        rows_of: gives ``train`` and ``valid`` as another model sees them; None where all
            models see the same.
    """

    model: Model
    train: Examples
    valid: Examples
    config: FinetuneConfig
    fresh: Callable[[], Model]
    teacher: Model | None = None
    watcher: Watcher = field(default_factory=Silent)
    checkpoints: Callable[[str], Checkpoints | None] = lambda name: None
    clock: Clock = field(default_factory=Clock)
    rows_of: Callable[[Model], tuple[Examples, Examples]] | None = None

    def with_config(self, **changes: object) -> Job:
        """Return the job with some keys of its configuration changed."""
        return replace(self, config=self.config.model_copy(update=changes))

    def with_model(self, model: Model) -> Job:
        """Return the job for another model: its token ids, and its order of labels."""
        if model is self.model or self.rows_of is None:
            return replace(self, model=model)
        train, valid = self.rows_of(model)
        return replace(self, model=model, train=train, valid=valid)

    def training(
        self,
        phases: Sequence[Phase],
        *,
        name: str = "main",
        teacher: torch.Tensor | None = None,
        learns: Sequence[str] | None = None,
        keep_end: bool = False,
    ) -> Training:
        """Return the training of the model in these phases, see ``Training``."""
        return Training(
            self.model,
            self.train,
            self.valid,
            self.config,
            phases,
            self.watcher,
            self.checkpoints(name),
            teacher,
            learns,
            self.clock,
            keep_end,
        )

    def require_layers(self) -> None:
        """Refuse a network in one piece.

        Raises:
            ConfigError: the network's layers are not found, so that none can be frozen.
        """
        if not self.model.network.layers:
            raise ConfigError(
                f"finetune.method {self.config.method} needs a model whose layers can be told "
                "apart, and those of this one were not found; use full or head"
            )

    def cut_at(self, frozen_layers: int) -> int:
        """Return the cut above so many layers; 0 layers leave the embeddings free, too."""
        most = self.model.network.depth - 1
        return min(frozen_layers, most - 1) + 1 if frozen_layers else 0


@dataclass(frozen=True)
class Outcome:
    """What a method leaves.

    Attributes:
        model: the trained one; for ``distill`` another than it was given.
        history: how training went.
        adapter: the weights of low-rank adapters before they were merged, by name.
        note: what a person should know of how it was done.
    """

    model: Model
    history: History
    adapter: dict[str, torch.Tensor] = field(default_factory=dict)
    note: str = ""
