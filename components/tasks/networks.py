"""The torch modules behind the models, and how they are cut between their stages.

A stage is a part that can be frozen by itself: the embeddings, then each layer, then
the head. ``cut`` counts frozen stages from the bottom: 0 freezes nothing, and what
lies above cut ``c`` reads the states that stage ``c`` left. Frozen stages always give
the same states for the same row, so that these can be computed once and kept.
"""

from __future__ import annotations

import copy
import functools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from components.errors import ConfigError

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Mix:
    """How mixup blends the rows of a batch (Zhang et al. 2018, arXiv:1710.09412).

    Attributes:
        partners: for each row, the row it is blended with, ``[n]``.
        share: the weight of the row itself, 0.5 to 1.
    """

    partners: torch.Tensor
    share: float

    def blend(self, rows: torch.Tensor) -> torch.Tensor:
        """Return each row of ``rows [n, ...]`` blended with its partner."""
        return self.share * rows + (1 - self.share) * rows[self.partners]

    def blend_losses(self, own: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row ``[n]`` from that for its own and its partner's label."""
        return self.share * own + (1 - self.share) * partners


class Staged(nn.Module):
    """A network that can be cut between its stages.

    Attributes:
        outputs: the width of the output.
    """

    outputs: int

    def infer(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Return outputs ``[n, k]`` for a batch, on the device of the weights."""
        self.eval()
        device = next(self.parameters()).device
        with torch.inference_mode():
            outputs = self(*(torch.from_numpy(each).to(device) for each in inputs))
        answered: NDArray[np.float32] = outputs.float().cpu().numpy()
        return answered

    @property
    @abstractmethod
    def depth(self) -> int:
        """The highest cut: everything but the head is below it."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """The number of layers, as ``finetune.frozen_layers`` counts them; 0 if none are found."""

    @abstractmethod
    def stage_of(self, name: str) -> int:
        """Return the stage of a parameter: 0 for the embeddings, ``depth`` for the head."""

    @abstractmethod
    def states(self, cut: int, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return what the stages below ``cut`` make of a batch: one tensor for each row."""

    @abstractmethod
    def collate(self, cut: int, states: Sequence[torch.Tensor]) -> Inputs:
        """Return a batch of states as the inputs of ``above(cut)``."""

    @abstractmethod
    def above(self, cut: int) -> nn.Module:
        """Return the part above a cut as a module that shares its weights.

        It takes the tensors of ``collate`` and the keyword ``mix``.
        """

    @abstractmethod
    def checkpoint_activations(self) -> None:
        """Compute activations again in the backward pass instead of keeping them.

        Raises:
            ConfigError: the network cannot.
        """

    @abstractmethod
    def set_dropout(self, share: float) -> None:
        """Drop another share of what the head reads, while training."""

    @abstractmethod
    def shrunk(self, layers: int) -> Staged:
        """Return a copy with so many of the layers, taken evenly."""

    def adaptable(self) -> list[str]:
        """Return the paths of the modules in layers that low-rank adapters can sit on."""
        return [
            name
            for name, module in self.named_modules()
            if _adaptable(module) and 0 < self.stage_of(f"{name}.weight") < self.depth
        ]


def _adaptable(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1
    return isinstance(module, nn.Linear)


# --- transformers encoders over text ---------------------------------------------------


def mean_pool(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the unmasked token vectors: ``[n, t, d]`` and ``[n, t]`` to ``[n, d]``."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


_BEFORE = frozenset({"embeddings", "embeddings_project"})
"""Modules that make what the first layer reads."""
_AFTER = frozenset({"final_norm", "pooler"})
"""Modules of a backbone that read what the last layer leaves."""
_NEVER_WITHOUT_LAYERS = frozenset({"deberta", "deberta-v2"})
"""Their code takes its result from the last layer, and stumbles where there is none."""


class LayerStack:
    """Finds the layers of a transformers model, and takes the model apart at one of them.

    The parts are shallow copies, which share the weights. What a model does between its
    parts (masks, positions) stays its own code, so that every architecture with one list
    of layers works: BERT, RoBERTa, DistilBERT, MPNet, ModernBERT, ...
    """

    def __init__(self, model: nn.Module) -> None:
        """Look at a model; nothing is changed."""
        self.model = model
        config: Any = model.config
        count = int(config.num_hidden_layers)
        lists = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == count
        ]
        # Without one such list (ALBERT shares its layers) the model is in one piece, and so it
        # is with a convolution around the first layer (large DeBERTas), which a cut would move.
        found = len(lists) == 1 and not _has_convolution(model, lists[0])
        self.path = lists[0] if found else ""
        self.count = count if found else 0
        self._backbone = "" if model.base_model is model else f"{model.base_model_prefix}."

    def stage_of(self, name: str) -> int | None:
        """Return 1 to ``count`` for a layer's parameter, None for one that is read above them.

        Everything else is of stage 0, and not the embeddings alone: all layers read the
        position biases of MPNet and DeBERTa, which must rest as soon as one layer does.
        """
        if self.count and name.startswith(f"{self.path}."):
            return 1 + int(name.removeprefix(f"{self.path}.").split(".")[0])
        if not name.startswith(self._backbone) or not _AFTER.isdisjoint(name.split(".")):
            return None
        return 0

    @property
    def _layers(self) -> nn.ModuleList:
        return _list_at(self.model, self.path)

    def below(self, layers: int) -> nn.Module:
        """Return the model with its lowest layers only."""
        return _replaced(self.model, {self.path: self._layers[:layers]})

    def above(self, layers: int) -> nn.Module:
        """Return the model without its embeddings and lowest layers; it takes ``inputs_embeds``."""
        swaps: dict[str, nn.Module] = {self.path: self._layers[layers:]}
        for name, _ in self.model.named_modules():
            if name.split(".")[-1] in _BEFORE and not name.startswith(f"{self.path}."):
                swaps[name] = _Passthrough()
        return _replaced(self.model, swaps)

    def states(self, layers: int, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return what the embeddings and the lowest layers make of token ids, ``[n, t, d]``."""
        # One layer more than wanted: what arrives there is what the ones below leave,
        # before any closing norm of the model.
        model = self.below(layers + 1)
        seen: list[torch.Tensor] = []

        def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(args[0] if args else kwargs["hidden_states"])
            raise _Seen

        handle = _list_at(model, self.path)[layers].register_forward_pre_hook(
            look, with_kwargs=True
        )
        try:
            model(input_ids=ids, attention_mask=mask)
        except _Seen:
            pass
        finally:
            handle.remove()
        return seen[0]


def _list_at(model: nn.Module, path: str) -> nn.ModuleList:
    layers = model.get_submodule(path)
    assert isinstance(layers, nn.ModuleList)
    return layers


def _has_convolution(model: nn.Module, path: str) -> bool:
    """Tell whether a convolution stands beside the list of layers."""
    return getattr(model.get_submodule(path.rpartition(".")[0]), "conv", None) is not None


class _Seen(Exception):
    """Ends a forward pass when all that is wanted of it was seen."""


class _Passthrough(nn.Module):
    """Stands for the embeddings of a model that is given their result."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        given: torch.Tensor | None = kwargs.get("inputs_embeds")
        if given is not None:
            return given
        return next(arg for arg in args if torch.is_tensor(arg) and arg.is_floating_point())


def _replaced(model: nn.Module, swaps: dict[str, nn.Module]) -> nn.Module:
    """Return a shallow copy of a model with some submodules swapped, by path."""
    clone = _shallow(model)
    for path, module in swaps.items():
        parent = clone
        *way, last = path.split(".")
        for step in way:
            child = _shallow(parent.get_submodule(step))
            parent._modules[step] = child
            parent = child
        parent._modules[last] = module
    return clone


def _shallow(module: nn.Module) -> nn.Module:
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    return clone


class TextNetwork(Staged):
    """Common to the networks over a transformers encoder."""

    @property
    @abstractmethod
    def backbone(self) -> Any:
        """The transformers model with the layers."""

    @functools.cached_property
    def stack(self) -> LayerStack:
        """The layers, found once."""
        return LayerStack(self.backbone)

    @property
    def config(self) -> Any:
        """The transformers configuration."""
        return self.backbone.config

    @property
    def layers(self) -> int:
        """The encoder's layers."""
        return self.stack.count

    def checkpoint_activations(self) -> None:
        """Compute activations again in the backward pass instead of keeping them.

        Raises:
            ConfigError: transformers does not know how to for this architecture.
        """
        try:
            self.backbone.activation_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise ConfigError(
                "finetune.gradient_checkpointing does not work with a "
                f"{type(self.backbone).__name__}; leave it out, and lower finetune.batch_rows "
                "or freeze layers where memory does not suffice"
            ) from error

    def shrunk(self, layers: int) -> Staged:
        """Return a copy with so many of the layers, from the first to the last."""
        clone = copy.deepcopy(self)
        clone.__dict__.pop("stack", None)
        stack = LayerStack(clone.backbone)
        kept = [round(place) for place in np.linspace(0, stack.count - 1, layers)]
        *way, last = stack.path.split(".")
        parent = clone.backbone.get_submodule(".".join(way))
        setattr(parent, last, nn.ModuleList([getattr(parent, last)[place] for place in kept]))
        clone.config.num_hidden_layers = layers
        types = getattr(clone.config, "layer_types", None)
        if types is not None and len(types) == stack.count:
            clone.config.layer_types = [types[place] for place in kept]
        return clone

    def _hidden(self, cut: int, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        tokens = self._layer_states(cut, ids, mask)
        lengths = mask.sum(1).tolist()
        return [row[: int(length)].clone() for row, length in zip(tokens, lengths, strict=True)]

    def _layer_states(self, cut: int, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if cut - 1 < self.stack.count:
            return self.stack.states(cut - 1, ids, mask)
        states: torch.Tensor = self.backbone(input_ids=ids, attention_mask=mask)[0]
        return states


def pad_states(states: Sequence[torch.Tensor]) -> Inputs:
    """Return token states of rows ``[t, d]`` padded to the longest, and their mask."""
    padded = nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    lengths = torch.tensor([len(row) for row in states])
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    return padded, mask


class MeanPoolNetwork(TextNetwork):
    """An encoder, the mean of its token vectors, dropout, and one linear layer."""

    head: nn.Linear

    def __init__(self, encoder: Any, outputs: int, dropout: float) -> None:
        """Put a fresh linear head on ``encoder``; 0 outputs are as many as it has features."""
        super().__init__()
        width = encoder.config.hidden_size
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # reads the first token; nobody would read it
        self.encoder = encoder
        self.outputs = outputs or width
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, self.outputs)

    @property
    def backbone(self) -> Any:
        """The encoder."""
        return self.encoder

    @property
    def depth(self) -> int:
        """Embeddings, layers, and the pooling above them."""
        return self.stack.count + 1

    @property
    def dropout_share(self) -> float:
        """The share of what the head reads that is dropped."""
        return self.dropout.p

    def set_dropout(self, share: float) -> None:
        """Drop another share of what the head reads, while training."""
        self.dropout.p = share

    def stage_of(self, name: str) -> int:
        """Return the stage of a parameter; what closes the encoder goes with the last layer."""
        if not name.startswith("encoder."):
            return self.depth
        stage = self.stack.stage_of(name.removeprefix("encoder."))
        return self.stack.count if stage is None else stage

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, mix: Mix | None = None) -> Any:
        """Return outputs ``[n, k]`` for token ids and mask ``[n, t]``."""
        return self.answer(self.features(ids, mask), mix)

    def features(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return what the head reads, ``[n, d]``."""
        return mean_pool(self.encoder(input_ids=ids, attention_mask=mask)[0], mask)

    def answer(self, features: torch.Tensor, mix: Mix | None = None) -> torch.Tensor:
        """Return outputs ``[n, k]`` for features ``[n, d]``."""
        if mix is not None:
            features = mix.blend(features)
        outputs: torch.Tensor = self.head(self.dropout(features))
        return outputs

    def states(self, cut: int, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return token states ``[t, d]`` of each row, or its features ``[d]`` at the top."""
        if cut == self.depth:
            return list(self.features(*inputs))
        return self._hidden(cut, *inputs)

    def collate(self, cut: int, states: Sequence[torch.Tensor]) -> Inputs:
        """Return padded states and mask, or stacked features."""
        return (torch.stack(list(states)),) if cut == self.depth else pad_states(states)

    def above(self, cut: int) -> nn.Module:
        """Return the part above a cut."""
        return self if cut == 0 else _MeanPoolAbove(self, cut)


class _MeanPoolAbove(nn.Module):
    """The upper part of a ``MeanPoolNetwork``."""

    def __init__(self, network: MeanPoolNetwork, cut: int) -> None:
        super().__init__()
        self.encoder = None if cut == network.depth else network.stack.above(cut - 1)
        self.dropout = network.dropout
        self.head = network.head

    def forward(self, *states: torch.Tensor, mix: Mix | None = None) -> Any:
        if self.encoder is None:
            (features,) = states
        else:
            hidden, mask = states
            tokens = self.encoder(inputs_embeds=hidden, attention_mask=mask)[0]
            features = mean_pool(tokens, mask)
        if mix is not None:
            features = mix.blend(features)
        return self.head(self.dropout(features))


class NativeNetwork(TextNetwork):
    """A transformers model with the head that it came with."""

    def __init__(self, model: Any) -> None:
        """Wrap a model; its weights stay where they are."""
        super().__init__()
        self.model = model
        self.outputs = int(model.config.num_labels)

    @property
    def backbone(self) -> Any:
        """The model below its head."""
        return self.model.base_model

    @property
    def config(self) -> Any:
        """The transformers configuration of the model."""
        return self.model.config

    @functools.cached_property
    def stack(self) -> LayerStack:
        """The layers of the whole model, head included in what is above them."""
        return LayerStack(self.model)

    @property
    def depth(self) -> int:
        """Embeddings and layers; the head reads token states."""
        return self.stack.count + 1

    def stage_of(self, name: str) -> int:
        """Return the stage of a parameter."""
        stage = self.stack.stage_of(name.removeprefix("model."))
        return self.depth if stage is None else stage

    def set_dropout(self, share: float) -> None:
        """Drop another share of what the head reads, wherever it does; layers keep theirs."""
        inner = set(self.backbone.modules())
        for module in self.model.modules():
            if isinstance(module, nn.Dropout) and module not in inner:
                module.p = share

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, mix: Mix | None = None) -> Any:
        """Return outputs ``[n, k]`` for token ids and mask ``[n, t]``."""
        if mix is not None:
            raise ConfigError("finetune.mixup does not work with a model that keeps its own head")
        return self.model(input_ids=ids, attention_mask=mask).logits

    def states(self, cut: int, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return token states ``[t, d]`` of each row."""
        return self._hidden(cut, *inputs)

    def _layer_states(self, cut: int, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if cut - 1 < self.stack.count:
            return self.stack.states(cut - 1, ids, mask)
        if not self.stack.count:
            raise ConfigError(
                f"the layers of a {type(self.model).__name__} were not found, so that none can "
                "be frozen; use finetune.method full"
            )
        last = self.model.get_submodule(self.stack.path)[-1]
        seen: list[Any] = []
        handle = last.register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            self.model(input_ids=ids, attention_mask=mask)
        finally:
            handle.remove()
        return seen[0] if torch.is_tensor(seen[0]) else seen[0][0]

    def collate(self, cut: int, states: Sequence[torch.Tensor]) -> Inputs:
        """Return padded states and mask."""
        return pad_states(states)

    def above(self, cut: int) -> nn.Module:
        """Return the part above a cut.

        Raises:
            ConfigError: the architecture does not work without any layer above.
        """
        if cut == self.depth and self.config.model_type in _NEVER_WITHOUT_LAYERS:
            raise ConfigError(
                f"the head of a {type(self.model).__name__} does not learn by itself; use "
                "finetune.method top, lora or full"
            )
        return self if cut == 0 else _NativeAbove(self.stack.above(cut - 1))


class _NativeAbove(nn.Module):
    """The upper part of a ``NativeNetwork``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor, mix: Mix | None = None) -> Any:
        if mix is not None:
            raise ConfigError("finetune.mixup does not work with a model that keeps its own head")
        return self.model(inputs_embeds=hidden, attention_mask=mask).logits
