from __future__ import annotations

import itertools

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from components.search.samplers import Grid, distributions_of, pruner_of, sampler_of
from components.studies import GIVEN_BACK

GRID: dict[str, BaseDistribution] = {
    "epochs": CategoricalDistribution([1, 2, 3]),
    "schedule.shape": CategoricalDistribution(["cosine", "linear"]),
}


def test_a_space_takes_the_types_of_its_keys(settings):
    config = settings(
        {
            "learning_rate": {"low": "1e-5", "high": 1e-3, "log": True},
            "epochs": {"low": 1, "high": 3},
            "weight_decay": {"low": 0, "high": 0.5},
            "head_learning_rate": {"choices": ["1e-3", None]},
            "schedule.shape": {"choices": ["cosine", "linear"]},
        }
    )
    assert distributions_of(config, config.search) == {
        "learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
        "epochs": IntDistribution(1, 3),
        "weight_decay": FloatDistribution(0.0, 0.5),
        "head_learning_rate": CategoricalDistribution([1e-3, None]),
        "schedule.shape": CategoricalDistribution(["cosine", "linear"]),
    }


@pytest.fixture
def study():
    """A study in memory whose sampler is a grid."""
    return optuna.create_study(sampler=Grid(GRID))


def test_a_grid_gives_each_combination_once_to_all_who_ask(study):
    asked = [study.ask(GRID) for _ in range(6)]
    assert {tuple(each.params.values()) for each in asked} == set(
        itertools.product([1, 2, 3], ["cosine", "linear"])
    )


def test_a_grid_tries_again_what_was_given_back(study):
    lost, *_ = (study.ask(GRID) for _ in range(6))
    lost.set_user_attr(GIVEN_BACK, True)
    assert study.ask(GRID).params == lost.params


def test_a_grid_leaves_alone_what_waits_for_a_worker(study):
    study.enqueue_trial({"epochs": 1, "schedule.shape": "cosine"})
    mine, yours = study.ask(GRID), study.ask(GRID)
    assert mine.params == {"epochs": 1, "schedule.shape": "cosine"}
    study.enqueue_trial({"epochs": 2, "schedule.shape": "linear"})
    rest = [study.ask(GRID).params for _ in range(4)]
    assert len({tuple(each.values()) for each in [mine.params, yours.params, *rest]}) == 6


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_seed_settles_what_is_drawn(sampler, settings):
    config = settings({"dropout": {"low": 0, "high": 0.5}}, sampler=sampler)
    space = distributions_of(config, config.search)

    def drawn(*seed: int) -> float:
        study = optuna.create_study(sampler=sampler_of(config.search, space, list(seed)))
        return float(study.ask(space).params["dropout"])

    assert drawn(0, 1, 5) == drawn(0, 1, 5)
    others = [drawn(*seed) for seed in ((0, 1, 5), (1, 1, 5), (0, 2, 5), (0, 1, 6))]
    assert len(set(others)) == 4


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("median", optuna.pruners.MedianPruner),
        ("hyperband", optuna.pruners.HyperbandPruner),
        ("none", optuna.pruners.NopPruner),
    ],
)
def test_each_pruner_is_one_of_optuna(name, kind, settings):
    config = settings({"epochs": {"choices": [1]}}, pruner=name)
    assert isinstance(pruner_of(config.search), kind)
