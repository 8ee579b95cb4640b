"""Optimizer, learning rates and precision, shared by all methods."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from components.errors import ConfigError
from components.finetune.config import FinetuneConfig
from components.tasks.networks import Staged


def device_of(config: FinetuneConfig) -> torch.device:
    """Return the device to train on.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("finetune.device is cuda, but torch sees no GPU here")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def optimizer_of(
    network: Staged, names: Iterable[str], config: FinetuneConfig
) -> torch.optim.AdamW:
    """Return AdamW over the named weights, each stage at its rate.

    Norms and biases (tensors of one dimension) are spared weight decay (Loshchilov &
    Hutter 2019, https://arxiv.org/abs/1711.05101).
    """
    weights = dict(network.named_parameters())
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name in names:
        decay = config.weight_decay if weights[name].ndim > 1 else 0.0
        rate = learning_rate(name, network, config)
        groups.setdefault((rate, decay), []).append(weights[name])
    return torch.optim.AdamW(
        [
            {"params": params, "lr": rate, "weight_decay": decay}
            for (rate, decay), params in groups.items()
        ],
        fused=True,
    )


def learning_rate(name: str, network: Staged, config: FinetuneConfig) -> float:
    """Return the peak rate of a parameter, see ``FinetuneConfig.layer_decay``."""
    stage, depth = network.stage_of(name), network.depth
    if "lora_" in name:
        return config.lora.learning_rate
    if config.group_learning_rates is not None:
        head, upper, lower = config.group_learning_rates
        return head if stage == depth else upper if stage > depth // 2 else lower
    if stage == depth:
        return config.head_rate
    return config.learning_rate * config.layer_decay ** (depth - 1 - stage)


def forward_precision(config: FinetuneConfig, device: torch.device) -> torch.autocast:
    """Return the context in which the forward pass runs, see ``FinetuneConfig.precision``.

    Mixed precision: Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740.
    """
    # Emulated bfloat16, on older processors and GPUs, would be slower than float32.
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        native = bool(torch.cpu._is_avx512_bf16_supported())
    low = config.precision == "bfloat16" or (config.precision == "auto" and native)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)


class Schedule:
    """Moves the learning rates of an optimizer from step to step.

    It depends on the number of the step alone, so that it needs no state of its own. Each
    phase has the whole shape to itself, so that weights that are unfrozen late warm up, too,
    and have as long to settle as the others.
    """

    def __init__(
        self, optimizer: torch.optim.AdamW, steps: Sequence[int], config: FinetuneConfig
    ) -> None:
        """Plan for the number of steps of each phase; the optimizer's rates are the peaks."""
        self._optimizer = optimizer
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self._steps = steps
        self._config = config.schedule

    def set(self, step: int) -> float:
        """Set the rates of a step, counted from 0; return the first group's."""
        factor = self.factor(step)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
            if self._config.shape == "one-cycle":
                group["betas"] = (0.95 - 0.1 * factor, group["betas"][1])
        return float(self._optimizer.param_groups[0]["lr"])

    def factor(self, step: int) -> float:
        """Return the share of the peak rate at a step, 0 to 1."""
        for steps in self._steps[:-1]:
            if step < steps:
                break
            step -= steps
        else:
            steps = self._steps[-1]
        warmup = max(1, round(steps * self._config.warmup_share))
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        if self._config.shape == "constant":
            return 1.0
        if self._config.shape == "linear":
            return 1 - done
        return 0.5 * (1 + math.cos(math.pi * done))
