"""Weights on disk: safetensors only, and finite only."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import BundleError, TokiwaError

if TYPE_CHECKING:
    import torch

MODEL_FILE = "model.json"
"""What a model needs to know beside its weights."""
WEIGHTS_FILE = "model.safetensors"
BLANK = "blank.json"
"""A base that has no weights holds this file instead, which says how large its network is."""


_REASON_CHARACTERS = 400
"""torch and transformers say whole pages."""


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Say in one ``BundleError`` that ``what`` does not load, whatever a library stumbles over.

    safetensors, tokenizers, transformers, torch and pickle raise many errors for files that
    are cut, of another shape or no model at all; these have no other class in common.
    """
    try:
        yield
    except (TokiwaError, MemoryError):
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error), _REASON_CHARACTERS, placeholder=" ...")
        named = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        raise BundleError(f"{what} does not load: {named}") from error


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
