"""Which hyperparameters to try next, and when to give a trial up."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from components.finetune.config import FinetuneConfig
from components.finetune.space import SearchConfig
from components.settings import canonical_json
from components.studies import counted

MOST_STARTUP_TRIALS = 10
"""TPE draws at random before it has seen so many trials, or a third of all."""
MEDIAN_STARTUP_TRIALS = 4
"""No trial is worse than the median of fewer."""


def distributions_of(config: FinetuneConfig, search: SearchConfig) -> dict[str, BaseDistribution]:
    """Return the values that each key of the space may take, parsed as the key wants them."""
    distributions: dict[str, BaseDistribution] = {}
    for key, axis in search.space.items():
        values = [config.with_values({key: value}).value_at(key) for _, value in axis.values()]
        if axis.choices is not None:
            distributions[key] = CategoricalDistribution(values)
        elif isinstance(values[0], int):
            low, high = values
            distributions[key] = IntDistribution(low, high, log=axis.log)
        else:
            low, high = values
            distributions[key] = FloatDistribution(low, high, log=axis.log)
    return distributions


def sampler_of(
    search: SearchConfig, space: dict[str, BaseDistribution], seed: list[int]
) -> BaseSampler:
    """Return the sampler of one trial.

    Args:
        search: the section ``finetune.search``.
        space: see ``distributions_of``.
        seed: numbers that differ from trial to trial and from worker to worker, lest a
            search that goes on draws again what it has drawn.
    """
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    if search.sampler == "grid":
        return Grid(space)
    if search.sampler == "random":
        return RandomSampler(seed=number)
    startup = min(MOST_STARTUP_TRIALS, max(1, search.trials // 3))
    return TPESampler(seed=number, n_startup_trials=startup)


def pruner_of(search: SearchConfig) -> BasePruner:
    """Return what ends trials early."""
    if search.pruner == "median":
        return MedianPruner(n_startup_trials=MEDIAN_STARTUP_TRIALS)
    return HyperbandPruner() if search.pruner == "hyperband" else NopPruner()


class Grid(BaseSampler):
    """Every combination of choices, each once, whoever asks.

    Optuna's own marks its place before it knows that the place is free, and ends studies
    that are not run by its own loop with an error.
    """

    def __init__(self, space: dict[str, BaseDistribution]) -> None:
        """Take choices only."""
        self._space = space
        choices = [getattr(each, "choices", ()) for each in space.values()]
        self._points = [
            dict(zip(space, point, strict=True)) for point in itertools.product(*choices)
        ]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all keys: a combination is chosen as a whole."""
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a combination that no other trial has or waits for."""
        taken = {
            canonical_json(each.system_attrs.get("fixed_params", each.params))
            for each in counted(study)
            if each.number != trial.number
        }
        free = [point for point in self._points if canonical_json(point) not in taken]
        # Workers who ask at the same moment have different numbers, and look elsewhere.
        return free[trial.number % len(free)] if free else self._points[0]

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Never asked: a combination is chosen as a whole."""
        raise AssertionError(f"{param_name} is no key of the grid")
