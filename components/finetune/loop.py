"""The training loop that all methods share.

A method says which stages are frozen for how many epochs (its phases); the loop does
the rest, fed by ``components.finetune.feed``. A training is a pure function of its
inputs: on one kind of processor and number of threads, a run that was stopped anywhere
and resumed ends with the same weights, bit for bit.
"""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from components.errors import ConfigError, Evicted, WorldError
from components.finetune.batches import Examples
from components.finetune.checkpoint import Checkpoints, State
from components.finetune.config import FinetuneConfig
from components.finetune.feed import PREDICT_ROWS, Feed, Feeder, Part
from components.finetune.history import Clock, History, Silent, Watcher
from components.finetune.memory import explaining_memory, out_of_memory
from components.finetune.optimization import (
    Schedule,
    device_of,
    forward_precision,
    optimizer_of,
)
from components.finetune.processes import Processes
from components.finetune.sigterm import told_to_stop
from components.tasks.model import Model

REPORT_EVERY_STEPS = 10
MORE_PARTS = 4
"""In up to so many times the parts asked for is a step computed where memory does not suffice."""


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs in which the stages below ``cut`` are frozen."""

    cut: int
    epochs: int


@dataclass
class Training:
    """One training: a model, its rows, and how to go about it.

    Attributes:
        model: changed in place; ends with the best epoch's weights.
        train: rows to learn from.
        valid: rows that name the best epoch.
        config: the section ``finetune``.
        phases: in order; their stages above the cut learn.
        watcher: told about loss and scores.
        checkpoints: where the state is kept, None to keep none.
        teacher: outputs of a teacher for the training rows ``[n, k]``, for ``distill``.
        learns: names of the weights that learn; None is all above the lowest cut.
        clock: counts the seconds, those of earlier processes too.
        keep_end: whether the end is kept as a checkpoint, too, for what comes after it.
    """

    model: Model
    train: Examples
    valid: Examples
    config: FinetuneConfig
    phases: Sequence[Phase]
    watcher: Watcher = field(default_factory=Silent)
    checkpoints: Checkpoints | None = None
    teacher: torch.Tensor | None = None
    learns: Sequence[str] | None = None
    clock: Clock = field(default_factory=Clock)
    keep_end: bool = False

    def run(self) -> History:
        """Train, and leave the best epoch in place.

        Raises:
            WorldError: the loss is not finite, or memory does not suffice.
            Evicted: the process was told to stop; the state is kept.
        """
        loop = _Loop(self)
        with told_to_stop() as told, explaining_memory(loop.where):
            return loop.run(told)


class _Loop:
    def __init__(self, training: Training) -> None:
        self.t = training
        config, model = training.config, training.model
        self.network = model.network
        self.processes = Processes()
        self.sharded = config.sharded and self.processes.count > 1
        self.device = device_of(config)
        self.network.to("cpu" if self.sharded else self.device)
        if self.processes.rank:  # else all would drop out the same
            torch.manual_seed(config.seed + self.processes.rank)
        self.lowest = min((phase.cut for phase in training.phases), default=0)
        self.names = self._learning()
        rule = config.metric or model.metric
        self.history = History(rule, accumulation=config.accumulation)
        self.autocast = forward_precision(config, self.device)
        self.feeder = Feeder(
            model,
            training.train,
            config,
            teacher=training.teacher,
            processes=self.processes,
            device=self.device,
            autocast=self.autocast,
            watcher=training.watcher,
        )

    def _learning(self) -> list[str]:
        if self.t.learns is not None:
            return list(self.t.learns)
        above = [
            name
            for name, _ in self.network.named_parameters()
            if self.network.stage_of(name) >= self.lowest
        ]
        if self.t.model.fits_head:
            above = [name for name in above if self.network.stage_of(name) < self.network.depth]
        return above

    def where(self) -> str:
        """Say how far the training is."""
        return f"on {self.device.type} after step {self.history.steps}"

    # --- the run ---------------------------------------------------------------------

    def run(self, told: threading.Event) -> History:
        if not self.names or not len(self.t.train):
            self.network.eval()
            return self.history
        config = self.t.config
        cut, feed, above = -1, None, None
        if self.sharded:
            cut, above = self.lowest, self._sharded()
        self.optimizer = optimizer_of(self.network, self.names, config)
        steps = self._steps_by_phase()
        self.total = sum(steps)
        self.schedule = Schedule(self.optimizer, steps, config)
        self.best = self._snapshot()
        first_epoch, first_batch = 0, 0
        self.losses: list[Any] = []
        kept = self.t.checkpoints.load() if self.t.checkpoints else None
        if kept is not None:
            first_epoch, first_batch = self._restore(kept)
            self.t.watcher.progress(self.history.steps, self.total, "resumed")
        for epoch in range(first_epoch, self._epochs):
            if self.history.exhausted(config.patience_epochs):
                break
            if feed is None or self._cut_of(epoch) != cut:
                cut = self._cut_of(epoch)
                self.history.cut = cut
                feed = None  # it need not be held while the next is made
                made = partial(self.feeder.feed, cut=cut, sharded=self.sharded)
                feed, valid = made(self.t.train, noisy=True), made(self.t.valid)
                above = above if self.sharded else self._above(cut)
            assert above is not None
            if not self.history.start:
                self.history.start = self._scores(above, valid)
            above.train()
            self._steps(epoch, first_batch, feed, above, told)
            first_batch = 0
            self._close_epoch(epoch, above, valid)
        self._load(self.best)
        if self.t.keep_end and first_epoch < self._epochs:
            self._keep(self._epochs, 0)
        if self.sharded:
            self._gather()
        for weight in self.network.parameters():
            weight.requires_grad_(True)
        self.network.eval()
        return self.history

    @property
    def _epochs(self) -> int:
        return sum(phase.epochs for phase in self.t.phases)

    def _cut_of(self, epoch: int) -> int:
        for phase in self.t.phases:
            if epoch < phase.epochs:
                return phase.cut
            epoch -= phase.epochs
        raise ValueError("no such epoch")

    def _steps_by_phase(self) -> list[int]:
        counts = self.feeder.steps_by_epoch(self._epochs)
        ends = np.cumsum([phase.epochs for phase in self.t.phases])
        return [int(part.sum()) for part in np.split(counts, ends[:-1])]

    def _above(self, cut: int) -> nn.Module:
        learning = set(self.names)
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(name in learning and self.network.stage_of(name) >= cut)
        if self.t.config.gradient_checkpointing:
            self.network.checkpoint_activations()
        above = self.network.above(cut)
        if self.t.config.compile:
            above = cast(nn.Module, torch.compile(above, dynamic=True))
        if self.sharded:
            return self.processes.sharded(above, self.device)
        return self.processes.wrapped(above, self.device)

    def _sharded(self) -> nn.Module:
        """Train a copy that is spread over the processes; the model's own network stays whole."""
        if len(self.t.phases) > 1:
            raise ConfigError(
                f"finetune.sharded does not work with finetune.method {self.t.config.method}, "
                "which unfreezes layers on the way; use full, top, head, lora or distill"
            )
        if self.t.config.compile:
            raise ConfigError("finetune.sharded does not work with finetune.compile")
        self.network = copy.deepcopy(self.t.model.network)
        return self._above(self.lowest)

    def _gather(self) -> None:
        """Give the trained weights back to the model's own network, whole."""
        trained = {name: self.processes.whole(each) for name, each in self._changing().items()}
        self.network = self.t.model.network
        self._load(trained)
        self.network.to(self.device)

    # --- steps -----------------------------------------------------------------------

    def _steps(
        self, epoch: int, first: int, feed: Feed, above: nn.Module, told: threading.Event
    ) -> None:
        """Take the steps of an epoch from the one numbered ``first``."""
        config = self.t.config
        steps = self.feeder.steps(epoch, first, feed, lambda: self.history.accumulation)
        for batch, (rows, parts) in enumerate(steps, first + 1):
            rate = self.schedule.set(self.history.steps)
            self.losses.append(self._step(epoch, rows, parts, feed, above))
            self.history.steps += 1
            self.history.rows += len(rows)
            self.history.tokens += int(feed.lengths[rows].sum())
            done = self.history.steps
            if self.device.type == "cpu" or done % REPORT_EVERY_STEPS == 0:
                self._report(rate)
            stop = self.processes.any(told.is_set())
            if stop or done % config.checkpoint_steps == 0:
                self._keep(epoch, batch)
            if stop:
                kept = ", and its state is kept" if self.t.checkpoints else ""
                raise Evicted(f"training was told to stop at step {done} of {self.total}{kept}")
        self._report(self.schedule.set(self.history.steps - 1))

    def _step(
        self,
        epoch: int,
        rows: NDArray[np.int64],
        parts: list[Part],
        feed: Feed,
        above: nn.Module,
    ) -> torch.Tensor:
        """Take one step; halve the parts and try again where memory does not suffice."""
        while True:
            most = self.history.accumulation
            if len(parts) != self.feeder.count(rows, most):  # loaded ahead, in larger ones
                parts = self.feeder.parts(epoch, rows, feed, most)
            try:
                loss = self._gradients(len(rows), parts, above)
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if not self._may_halve(rows):
                    raise WorldError(self._does_not_fit(rows, feed)) from error
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.history.accumulation *= 2
        nn.utils.clip_grad_norm_(
            (weight for weight in self.network.parameters() if weight.grad is not None),
            self.t.config.max_gradient_norm,
        )
        self.optimizer.step()
        return loss

    def _may_halve(self, rows: NDArray[np.int64]) -> bool:
        """Tell whether the parts of a step may become smaller."""
        if self.processes.count > 1:  # the others are in the middle of the step
            return False
        most = self.t.config.accumulation * MORE_PARTS
        return self.history.accumulation < min(most, len(rows))

    def _gradients(self, rows: int, parts: list[Part], above: nn.Module) -> torch.Tensor:
        """Add up the gradients of the mean loss over the rows of a step; return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for index, part in enumerate(parts):
            with self.processes.syncing(above, last=index == len(parts) - 1):
                with self.autocast:
                    outputs = above(*part.inputs, mix=part.mix)
                loss = self._losses(outputs.float(), part).sum() / rows
                # Gradients of several processes are averaged, where they are to be added.
                torch.autograd.backward(loss * self.processes.count)
            total += loss.detach()
        return total

    def _losses(self, outputs: torch.Tensor, part: Part) -> torch.Tensor:
        """Return the weighted loss of each row, ``[n]``."""
        model, config, weights = self.t.model, self.t.config, part.weights
        losses = weights * model.losses(outputs, part.targets, config.label_smoothing)
        if part.mix is not None:
            others = part.targets[part.mix.partners]
            other_losses = model.losses(outputs, others, config.label_smoothing)
            # Each label brings the weight of its own class.
            other_losses = weights[part.mix.partners] * other_losses
            losses = part.mix.blend_losses(losses, other_losses)
            weights = part.mix.blend(weights)
        if part.teacher is None:
            return losses
        teacher = part.teacher if part.mix is None else part.mix.blend(part.teacher)
        soft = weights * model.distillation_losses(outputs, teacher, config.distill.temperature)
        return (1 - config.distill.soft_share) * losses + config.distill.soft_share * soft

    def _does_not_fit(self, rows: NDArray[np.int64], feed: Feed) -> str:
        config = self.t.config
        parts = self.feeder.count(rows, self.history.accumulation)
        key, size = "batch_rows", len(rows)
        if config.batch_tokens is not None:
            key, size = "batch_tokens", config.batch_tokens
        # Half of the smallest part that was tried, if a step is still computed in as many.
        fits = max(1, size * min(config.accumulation, parts) // (2 * parts))
        return (
            f"out of memory on {self.device.type} at step {self.history.steps + 1}: a step of "
            f"{len(rows)} rows, {int(feed.lengths[rows].max())} long, does not fit"
            f"{f' even in {parts} parts' if parts > 1 else ''}. Try finetune.{key}={fits}, "
            "finetune.gradient_checkpointing=true or finetune.method=top"
        )

    def _report(self, rate: float) -> None:
        """Turn the new losses into numbers, and show them; refuse one that is not finite."""
        fresh = [index for index, loss in enumerate(self.losses) if torch.is_tensor(loss)]
        if not fresh:
            return
        values = self.processes.summed(torch.stack([self.losses[index] for index in fresh]))
        for index, value in zip(fresh, values, strict=True):
            self.losses[index] = value
            if not math.isfinite(value):
                step = self.history.steps - len(self.losses) + 1 + index
                last = self.history.best_epoch
                raise WorldError(
                    f"the loss is {value} at step {step} of {self.total}, learning rate "
                    f"{rate:.2g}; lower finetune.learning_rate or finetune.head_learning_rate. "
                    f"The last good state is that of {f'epoch {last}' if last else 'the start'}"
                )
        done = self.history.steps
        self.t.watcher.progress(done, self.total, f"loss {self.losses[-1]:.3f}")
        if done % REPORT_EVERY_STEPS == 0:
            self.t.watcher.metrics({"loss": self.losses[-1], "learning_rate": rate}, done)

    def _close_epoch(self, epoch: int, above: nn.Module, valid: Feed) -> None:
        scores = self._scores(above, valid)
        train_loss = float(np.mean(self.losses))
        values = {f"valid_{name}": value for name, value in scores.items()}
        self.t.watcher.metrics({**values, "train_loss": train_loss}, self.history.steps)
        if self.history.keep(scores, train_loss):
            self.best = self._snapshot()
        self.losses = []

    def _scores(self, above: nn.Module, valid: Feed) -> dict[str, float]:
        """Return the scores on the validation rows, the mean loss among them."""
        model = self.t.model
        above.eval()
        everything = valid.length_order
        order = self.processes.share(everything)
        answers, losses = [], []
        with torch.no_grad(), self.autocast:
            for start in range(0, self.processes.most(len(everything)), PREDICT_ROWS):
                # All must take part, be it with a row that is another's.
                counts = start < len(order)
                rows = order[start : start + PREDICT_ROWS] if counts else everything[:1]
                items = [valid.items[row] for row in rows]
                inputs = (
                    self.network.collate(valid.cut, items) if valid.cut else model.collate(items)
                )
                outputs = above(*(each.to(self.device) for each in inputs)).float()
                if not counts:
                    continue
                if not bool(outputs.isfinite().all()):
                    done = self.history.steps
                    raise WorldError(
                        "the model's answers to validation rows are not finite "
                        + (
                            f"after step {done}; lower finetune.learning_rate"
                            if done
                            else "before the first step; start from another model, see "
                            "finetune.start and finetune.base"
                        )
                    )
                targets = torch.from_numpy(valid.targets[rows]).to(self.device)
                losses.append(model.losses(outputs, targets, 0.0).double().cpu().numpy())
                answers.append(model.answers(outputs.cpu().numpy()))
        gathered = self.processes.gathered((order, answers, losses))
        places = np.concatenate([place for place, _, _ in gathered])
        found = np.concatenate([part for _, parts, _ in gathered for part in parts])
        loss = np.concatenate([part for _, _, parts in gathered for part in parts])
        return {**model.scores(valid.targets[places], found), "loss": float(loss.mean())}

    # --- the state -------------------------------------------------------------------

    def _changing(self) -> dict[str, torch.Tensor]:
        """Return the tensors that training changes, by name; they share memory."""
        weights = dict(self.network.named_parameters())
        return {name: weights[name].detach() for name in self.names}

    def _snapshot(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self._changing().items()}

    def _load(self, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self._changing().items():
                tensor.copy_(self.processes.spread(tensors[name], tensor))

    def _keep(self, epoch: int, batch: int) -> None:
        """Write a checkpoint after ``batch`` batches of an epoch; after the last, of the best."""
        if self.t.checkpoints is None:
            return
        parts = {f"weight.{name}": each for name, each in self._changing().items()}
        if epoch < self._epochs:
            self._report(self.schedule.set(self.history.steps - 1))
            if self.history.best_epoch:  # else the best is where every process starts
                parts |= {f"best.{name}": each for name, each in self.best.items()}
            moments = self.optimizer.state_dict()["state"]
            parts |= {
                f"moment.{index}.{name}": each
                for index, state in moments.items()
                for name, each in state.items()
            }
        tensors = {}
        for name, each in parts.items():
            whole = self.processes.whole(each)  # all must take part
            if self.processes.rank == 0:
                tensors[name] = whole.cpu()
        for rank, states in enumerate(self.processes.gathered(_random_states(self.device))):
            tensors |= {f"random.{rank}.{name}": each for name, each in states.items()}
        facts = {
            "epoch": epoch,
            "batch": batch,
            "losses": self.losses,
            "history": self.history.to_dict(),
            "seconds": self.t.clock.seconds,
        }
        if self.processes.rank == 0:
            self.t.checkpoints.save(State(self.history.steps, facts, tensors))
        self.processes.wait()  # else the first to leave would take the writer with it

    def _restore(self, kept: State) -> tuple[int, int]:
        """Take over a checkpoint; return epoch and batch at which to go on."""
        facts = kept.facts
        self.history = History(**facts["history"])
        self.losses = list(facts["losses"])
        self.t.clock.go_on(facts["seconds"])
        self._load(_below(kept.tensors, "weight."))
        best = _below(kept.tensors, "best.")
        if best:
            self.best = {
                name: self.processes.spread(best[name].to(self.device), like)
                for name, like in self._changing().items()
            }
        elif facts["epoch"] == self._epochs:
            self.best = self._snapshot()
        weights = [each for group in self.optimizer.param_groups for each in group["params"]]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        # In one order, as processes that gather the tensors again must agree on it.
        for name, tensor in sorted(_below(kept.tensors, "moment.").items()):
            index, key = name.split(".")
            like = weights[int(index)]
            part = tensor if key == "step" else self.processes.spread(tensor, like)
            moments.setdefault(int(index), {})[key] = part
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**whole, "state": moments})
        _set_random_states(_below(kept.tensors, f"random.{self.processes.rank}."), self.device)
        return int(facts["epoch"]), int(facts["batch"])


def _below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)
    }


def _random_states(device: torch.device) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    if not states:  # it was kept by fewer processes
        return
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
