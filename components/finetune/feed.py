"""From rows to what the network reads: the order of the steps, frozen states, parts of a step.

What frozen stages make of a row never changes, so it is computed once for a phase.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from components.errors import ConfigError
from components.finetune import batches, smote
from components.finetune.augment import augmenter, chance_of, noisy_copies
from components.finetune.batches import Examples
from components.finetune.config import FinetuneConfig
from components.finetune.history import Watcher
from components.finetune.memory import available_bytes
from components.finetune.processes import Processes
from components.finetune.shelf import Shelf
from components.tasks.model import Model, length_order
from components.tasks.networks import Mix

PREDICT_ROWS = 64
FROZEN_MEMORY_SHARE = 1 / 2
"""Share of the memory that is left, for what frozen stages make of the rows."""


@dataclass
class Feed:
    """Rows on their way into the part of the network above a cut.

    Attributes:
        items: what that part reads: examples, or states of the frozen part.
        targets: of each row, ``[n]``.
        lengths: of each row's item, for batches of like length.
        cut: stages that are frozen.
        copies: noisy copies of every row behind one another in ``items``.
    """

    items: Sequence[Any]
    targets: NDArray[Any]
    lengths: NDArray[np.int64]
    cut: int
    copies: int = 1

    @property
    def length_order(self) -> NDArray[np.int64]:
        """The order in which rows of like length sit together."""
        return np.argsort(self.lengths, kind="stable").astype(np.int64)


@dataclass(frozen=True)
class Part:
    """Rows that go through the network at once, on the device."""

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    weights: torch.Tensor
    teacher: torch.Tensor | None
    mix: Mix | None


class Feeder:
    """Feeds a training with its rows.

    All that it draws by chance is a function of the seed, the epoch and the row.
    """

    def __init__(
        self,
        model: Model,
        train: Examples,
        config: FinetuneConfig,
        *,
        teacher: torch.Tensor | None,
        processes: Processes,
        device: torch.device,
        autocast: AbstractContextManager[Any],
        watcher: Watcher,
    ) -> None:
        """Look at the rows once.

        Args:
            model: turns rows into inputs, and has the frozen stages.
            train: rows to learn from.
            config: the section ``finetune``.
            teacher: outputs of a teacher for these rows ``[n, k]``, None without one.
            processes: each is fed its share of a step.
            device: where the network is.
            autocast: in which precision frozen stages compute.
            watcher: told of the rows that went through frozen stages.
        """
        self.model, self.train, self.config, self.teacher = model, train, config, teacher
        self.processes, self.device = processes, device
        self.autocast, self.watcher = autocast, watcher
        self.augment = augmenter(model, config.augment)
        self.weights = batches.class_weights(train.targets, config.balance)
        self.lengths = _lengths(train.examples)
        self._near: NDArray[np.int64] | None = None
        self._share = np.zeros(0)

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the rows of each step of an epoch; a function of seed and epoch alone."""
        config = self.config
        chance = chance_of(config.seed, epoch)
        order = batches.epoch_rows(self.train.targets, config.balance, chance)
        tokens = config.batch_tokens
        return batches.step_rows(order, self.lengths, config.batch_rows, tokens, chance)

    def steps_by_epoch(self, epochs: int) -> NDArray[np.int64]:
        """Return the number of steps of each epoch; no epoch's rows are kept for it."""
        if self.config.batch_tokens is None:  # as many rows and steps in every epoch
            return np.full(epochs, len(self.order(0)) if epochs else 0, np.int64)
        return np.array([len(self.order(epoch)) for epoch in range(epochs)], np.int64)

    def feed(self, rows: Examples, cut: int, *, sharded: bool, noisy: bool = False) -> Feed:
        """Return rows for the part above a cut, computing what is below once.

        Args:
            rows: to learn from, or to validate on.
            cut: stages that are frozen.
            sharded: the model's own network is not on the device.
            noisy: whether to make noisy copies, as far as the config asks for them.
        """
        lengths = self.lengths if rows is self.train else _lengths(rows.examples)
        if cut == 0:
            return Feed(rows.examples, rows.targets, lengths, 0)
        examples, copies = list(rows.examples), 1
        if noisy and self.augment is not None:
            copies = self.config.augment.copies
            seed = self.config.seed
            examples = noisy_copies(rows.contents, examples, self.augment, copies, seed)
        if sharded:  # the whole network is on the device for no longer than this
            self.model.network.to(self.device)
        items = frozen_states(
            self.model,
            examples,
            cut,
            self.device,
            self.autocast,
            lambda done: self.watcher.progress(done, len(examples), "rows through frozen layers"),
            int(available_bytes() * FROZEN_MEMORY_SHARE) // self.processes.here,
        )
        if sharded:
            self.model.network.to("cpu")
        return Feed(items, rows.targets, lengths, cut, copies)

    def steps(
        self, epoch: int, first: int, feed: Feed, most_parts: Callable[[], int]
    ) -> Iterator[tuple[NDArray[np.int64], list[Part]]]:
        """Yield the rows of each step from the one numbered ``first``, and its parts.

        Args:
            epoch: whose steps.
            first: steps to leave out.
            feed: of the training rows.
            most_parts: asked for each step, see ``parts``.
        """

        def load(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Part]]:
            return rows, self.parts(epoch, rows, feed, most_parts())

        steps = iter(self.order(epoch)[first:])
        # A processor is busy with the network itself: a thread would only disturb it.
        return map(load, steps) if self.device.type == "cpu" else batches.prefetched(steps, load)

    def parts(self, epoch: int, rows: NDArray[np.int64], feed: Feed, most: int) -> list[Part]:
        """Return this process's share of a step, in ``most`` parts or as many as it has rows."""
        return [
            self._part(epoch, piece, feed)
            if len(piece)
            else self._part(epoch, rows[:1], feed, counts=False)  # all must take part
            for piece in np.array_split(self.processes.share(rows), self.count(rows, most))
        ]

    def count(self, rows: NDArray[np.int64], most: int) -> int:
        """Return in how many parts a step is computed."""
        return min(self.processes.most(len(rows)), most)

    def _part(
        self, epoch: int, rows: NDArray[np.int64], feed: Feed, *, counts: bool = True
    ) -> Part:
        model = self.model
        if feed.cut:
            shift = (epoch % feed.copies) * len(feed.targets)
            states = [feed.items[shift + row] for row in rows]
            if self.config.balance == "smote":
                states = self._blended(epoch, rows, feed, shift)
            inputs = model.network.collate(feed.cut, states)
        elif self.augment is not None:
            seed = self.config.seed
            inputs = model.collate(
                [
                    self.augment(
                        self.train.contents[row], feed.items[row], chance_of(seed, epoch, row)
                    )
                    for row in rows
                ]
            )
        else:
            inputs = model.collate([feed.items[row] for row in rows])
        targets = torch.from_numpy(feed.targets[rows])
        if targets.is_floating_point():
            targets = targets.float()
        weights = torch.from_numpy(self.weights[rows]) * float(counts)
        teacher = () if self.teacher is None else (self.teacher[torch.from_numpy(rows)],)
        moved = [self._moved(each) for each in (*inputs, targets, weights, *teacher)]
        count = len(inputs)
        return Part(
            tuple(moved[:count]),
            moved[count],
            moved[count + 1],
            moved[count + 2] if teacher else None,
            self._mix(epoch, int(rows[0]), len(rows)),
        )

    def _blended(
        self, epoch: int, rows: NDArray[np.int64], feed: Feed, shift: int
    ) -> list[torch.Tensor]:
        """Return features of drawn rows, some of rare classes between two; see ``smote``."""
        if self._near is None:
            first = torch.stack([feed.items[row] for row in range(len(feed.targets))])
            if first.ndim > 2:
                raise ConfigError(
                    "finetune.balance smote does not work with a model that keeps its own head"
                )
            self._near = smote.neighbours(first, feed.targets)
            self._share = smote.synthetic_share(feed.targets)
        chance = chance_of(self.config.seed, epoch, int(rows[0]), len(rows))
        return smote.blended(
            lambda row: feed.items[shift + row], rows, self._near, self._share, chance
        )

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor on the device; from pinned memory it travels while the GPU works."""
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _mix(self, epoch: int, row: int, count: int) -> Mix | None:
        """Draw how mixup blends a part, None where it is off."""
        alpha = self.config.mixup
        if not alpha:
            return None
        chance = chance_of(self.config.seed, epoch, row, count)
        share = float(chance.beta(alpha, alpha))
        partners = torch.from_numpy(chance.permutation(count))
        return Mix(partners.to(self.device), max(share, 1 - share))


def frozen_states(
    model: Model,
    examples: Sequence[Any],
    cut: int,
    device: torch.device,
    autocast: AbstractContextManager[Any],
    on_rows: Any = None,
    limit_bytes: int | None = None,
) -> list[torch.Tensor]:
    """Return what the stages below ``cut`` make of examples: a tensor for each, on the CPU.

    Args:
        model: its network is on ``device``.
        examples: token ids or pixels.
        cut: number of stages.
        device: where they are computed.
        autocast: in which precision.
        on_rows: told how many are done.
        limit_bytes: what goes over it lies in a file; None is no limit.
    """
    network = model.network
    network.eval()
    shelf = Shelf(len(examples), sys.maxsize if limit_bytes is None else limit_bytes)
    order = length_order(examples)
    with torch.no_grad(), autocast:
        for start in range(0, len(order), PREDICT_ROWS):
            rows = order[start : start + PREDICT_ROWS]
            inputs = model.collate([examples[row] for row in rows])
            states = network.states(cut, *(each.to(device) for each in inputs))
            for row, state in zip(rows, states, strict=True):
                shelf.put(row, state.cpu())
            if on_rows is not None:
                on_rows(min(start + PREDICT_ROWS, len(order)))
    return shelf.close()


def _lengths(examples: Sequence[Any]) -> NDArray[np.int64]:
    """Return the tokens of each text, 1 for each image."""
    return np.array([len(each) if each.ndim == 1 else 1 for each in examples], dtype=np.int64)
