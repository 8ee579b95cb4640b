from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from components.finetune.config import FinetuneConfig
from components.search.core import SearchReport, name_of, search
from components.store import LocalStore
from components.studies import Studies

DATA = "d" * 64


class Log:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.trials: list[dict[str, Any]] = []
        self.finished: list[tuple[int, int]] = []

    def progress(self, done: int, total: int, what: str) -> None:
        if what == "trials":
            self.finished.append((done, total))

    def line(self, event: str, **fields: Any) -> None:
        assert event == "trial"
        self.trials.append(fields)


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
def studies(tmp_path):
    """An empty place of studies."""
    return Studies(LocalStore(tmp_path / "objects"))


@pytest.fixture
def settings(toy) -> Callable[..., FinetuneConfig]:
    """The toy's training with a search; keyword arguments are of the search."""

    def build(space: dict[str, Any], *, training: Any = (), **search: Any) -> FinetuneConfig:
        tree = toy.training.model_dump() | dict(training)
        return FinetuneConfig.model_validate(tree | {"search": {"space": space, **search}})

    return build


@pytest.fixture
def look(toy, studies) -> Callable[..., SearchReport]:
    """Be a worker of a search on the toy problem."""

    def run(config, *, name="", worker="1", log=None, place=None, dead_after_s=60.0):
        return search(
            toy.first,
            [toy.start.base],
            None,
            toy.task,
            config,
            place or studies,
            name or name_of(DATA, "", "", "", toy.task, config),
            worker,
            log or Log(),
            dead_after_s,
        )

    return run


@pytest.fixture
def study_of(toy, studies):
    """Open the study of a configuration."""

    def run(config: FinetuneConfig):
        return studies.load(name_of(DATA, "", "", "", toy.task, config))

    return run


@pytest.fixture
def log() -> Log:
    """A log that remembers."""
    return Log()
