from __future__ import annotations

import pytest

from components.finetune.core import choose, finetune
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
        bases=None,
        checkpoints=lambda name: None,
        **config,
    ):
        rows, learnt = prepared or toy.second, task or toy.task
        settings = toy.training.model_copy(update=config)
        watcher = watcher or Silent()
        start = choose(rows, bases or [toy.start.base], champion, learnt, settings, watcher)
        return finetune(
            rows,
            start,
            champion,
            tmp_path / name,
            learnt,
            settings,
            {"data": "d" * 64, "window_end": toy.weeks[1].window.end},
            watcher,
            checkpoints,
        )

    return run
