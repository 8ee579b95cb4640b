"""Text classification: one label out of two or more for a text.

torch and transformers are imported where they are used: naming a task must cost
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from components.errors import BundleError
from components.settings import Section

if TYPE_CHECKING:
    import torch

_POSITIONS_AFTER_PADDING = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})


def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) != len(labels):
        raise ValueError("labels must differ from each other")
    return labels


class TextClassification(Section):
    """Section ``task`` with ``kind: text-classification``."""

    kind: Literal["text-classification"] = "text-classification"
    labels: Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_distinct)]
    """The classes, in the order of the model's outputs."""
    max_tokens: int = Field(default=128, ge=8, le=8192)
    """Longer texts are cut, and counted."""


class TextClassifier:
    """An encoder with a classification head, its tokenizer and its labels.

    Attributes:
        network: a ``torch.nn.Module`` from token ids and mask to logits ``[n, k]``.
        labels: the classes, in the order of the logits.
        head: ``mean-pool`` for ours, ``native`` for an adopted model's own.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        tokenizer: Any,
        labels: Sequence[str],
        max_tokens: int,
        head: Literal["mean-pool", "native"] = "mean-pool",
    ) -> None:
        """Put the parts together; see ``from_base``, ``load`` and ``adopt``."""
        self.network = network
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.max_tokens = max_tokens
        self.head = head

    @classmethod
    def from_base(cls, base: Path, task: TextClassification, *, dropout: float) -> TextClassifier:
        """Return a new head on the pretrained encoder in ``base``.

        The head starts from torch's current random state. It reads the mean of the
        token vectors, for which sentence encoders such as MiniLM were trained.

        Raises:
            BundleError: the folder holds no safetensors model that loads.
        """
        from components.tasks.networks import MeanPoolClassifier

        backbone, tokenizer = load_encoder(base)
        network = MeanPoolClassifier(backbone, len(task.labels), dropout)
        limit = usable_tokens(backbone.config, task.max_tokens)
        return cls(network, tokenizer, task.labels, limit)

    @classmethod
    def adopt(cls, folder: Path, task: TextClassification) -> TextClassifier:
        """Return the transformers sequence classifier in ``folder`` as it stands.

        Raises:
            BundleError: it does not load, or its labels are not the task's.
        """
        from components.tasks.networks import NativeClassifier

        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            model = AutoModelForSequenceClassification.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise BundleError(f"{folder} holds no transformers classifier: {error}") from error
        own = tuple(model.config.id2label[index] for index in range(model.config.num_labels))
        if set(own) != set(task.labels):
            raise BundleError(
                f"the model in {folder} knows the labels {', '.join(own)}, "
                f"the project {', '.join(task.labels)}"
            )
        limit = usable_tokens(model.config, task.max_tokens)
        return cls(NativeClassifier(model), tokenizer, own, limit, "native")

    @classmethod
    def load(cls, folder: Path) -> TextClassifier:
        """Return the model of a bundle.

        Raises:
            BundleError: files are missing, do not fit, or hold weights that are not finite.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        from transformers import (
            AutoConfig,
            AutoModel,
            AutoModelForSequenceClassification,
            AutoTokenizer,
        )

        from components.tasks.networks import MeanPoolClassifier, NativeClassifier

        try:
            classifier = json.loads((folder / "classifier.json").read_text())
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            labels = classifier["labels"]
            network: torch.nn.Module
            if classifier["head"] == "native":
                network = NativeClassifier(AutoModelForSequenceClassification.from_config(config))
            else:
                backbone = AutoModel.from_config(config)
                network = MeanPoolClassifier(backbone, len(labels), classifier["dropout"])
            weights = load_file(folder / "model.safetensors")
            network.load_state_dict(weights)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise BundleError(f"the model in {folder} does not load: {error}") from error
        for name, weight in weights.items():
            if weight.is_floating_point() and not bool(weight.isfinite().all()):
                raise BundleError(f"the model in {folder} has weights that are not finite: {name}")
        network.eval()
        return cls(network, tokenizer, labels, classifier["max_tokens"], classifier["head"])

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration and tokenizer into ``folder``."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name: weight.detach().cpu().contiguous()
            for name, weight in self.network.state_dict().items()
        }
        save_file(weights, folder / "model.safetensors")
        self.network.config.save_pretrained(folder)  # type: ignore[operator, union-attr]
        self.tokenizer.save_pretrained(folder)
        classifier = {
            "labels": list(self.labels),
            "max_tokens": self.max_tokens,
            "head": self.head,
            "dropout": getattr(self.network, "dropout_share", 0.0),
        }
        (folder / "classifier.json").write_text(json.dumps(classifier, indent=2, sort_keys=True))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, cut at ``max_tokens``."""
        return encode(self.tokenizer, texts, self.max_tokens)

    def predict(
        self, texts: Sequence[str], on_batch: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """Return class probabilities, shape ``[len(texts), len(labels)]``, in order.

        Args:
            texts: any texts, empty ones too.
            on_batch: told how many texts are done.
        """
        import torch

        out = np.zeros((len(texts), len(self.labels)))
        self.network.eval()
        done = 0
        with torch.inference_mode():
            for rows, ids, mask in length_sorted(self.encode(texts)):
                logits = self.network(ids, mask).double()
                out[rows] = logits.softmax(-1).numpy()
                done += len(rows)
                if on_batch:
                    on_batch(done)
        return out


def load_encoder(base: Path) -> tuple[Any, Any]:
    """Return the pretrained encoder in a folder and its tokenizer.

    Raises:
        BundleError: no safetensors weights, remote code needed, or unreadable.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        encoder = AutoModel.from_pretrained(
            base, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(
            base, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"the base model in {base} does not load: {error}") from error
    return encoder.eval(), tokenizer


def usable_tokens(config: Any, wanted: int) -> int:
    """Return how many tokens a model can read of the ``wanted`` ones.

    Models of RoBERTa's family count positions from behind the padding's id.
    """
    positions = getattr(config, "max_position_embeddings", None) or wanted
    if config.model_type in _POSITIONS_AFTER_PADDING:
        positions -= (config.pad_token_id or 0) + 1
    return int(min(wanted, positions))


def encode(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Return the token ids of each text, cut at ``max_tokens``."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=max_tokens)[
        "input_ids"
    ]
    return ids


def pad(ids: Sequence[Sequence[int]], pad_id: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids padded to the longest, and the mask, both ``int64 [n, width]``."""
    import torch

    width = max(1, *(len(row) for row in ids))
    padded = torch.full((len(ids), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(ids), width), dtype=torch.long)
    for index, row in enumerate(ids):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    return padded, mask


def length_sorted(
    ids: Sequence[Sequence[int]], batch_rows: int = 64, pad_id: int = 0
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor, torch.Tensor]]:
    """Yield ``(row numbers, padded ids, mask)`` with texts of like length together.

    Sorting by length saves most of the padding, and with it most of the time.
    """
    order = np.argsort([len(row) for row in ids], kind="stable")
    for start in range(0, len(order), batch_rows):
        rows = order[start : start + batch_rows]
        yield rows, *pad([ids[row] for row in rows], pad_id)
