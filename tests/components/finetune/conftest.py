from __future__ import annotations

import pytest

from components.finetune.core import finetune
from components.finetune.history import Silent


@pytest.fixture(autouse=True)
def _torch_as_it_was():
    """Training sets switches of the whole process."""
    import torch

    threads, deterministic = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def finetuned(toy, tmp_path):
    """Fine-tune on the second week; keyword arguments change the configuration."""

    def run(
        name="bundle",
        *,
        champion=None,
        task=None,
        watcher=None,
        prepared=None,
        checkpoints=lambda name: None,
        **config,
    ):
        return finetune(
            prepared or toy.second,
            toy.base,
            champion,
            tmp_path / name,
            task or toy.task,
            toy.training.model_copy(update=config),
            {"data": "d" * 64, "window_end": toy.weeks[1].window.end},
            watcher or Silent(),
            checkpoints,
        )

    return run
