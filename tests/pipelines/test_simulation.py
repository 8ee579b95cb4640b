from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from components.trigger.config import GovernorConfig, TriggerConfig
from pipelines.backtest import ORACLE
from pipelines.histories import draw_history
from pipelines.simulation import backtest, ks_distances, simulate

ROWS = 1200
WINDOWS = 12
WATCHFUL = TriggerConfig(on=("drift", "performance"))


@pytest.fixture(scope="module")
def world():
    """Two states of a world: what decides in one is silent in the other."""
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(2 * ROWS, 6)).astype(np.float32)
    vectors[:ROWS, 1] *= 0.01
    vectors[ROWS:, 0] *= 0.01
    decides = vectors[:, 0] + vectors[:, 1] + 0.3 * draw.normal(size=2 * ROWS)
    labels = (decides > 0).astype(np.int64)
    vectors[ROWS:, 2:] += 1.5
    groups = [str(row) for row in range(2 * ROWS)]

    def history(shape, seed=0, windows=WINDOWS):
        return draw_history(
            np.arange(ROWS),
            np.arange(ROWS, 2 * ROWS),
            groups,
            shape,
            windows=windows,
            rows=500,
            seed=seed,
        )

    return history, vectors, labels


def test_a_watchful_policy_retrains_when_the_world_changed_and_not_otherwise(world):
    history, vectors, labels = world
    policies = {
        "default": TriggerConfig(),
        "watchful": WATCHFUL,
        "never": TriggerConfig(on=()),
        "slow": TriggerConfig(on=("performance",)),
    }
    default, watchful, never, slow, oracle = backtest(
        history("abrupt"), vectors, labels, policies
    ).summaries
    assert oracle.policy == ORACLE
    assert (oracle.retrains, oracle.regret) == (WINDOWS - 1, 0)
    assert (watchful.retrains, watchful.delay_windows, watchful.missed) == (1, 0, 0)
    assert watchful.saved > 0.9 and watchful.regret < 0.02
    assert (default.delay_windows, default.missed) == (0, 0)
    assert default.saved > 0.5 and default.regret < 0.01
    assert (never.retrains, never.missed) == (0, 1)
    assert never.regret > 0.1
    assert slow.delay_windows == 1  # labels come a window later than inputs

    calm = simulate(history("none"), vectors, labels, WATCHFUL)
    assert not any(point.retrained for point in calm)


def test_classes_may_be_many_and_a_window_may_have_one_of_them(world):
    draw = np.random.default_rng(3)
    labels = draw.integers(0, 5, size=2 * ROWS)
    vectors = draw.normal(size=(2 * ROWS, 10)).astype(np.float32)
    vectors[:ROWS, :5] += 3 * np.eye(5)[labels[:ROWS]]
    vectors[ROWS:, 5:] += 3 * np.eye(5)[labels[ROWS:]]
    history, _, _ = world
    policies = {"watchful": WATCHFUL, "never": TriggerConfig(on=())}
    watchful, never, oracle = backtest(history("abrupt"), vectors, labels, policies).summaries
    assert watchful.retrains < WINDOWS / 2 and watchful.missed == 0
    assert watchful.score > never.score + 0.1
    assert oracle.retrains == WINDOWS - 1

    one_class = simulate(history("none", windows=4), vectors, np.full(2 * ROWS, 4), WATCHFUL)
    assert [point.score for point in one_class] == [1, 1, 1, 1]


def test_patience_delays_and_a_cooldown_of_months_misses(world):
    history, vectors, labels = world
    policies = {
        name: WATCHFUL.model_copy(update={"governor": governor})
        for name, governor in {
            "patient": GovernorConfig(persistence=(2, 2)),
            "rare": GovernorConfig(cooldown_hours=24 * 365),
        }.items()
    }
    drawn = history("recurring")
    patient, rare, _ = backtest(drawn, vectors, labels, policies).summaries
    assert patient.delay_windows == 1
    assert rare.retrains == 1 and rare.missed == len(drawn.changes) - 1


def test_a_simulation_is_repeatable(world):
    history, vectors, labels = world
    one, two, other = (history("gradual", seed, windows=6) for seed in (3, 3, 4))
    played = simulate(one, vectors, labels, TriggerConfig(), seed=5)
    assert simulate(two, vectors, labels, TriggerConfig(), seed=5) == played
    assert simulate(other, vectors, labels, TriggerConfig(), seed=5) != played


def test_distances_are_those_of_scipy_also_with_ties():
    draw = np.random.default_rng(1)
    first = draw.integers(0, 30, size=(200, 5)).astype(np.float32)
    second = draw.integers(3, 33, size=(150, 5)).astype(np.float32)
    expected = [ks_2samp(first[:, k], second[:, k]).statistic for k in range(5)]
    assert ks_distances(first, second) == pytest.approx(expected, abs=1e-12)
