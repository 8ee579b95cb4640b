"""The torch modules behind text classifiers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def mean_pool(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the unmasked token vectors: ``[n, t, d]`` and ``[n, t]`` to ``[n, d]``."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


class MeanPoolClassifier(nn.Module):
    """An encoder, the mean of its token vectors, dropout, and one linear layer."""

    def __init__(self, backbone: Any, classes: int, dropout: float) -> None:
        """Put a fresh linear head on ``backbone``."""
        super().__init__()
        self.backbone = backbone
        self.dropout_share = dropout
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(backbone.config.hidden_size, classes)

    @property
    def config(self) -> Any:
        """The transformers configuration of the encoder."""
        return self.backbone.config

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return logits ``[n, classes]`` for token ids and mask ``[n, t]``."""
        tokens = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        logits: torch.Tensor = self.head(self.dropout(mean_pool(tokens, mask)))
        return logits


class NativeClassifier(nn.Module):
    """A transformers sequence classifier with the head that it came with."""

    def __init__(self, model: Any) -> None:
        """Wrap a model; its weights stay where they are."""
        super().__init__()
        self.model = model

    @property
    def config(self) -> Any:
        """The transformers configuration of the model."""
        return self.model.config

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return logits ``[n, classes]`` for token ids and mask ``[n, t]``."""
        logits: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits
