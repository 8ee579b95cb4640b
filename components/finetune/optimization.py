"""Optimizer and learning-rate schedule that all methods share."""

from __future__ import annotations

import math

import torch
from torch import nn

from components.finetune.config import FinetuneConfig


def optimizer_of(network: nn.Module, config: FinetuneConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable weights.

    The head learns at its own rate. Norms and biases (tensors of one dimension) are
    spared weight decay (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101).
    """
    groups = []
    for in_head, rate in ((False, config.learning_rate), (True, config.head_learning_rate)):
        for decays in (True, False):
            weights = [
                weight
                for name, weight in network.named_parameters()
                if weight.requires_grad
                and name.startswith("head.") == in_head
                and (weight.ndim > 1) == decays
            ]
            if weights:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": weights, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=True)


def forward_precision(config: FinetuneConfig) -> torch.autocast:
    """Return the context in which the forward pass runs, see ``FinetuneConfig.precision``.

    Mixed precision: Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740.
    """
    # Emulated bfloat16, on older processors, would be slower than float32.
    native = bool(torch.cpu._is_avx512_bf16_supported())
    low = config.precision == "bfloat16" or (config.precision == "auto" and native)
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=low)


def cosine_schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup_share: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule: linear rise, then half a cosine to zero."""
    warmup = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
