from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.finetune.batches import Rows, predict, shuffled
from components.finetune.config import FinetuneConfig
from components.finetune.history import History, macro_f1
from components.finetune.optimization import cosine_schedule, optimizer_of


@given(st.lists(st.integers(1, 30), min_size=1, max_size=80), st.integers(1, 9), st.integers(0, 9))
def test_every_row_is_in_one_batch_with_its_target(lengths, batch_rows, seed):
    # Token ids start at 1 so that padding, which is 0, can be told apart.
    rows = Rows(
        [[number + 1] * length for number, length in enumerate(lengths)], np.arange(len(lengths))
    )
    seen = []
    for ids, mask, targets in shuffled(rows, batch_rows, np.random.default_rng(seed)):
        assert len(targets) <= batch_rows
        assert ids.shape == mask.shape
        assert ids.shape[1] == max(lengths[target] for target in targets.tolist())
        for row, on, target in zip(ids, mask, targets.tolist(), strict=True):
            assert int(on.sum()) == lengths[target]
            assert row.tolist() == [target + 1] * lengths[target] + [0] * (
                len(row) - lengths[target]
            )
        seen += targets.tolist()
    assert sorted(seen) == list(range(len(lengths)))


def test_the_order_changes_from_epoch_to_epoch_and_is_the_same_for_a_seed():
    rows = Rows([[1] * (number % 7 + 1) for number in range(64)], np.arange(64))

    def epoch(generator):
        return [targets.tolist() for *_, targets in shuffled(rows, 8, generator)]

    generator = np.random.default_rng(0)
    first, second = epoch(generator), epoch(generator)
    assert first != second
    assert epoch(np.random.default_rng(0)) == first


def test_texts_of_like_length_share_a_batch():
    lengths = np.random.default_rng(0).integers(1, 100, 512)
    rows = Rows([[1] * length for length in lengths], np.arange(512))
    padded = sum(ids.numel() for ids, *_ in shuffled(rows, 16, np.random.default_rng(0)))
    assert padded < 1.25 * lengths.sum()


def test_predicts_in_the_order_of_the_rows(make_classifier):
    classifier = make_classifier(3)
    texts = ["the film was good", "bad", "a very dull story and a bad film"] * 30
    expected = classifier.predict(texts).argmax(1)
    np.testing.assert_array_equal(predict(classifier, classifier.encode(texts)), expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 5))
def test_history_keeps_the_first_of_the_best_epochs(scores, patience):
    history = History()
    kept = [history.keep(score, 0.0) for score in scores]
    assert history.best_epoch == int(np.argmax(scores)) + 1
    assert kept == [all(score > before for before in scores[:i]) for i, score in enumerate(scores)]
    assert history.exhausted(patience) == (len(scores) - history.best_epoch >= patience)


def test_f1_counts_a_class_that_never_occurs_as_zero():
    expected, predicted = np.array([0, 0, 1]), np.array([0, 0, 1])
    assert macro_f1(expected, predicted, 2) == 1
    assert macro_f1(expected, predicted, 4) == 0.5


def test_the_rate_rises_then_falls_to_zero_in_every_group():
    network = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    optimizer = optimizer_of(network, FinetuneConfig(learning_rate=1e-4, head_learning_rate=1e-2))
    schedule = cosine_schedule(optimizer, 100, 0.1)
    rates = []
    for _ in range(100):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    peaks = np.array(rates)[:, [0, -1]]
    np.testing.assert_allclose(peaks.max(0), [1e-4, 1e-2])
    assert peaks.argmax(0).tolist() in ([9, 9], [10, 10])
    assert (np.diff(peaks[:10], axis=0) > 0).all()
    assert (np.diff(peaks[10:], axis=0) < 0).all()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0] * 4, abs=1e-9)


def test_head_and_encoder_learn_at_their_own_rates_and_biases_do_not_decay():
    network = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 3), "head": torch.nn.Linear(3, 2)})
    config = FinetuneConfig(learning_rate=1e-4, head_learning_rate=1e-2, weight_decay=0.5)
    groups = {
        tuple(weight.shape): (group["lr"], group["weight_decay"])
        for group in optimizer_of(network, config).param_groups
        for weight in group["params"]
    }
    assert groups == {
        (3, 2): (1e-4, 0.5),
        (3,): (1e-4, 0.0),
        (2, 3): (1e-2, 0.5),
        (2,): (1e-2, 0.0),
    }


def test_frozen_weights_are_not_optimized():
    network = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    network["encoder"].requires_grad_(False)
    groups = optimizer_of(network, FinetuneConfig()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2
