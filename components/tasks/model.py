"""What every kind of model can do, whatever it reads and answers.

A row's content is a string: the text itself, an image as base64 of a PNG, or a record as
JSON. A model turns contents into examples (token ids, pixels), examples into batches of tensors,
and the network's outputs into answers. Everything else (training loop, gate, server)
is written against this interface and knows no kind of task.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from components.decision_rule import DecisionRule
from components.errors import BundleError
from components.operating_point import OperatingPointConfig

if TYPE_CHECKING:
    import torch

    from components.tasks.networks import Staged

Content = Literal["text", "image", "record"]
Example = NDArray[Any]
Features = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Labelled:
    """Embeddings ``[n, d]`` of rows and their targets ``[n]``."""

    vectors: NDArray[np.float32]
    targets: NDArray[Any]


class Network(Protocol):
    """What answers for a batch: torch, or another form of the same network."""

    def infer(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return outputs ``[n, k]`` for what ``Model.inputs`` made of a batch."""


class Model(ABC):
    """A network, what turns rows into its inputs, and what turns its outputs into answers.

    Attributes:
        network: a ``torch.nn.Module`` that can be cut between its stages.
        facts: what the model remembers of its task, as JSON-able values.
        rule: how it was calibrated and decides, fitted on validation rows when it was trained.
            None while it learns, where it was adopted, and where answers are numbers: answers
            are as the network gives them, and the most probable label is said.
        content: what a row holds.
        score_names: names of all ``scores``.
        metric: name of the primary score, one of them.
        gate_metric: name of the score that challenger and champion are compared by.
        naive: what ``naive_answers`` are, in words; ``probe`` for ``probe_answers``.
    """

    network: Staged
    facts: dict[str, Any]
    rule: DecisionRule | None = None
    content: ClassVar[Content]
    score_names: ClassVar[tuple[str, ...]]
    metric: ClassVar[str]
    gate_metric: ClassVar[str]
    naive: ClassVar[str]
    probe: ClassVar[str] = "linear probe"

    @classmethod
    @abstractmethod
    def from_base(cls, base: Path, task: Any, *, dropout: float) -> Self:
        """Return a new head on the pretrained backbone in ``base``.

        The head starts from torch's current random state.

        Raises:
            BundleError: the folder holds no safetensors model that loads.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, network: Network | None = None) -> Self:
        """Return the model of a bundle.

        Args:
            folder: the bundle.
            network: another form of its network, to answer in place of torch's. Such a
                model predicts and cannot be trained; torch is not even imported.

        Raises:
            BundleError: files are missing, do not fit, or hold weights that are not finite.
        """

    @classmethod
    def adopt(cls, folder: Path, task: Any) -> Self:
        """Return the model that somebody else trained in ``folder``, as it stands.

        Raises:
            BundleError: it does not load, answers in other terms, or no such model can
                be adopted for this task.
        """
        raise BundleError(
            f"no model can be adopted for {task.kind}; train a first champion instead"
        )

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration and preprocessing into ``folder``."""

    @abstractmethod
    def configure(self, task: Any, *, dropout: float) -> None:
        """Take over what the project says, where a model that was loaded to learn may differ.

        Its rule goes: it is of what the model was, and not of what it will have learnt.

        Args:
            task: what to learn.
            dropout: share of what the head reads that training drops.
        """

    def fit_inputs(self, contents: Sequence[str]) -> None:
        """Learn from training rows how to read contents; nothing, unless a task says."""
        del contents

    @abstractmethod
    def encode(self, contents: Sequence[str]) -> list[Example]:
        """Return one array for each content: ``int64 [tokens]`` or ``uint8 [c, h, w]``."""

    @abstractmethod
    def inputs(self, examples: Sequence[Example]) -> tuple[NDArray[Any], ...]:
        """Return the network's inputs for a batch of examples, as arrays."""

    def collate(self, examples: Sequence[Example]) -> tuple[torch.Tensor, ...]:
        """Return the network's inputs for a batch of examples, as tensors."""
        import torch

        return tuple(map(torch.from_numpy, self.inputs(examples)))

    def cut_contents(self, examples: Sequence[Example]) -> int:
        """Return how many examples are as long as the model can read: cut, most likely."""
        return 0

    def truncated(self, contents: Sequence[str], examples: Sequence[Example]) -> list[int]:
        """Return the places of contents that the model reads the beginning of only."""
        return []

    @staticmethod
    @abstractmethod
    def facts_of(task: Any) -> dict[str, Any]:
        """Return what a new model remembers of its task."""

    @staticmethod
    @abstractmethod
    def outputs_of(task: Any) -> int:
        """Return the width of the network's output that a task needs."""

    @abstractmethod
    def can_continue(self, task: Any) -> bool:
        """Tell whether a task may start from this model: it answers in the same terms.

        A model that was saved for a task of another kind does not.
        """

    @property
    @abstractmethod
    def answer_names(self) -> tuple[str, ...]:
        """What the columns of the answers are."""

    @abstractmethod
    def targets(self, labels: Sequence[str]) -> NDArray[np.float64] | NDArray[np.int64]:
        """Return the labels as the numbers that ``losses`` and ``scores`` take, ``[n]``.

        Raises:
            SourceError: a label that this model does not know.
        """

    @abstractmethod
    def losses(
        self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        """Return the loss of each row, ``[n]``, of outputs ``[n, k]`` in float32."""

    @abstractmethod
    def answers(self, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what the network's outputs mean, ``[n, answers]``."""

    @abstractmethod
    def scores(self, targets: NDArray[Any], answers: NDArray[np.float64]) -> dict[str, float]:
        """Return the scores of answers by name; ``metric`` is one of them."""

    @abstractmethod
    def decided(self, answers: NDArray[np.float64]) -> NDArray[Any]:
        """Return what each answer says, in the form of targets, ``[n]``.

        An answer that is left to a person says what it leans to, see ``abstained``.
        """

    @abstractmethod
    def decisions(self, answers: NDArray[np.float64]) -> list[str]:
        """Return what each answer says, in the form of a row's label, see ``decided``."""

    def abstained(self, answers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which answers are left to a person ``[n]``; none, unless a project asks."""
        if self.rule is None:
            return np.zeros(len(answers), dtype=bool)
        return self.rule.abstained(answers)

    def fitted_rule(
        self,
        targets: NDArray[Any],
        answers: NDArray[np.float64],
        aim: OperatingPointConfig,
        *,
        calibrate: bool,
    ) -> DecisionRule | None:
        """Return how to decide for an aim; None where there is nothing to decide.

        Args:
            targets: of validation rows ``[n]``.
            answers: to these, by a model without a rule ``[n, answers]``.
            aim: what is asked of the decisions.
            calibrate: whether a temperature may be fitted.
        """
        return None

    @abstractmethod
    def errors(self, targets: NDArray[Any], answers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how wrong each answer is, 0 to 1, ``[n]``."""

    @abstractmethod
    def answer_features(self, answers: NDArray[np.float64]) -> Features:
        """Return what can be watched of answers without labels, an array ``[n]`` per name."""

    @abstractmethod
    def input_features(self, contents: Sequence[str]) -> Features:
        """Return what can be said of contents without a network, an array ``[n]`` per name."""

    def input_categories(self, contents: Sequence[str]) -> dict[str, list[str]]:
        """Return what kinds contents are of, a list ``[n]`` per name; none, unless a task says."""
        return {}

    def answer_categories(self, answers: NDArray[np.float64]) -> dict[str, list[str]]:
        """Return what kinds answers are of, a list ``[n]`` per name; none, unless a task says."""
        return {}

    answers_are_probabilities: ClassVar[bool] = False
    """Whether answers ``[n, k]`` say how probable each class is, and ``decided`` is its index."""

    @abstractmethod
    def responses(self, answers: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Return each answer as a client gets it: strings, floats, or floats by name."""

    @abstractmethod
    def naive_answers(self, targets: NDArray[Any], rows: int) -> NDArray[np.float64]:
        """Return what to answer ``rows`` times if all that is known are some targets."""

    @abstractmethod
    def probe_answers(
        self, train: Labelled, valid: Labelled, vectors: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return what the simplest model on embeddings answers, ``[n, answers]``.

        Args:
            train: to learn from.
            valid: to set a threshold by.
            vectors: of the rows to answer, ``[n, d]``.
        """

    def edge_contents(self) -> list[str]:
        """Return contents at the edges of what may be asked; a sound model answers them, too."""
        return []

    @property
    def answer_range(self) -> float:
        """How far apart two answers can be."""
        return 1.0

    def trains_on(self, targets: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which rows may be learnt from, ``[n]``: all, unless a task says otherwise."""
        return np.ones(len(targets), dtype=bool)

    def distillation_losses(
        self, outputs: torch.Tensor, teacher: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Return how far each row's outputs are from a teacher's, ``[n]``."""
        return (outputs - teacher).square().mean(-1)

    @abstractmethod
    def probe_head(
        self, vectors: NDArray[np.float32], targets: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights ``[k, d]`` and bias ``[k]`` of a linear head that fits ``vectors [n, d]``.

        The vectors are of length one, as ``prepare`` leaves them.
        """

    fits_head: ClassVar[bool] = False
    """Whether the head has a closed form, see ``fit_head``."""

    def fit_head(self, train: torch.Tensor, valid: torch.Tensor) -> None:
        """Fit the head on features ``[n, d]`` of the rows that may be learnt from."""
        assert not self.fits_head, "a task whose head has a closed form says which"

    def predict(
        self,
        contents: Sequence[str],
        on_batch: Callable[[int], None] | None = None,
        batch_rows: int = 64,
    ) -> NDArray[np.float64]:
        """Return the answer for each content, shape ``[n, answers]``, in order.

        Args:
            contents: any contents, empty texts too.
            on_batch: told how many are done.
            batch_rows: rows at a time; does not change the answers beyond rounding.
        """
        examples = self.encode(contents)
        done, parts = 0, []
        order = length_order(examples)
        for start in range(0, len(order), batch_rows):
            rows = order[start : start + batch_rows]
            inputs = self.inputs([examples[row] for row in rows])
            parts.append(self.answers(self.network.infer(*inputs)))
            done += len(rows)
            if on_batch:
                on_batch(done)
        if not parts:
            return np.zeros((0, len(self.answer_names)))
        sorted_answers = np.concatenate(parts)
        out = np.empty_like(sorted_answers)
        out[order] = sorted_answers
        return out


def length_order(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Return the order in which examples of like length sit together.

    It saves most of the padding, and with it most of the time.
    """
    return np.argsort([len(example) for example in examples], kind="stable").astype(np.int64)


def rule_in(saved: dict[str, Any]) -> DecisionRule | None:
    """Return the rule in what a model has saved of itself; bundles of old have none.

    Raises:
        BundleError: the rule is for other labels.
    """
    if saved.get("rule") is None:
        return None
    rule = DecisionRule.model_validate(saved["rule"])
    labels = saved["facts"]["labels"]
    if rule.point.labels != tuple(labels):
        raise BundleError(
            f"the model answers {', '.join(labels)}, "
            f"its operating point is for {', '.join(rule.point.labels)}"
        )
    return rule
