"""Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685), through peft.

Only the adapters and the head learn. They are merged into the weights at the end, so
that serving costs nothing more; the adapters themselves are kept, too.
"""

from __future__ import annotations

import torch
from torch import nn

from components.finetune.job import Job, Outcome
from components.finetune.loop import Phase
from components.tasks.networks import Staged


def fit(job: Job) -> Outcome:
    """Train adapters on the layers above ``frozen_layers``, and the head."""
    job.require_layers()
    network = job.model.network
    cut = max(1, job.cut_at(job.config.frozen_layers or 0))
    attach(network, cut, job.config.lora.rank, job.config.lora.alpha, job.config.lora.dropout)
    learns = [
        name
        for name, _ in network.named_parameters()
        if "lora_" in name or (network.stage_of(name) == network.depth and not job.model.fits_head)
    ]
    history = job.training([Phase(cut, job.config.epochs)], learns=learns).run()
    adapter = {
        name: weight.detach().cpu().clone()
        for name, weight in network.named_parameters()
        if "lora_" in name
    }
    merge(network)
    return Outcome(job.model, history, adapter)


def attach(network: Staged, cut: int, rank: int, alpha: int, dropout: float) -> None:
    """Put adapters on the linear modules of the layers above a cut, in place."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = [name for name in network.adaptable() if network.stage_of(f"{name}.weight") >= cut]
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
    inject_adapter_in_model(config, network)


def merge(network: nn.Module) -> None:
    """Add the adapters to the weights they sit on, and take them off, in place."""
    from peft.tuners.lora import LoraLayer

    for path, module in list(network.named_modules()):
        if isinstance(module, LoraLayer):
            with torch.no_grad():
                module.merge()
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, module.get_base_layer())
