from __future__ import annotations

import numpy as np
import pytest
import torch

from components.finetune.config import FinetuneConfig, LoraConfig, ScheduleConfig
from components.finetune.optimization import Schedule, learning_rate, optimizer_of


def names_of(network):
    return [name for name, _ in network.named_parameters()]


@pytest.fixture
def network(make_classifier):
    return make_classifier(0).network


def rates_of(network, config, steps=100):
    optimizer = optimizer_of(network, names_of(network), config)
    phases = [steps] if isinstance(steps, int) else steps
    schedule = Schedule(optimizer, phases, config)
    rates = []
    for step in range(sum(phases)):
        schedule.set(step)
        rates.append([group["lr"] for group in optimizer.param_groups])
    return np.array(rates), optimizer


@pytest.mark.parametrize("shape", ["cosine", "linear", "one-cycle"])
def test_rates_rise_then_fall_to_zero(network, shape):
    config = FinetuneConfig(
        learning_rate=1e-4, head_learning_rate=1e-2, schedule=ScheduleConfig(shape=shape)
    )
    rates, _ = rates_of(network, config)
    assert sorted(set(rates.max(0))) == pytest.approx([1e-4, 1e-2])
    assert set(rates.argmax(0)) <= {9, 10}
    assert (np.diff(rates[:10], axis=0) > 0).all()
    assert (np.diff(rates[10:], axis=0) < 0).all()
    assert (rates[-1] < 0.02 * rates.max(0)).all()


def test_a_constant_rate_stays_after_warming_up(network):
    config = FinetuneConfig(schedule=ScheduleConfig(shape="constant", warmup_share=0.2))
    rates, _ = rates_of(network, config)
    assert (rates[20:] == rates.max(0)).all()
    assert (rates[:19] < rates.max(0)).all()


@pytest.mark.parametrize("shape", ["cosine", "linear", "one-cycle", "constant"])
def test_each_phase_warms_up_and_falls_by_itself(network, shape):
    config = FinetuneConfig(schedule=ScheduleConfig(shape=shape, warmup_share=0.25))
    phases, alone = rates_of(network, config, [40, 20])[0], rates_of(network, config, 20)[0]
    np.testing.assert_array_equal(phases[40:], alone)
    np.testing.assert_array_equal(phases[:40], rates_of(network, config, 40)[0])
    assert (phases[40] == phases.max(0) / 5).all(), "what is unfrozen now does not start at once"


def test_one_cycle_moves_the_momentum_against_the_rate(network):
    config = FinetuneConfig(schedule=ScheduleConfig(shape="one-cycle"))
    optimizer = optimizer_of(network, names_of(network), config)
    schedule = Schedule(optimizer, [100], config)
    momenta = []
    for step in (0, 10, 99):
        schedule.set(step)
        momenta.append(optimizer.param_groups[0]["betas"][0])
    assert momenta[1] == pytest.approx(0.85)
    assert momenta[0] > 0.93 < momenta[2]


def test_norms_and_biases_do_not_decay(network):
    config = FinetuneConfig(weight_decay=0.5)
    weights = dict(network.named_parameters())
    decayed = {
        id(weight)
        for group in optimizer_of(network, weights, config).param_groups
        if group["weight_decay"]
        for weight in group["params"]
    }
    assert decayed == {id(weight) for weight in weights.values() if weight.ndim > 1}


def test_only_named_weights_are_optimized(network):
    groups = optimizer_of(network, ["head.weight"], FinetuneConfig()).param_groups
    assert [len(group["params"]) for group in groups] == [1]


LAYER = "encoder.encoder.layer.{}.attention.self.query.weight"
EMBEDDING = "encoder.embeddings.word_embeddings.weight"


def test_each_layer_learns_slower_than_the_one_above(network):
    config = FinetuneConfig(learning_rate=1e-4, head_learning_rate=1e-2, layer_decay=0.5)
    rates = [
        learning_rate(name, network, config)
        for name in ("head.weight", LAYER.format(1), LAYER.format(0), EMBEDDING)
    ]
    assert rates == pytest.approx([1e-2, 1e-4, 5e-5, 2.5e-5])


def test_three_rates_for_head_upper_and_lower_half(network):
    config = FinetuneConfig(group_learning_rates=(1e-4, 1e-5, 1e-6))
    rates = [
        learning_rate(name, network, config)
        for name in ("head.weight", LAYER.format(1), LAYER.format(0), EMBEDDING)
    ]
    assert rates == [1e-4, 1e-5, 1e-6, 1e-6]


def test_the_head_learns_faster_alone():
    assert FinetuneConfig(method="head").head_rate == 1e-2
    assert FinetuneConfig(method="full").head_rate == 1e-3
    assert FinetuneConfig(method="head", head_learning_rate=0.5).head_rate == 0.5


def test_adapters_have_a_rate_of_their_own(network):
    config = FinetuneConfig(lora=LoraConfig(learning_rate=3e-3))
    name = "encoder.encoder.layer.0.attention.self.query.lora_A.default.weight"
    assert learning_rate(name, network, config) == 3e-3


def test_the_optimizer_steps(network):
    optimizer = optimizer_of(network, names_of(network), FinetuneConfig())
    before = network.head.weight.detach().clone()
    network(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, network.head.weight)
