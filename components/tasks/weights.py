"""Weights on disk: safetensors only, and finite only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import BundleError

if TYPE_CHECKING:
    import torch

MODEL_FILE = "model.json"
"""What a model needs to know beside its weights."""
WEIGHTS_FILE = "model.safetensors"


def write_weights(network: torch.nn.Module, folder: Path) -> None:
    """Write a network's weights, without the device they were on."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = network.state_dict()
    save_file(
        {name: weight.detach().cpu().contiguous().clone() for name, weight in state.items()},
        folder / WEIGHTS_FILE,
    )


def refuse_unfinite(weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Raise ``BundleError`` for weights that are not finite; safetensors loads them silently."""
    for name, weight in weights.items():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise BundleError(f"the model in {folder} has weights that are not finite: {name}")
