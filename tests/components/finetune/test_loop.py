from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.errors import WorldError
from components.finetune import feed as feed_module
from components.finetune.batches import Examples, prefetched
from components.finetune.checkpoint import Checkpoints
from components.finetune.config import AugmentConfig, FinetuneConfig
from components.finetune.feed import Feeder, Part
from components.finetune.history import Silent
from components.finetune.job import Job
from components.finetune.loop import Phase, Training, _Loop
from components.finetune.methods.gradual import cuts_by_epoch
from components.finetune.shelf import Shelf
from components.store import LocalStore
from components.tasks.networks import Mix

WHOLE = [Phase(0, 2)]


@pytest.fixture
def job(make_classifier):
    """A tiny model and rows that it can learn; keyword arguments are the configuration."""

    def build(watcher=None, rows=64, **config):
        model = make_classifier(0)
        for module in model.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        chance = np.random.default_rng(0)
        texts = [
            " ".join(chance.choice(["the", "film", "was", "a", "very"], chance.integers(3, 12)))
            for _ in range(rows)
        ]
        signs = chance.integers(0, 2, rows)
        texts = [f"{text} {('bad', 'good')[sign]}" for text, sign in zip(texts, signs, strict=True)]
        examples = Examples(texts, model.encode(texts), signs)
        settings = FinetuneConfig.model_validate(
            {
                "epochs": 2,
                "batch_rows": 16,
                "learning_rate": 1e-3,
                "precision": "float32",
                "device": "cpu",
                "threads": 1,
                "patience_epochs": 9,
                **config,
            }
        )
        train = examples.where(np.arange(rows) < rows * 3 // 4)
        valid = examples.where(np.arange(rows) >= rows * 3 // 4)
        return Job(
            model, train, valid, settings, lambda: make_classifier(0), None, watcher or Silent()
        )

    return build


def weights_after(job, phases=WHOLE):
    job.training(phases).run()
    return {name: each.clone() for name, each in job.model.network.state_dict().items()}


def losses_of(job, phases):
    """Return the mean loss of each epoch, whichever of them was kept."""
    return job.training(phases).run().train_loss


def close(one, other, atol=1e-5):
    return all(torch.allclose(one[name], other[name], atol=atol) for name in one)


def test_a_step_in_parts_is_the_same_step(job):
    whole, parts = weights_after(job()), weights_after(job(accumulation=4))
    assert close(whole, parts)
    assert not close(whole, weights_after(job(seed=1)))


def test_activations_computed_twice_give_the_same_step(job):
    def trained(**config):
        work, passes = job(epochs=1, **config), []
        layer = work.model.network.encoder.encoder.layer[0].attention
        layer.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
        return weights_after(work, [Phase(0, 1)]), sum(passes)

    plain, once = trained()
    again, twice = trained(gradient_checkpointing=True)
    assert close(plain, again)
    assert (once, twice) == (3, 6)


def test_frozen_stages_computed_once_give_the_same_weights_as_computed_always(job):
    """The cache changes the time that training takes, and nothing else."""
    cached = job()
    got = weights_after(cached, [Phase(2, 2)])
    plain = job()
    learns = [
        name
        for name, _ in plain.model.network.named_parameters()
        if plain.model.network.stage_of(name) >= 2
    ]
    plain.training([Phase(0, 2)], learns=learns).run()
    assert close(got, plain.model.network.state_dict())


def test_frozen_stages_stay_as_they_are(job):
    work = job()
    before = {name: each.clone() for name, each in work.model.network.named_parameters()}
    work.training([Phase(3, 1), Phase(2, 1)]).run()
    for name, weight in work.model.network.named_parameters():
        assert torch.equal(weight, before[name]) == (work.model.network.stage_of(name) < 2), name
        assert weight.requires_grad


def test_gradual_goes_down_evenly():
    assert cuts_by_epoch(7, 0, 3) == [7, 4, 0]
    assert cuts_by_epoch(7, 0, 8) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert cuts_by_epoch(7, 3, 2) == [7, 3]
    assert cuts_by_epoch(7, 2, 1) == [2]


class Spoiling(Silent):
    """Makes the weights overflow when a step is done."""

    def __init__(self, last_step):
        self.last_step: int = last_step
        self.network: Any = None

    def progress(self, done, total, what):
        if done == self.last_step:
            with torch.no_grad():
                self.network.head.weight.mul_(1e38)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_that_is_not_finite_stops_at_its_step_and_says_what_to_do(job, tmp_path, precision):
    watcher = Spoiling(4)
    kept = Checkpoints(LocalStore(tmp_path), "training")
    work = replace(
        job(watcher=watcher, precision=precision, checkpoint_steps=3), checkpoints=lambda name: kept
    )
    watcher.network = work.model.network
    with pytest.raises(
        WorldError,
        match=r"the loss is (nan|inf) at step 5 of 6, learning rate 0\.0\d+; lower .*of epoch 1",
    ):
        work.training([Phase(0, 2)]).run()
    state = kept.load()
    assert state is not None
    assert state.step == 3
    assert all(bool(each.isfinite().all()) for each in state.tensors.values())


def test_answers_that_are_not_finite_stop_the_training_too(job):
    watcher = Spoiling(3)  # the last step of the first epoch
    work = job(watcher=watcher)
    watcher.network = work.model.network
    with pytest.raises(WorldError, match="answers to validation rows are not finite after step 3"):
        work.training([Phase(0, 2)]).run()


@pytest.mark.slow
def test_memory_that_does_not_suffice_splits_the_step(tiny_base):
    def starve(megabytes):
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("starved_training.py"), tiny_base, megabytes],
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    assert starve("20000") == "parts 1"
    assert starve("1500") in ("parts 2", "parts 4")
    said = starve("120")
    assert said.startswith("error out of memory on cpu at step 1: a step of 16384 rows, 32 long")
    assert "Try finetune.batch_rows=" in said


@pytest.mark.parametrize(
    "asked",
    [
        {"mixup": 0.4},
        {"balance": "weights"},
        {"augment": AugmentConfig(word_dropout=0.2)},
        {"augment": AugmentConfig(word_swap=0.5)},
        {"label_smoothing": 0.3},
    ],
    ids=lambda asked: "-".join(asked),
)
def test_what_is_asked_for_changes_the_training_and_is_the_same_again(job, asked):
    one = weights_after(job(**asked))
    assert close(one, weights_after(job(**asked)), atol=0)
    assert not close(one, weights_after(job()))


def test_noisy_copies_are_read_in_turn_above_frozen_stages(job):
    def trained(copies, epochs):
        augment = AugmentConfig(word_dropout=0.3, copies=copies)
        return losses_of(job(augment=augment), [Phase(2, epochs)])

    one, two = trained(1, 3), trained(2, 3)
    assert one[0] == pytest.approx(two[0], abs=1e-6), "the first epoch reads the first copy"
    assert one[1] != pytest.approx(two[1], abs=1e-4), "and the second epoch the second"
    assert trained(4, 2) == pytest.approx(trained(2, 2), abs=1e-6)
    assert one[0] != pytest.approx(losses_of(job(), [Phase(2, 3)])[0], abs=1e-4), "all are noisy"


def test_under_mixup_each_label_brings_the_weight_of_its_class(job):
    work = job(mixup=0.4, balance="weights")
    loop = _Loop(work.training(WHOLE))
    outputs = torch.tensor([[2.0, -1.0], [0.5, 1.0], [0.0, 0.0]])
    targets, weights = torch.tensor([0, 1, 1]), torch.tensor([4.0, 1.0, 1.0])
    mix = Mix(torch.tensor([1, 0, 2]), 0.75)
    own = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    other = torch.nn.functional.cross_entropy(outputs, targets[mix.partners], reduction="none")
    expected = [
        0.75 * 4 * own[0] + 0.25 * 1 * other[0],
        0.75 * 1 * own[1] + 0.25 * 4 * other[1],
        own[2],
    ]
    found = loop._losses(outputs, Part((), targets, weights, None, mix))
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("memory", [0, 40_000])
def test_frozen_states_that_do_not_fit_lie_in_a_file_and_change_nothing(job, monkeypatch, memory):
    held = losses_of(job(), [Phase(2, 2)])
    monkeypatch.setattr(feed_module, "available_bytes", lambda: memory)
    shelves = []

    class Watched(Shelf):
        def close(self):
            shelves.append(len(self._filed))
            return super().close()

    monkeypatch.setattr(feed_module, "Shelf", Watched)
    assert held == losses_of(job(), [Phase(2, 2)])
    train, valid = shelves
    assert (train, valid) == (48, 16) if memory == 0 else 0 < train < 48


@pytest.fixture
def starving(job):
    """A job whose forward pass runs out of memory with more than ``fits(step)`` rows."""

    def build(fits, **config):
        work = job(**config)
        sizes = []

        def starve(module, args):
            if module.training:
                sizes.append(len(args[0]))
                if len(args[0]) > fits(len(sizes)):
                    raise torch.OutOfMemoryError("CUDA out of memory.")

        work.model.network.register_forward_pre_hook(starve)
        return work, sizes

    return build


def test_parts_are_halved_until_they_fit_and_stay_so(starving):
    work, sizes = starving(lambda attempt: 8)
    history = work.training(WHOLE).run()
    assert (history.accumulation, history.steps) == (2, 6)
    assert sizes == [16] + [8] * 12


@pytest.mark.parametrize("parts", [1, 2])
def test_parts_are_halved_twice_in_a_training_and_no_more(starving, parts):
    work, sizes = starving(lambda attempt: 0, accumulation=parts)
    with pytest.raises(
        WorldError,
        match=rf"at step 1: a step of 16 rows, \d+ long, does not fit even in {4 * parts} parts"
        r"\. Try finetune\.batch_rows=2,",
    ):
        work.training(WHOLE).run()
    assert sizes == [16 // parts, 8 // parts, 4 // parts]


def test_a_later_step_that_does_not_fit_counts_with_the_earlier_ones(starving):
    work, _ = starving(lambda attempt: 4 if attempt < 10 else 2)
    with pytest.raises(WorldError, match=r"at step 2: .* even in 4 parts"):
        work.training(WHOLE).run()


def test_rows_are_not_split(starving):
    work, sizes = starving(lambda attempt: 0, batch_rows=2)
    with pytest.raises(
        WorldError, match=r"2 rows, .* even in 2 parts\. Try finetune\.batch_rows=1,"
    ):
        work.training(WHOLE).run()
    assert sizes == [2, 1]


def test_what_was_loaded_ahead_is_split_again(starving, monkeypatch):
    monkeypatch.setattr(
        feed_module, "map", lambda load, steps: prefetched(steps, load), raising=False
    )
    work, sizes = starving(lambda attempt: 8)
    work.training(WHOLE).run()
    assert sizes == [16] + [8] * 12


@pytest.mark.parametrize("what", ["step", "scores", "frozen"])
def test_memory_that_runs_out_elsewhere_is_explained(job, monkeypatch, what):
    def fail(*args, **kwargs):
        raise MemoryError("Unable to allocate 9 GiB")

    if what == "step":
        monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    else:
        owner, name = {"scores": (_Loop, "_scores"), "frozen": (Feeder, "feed")}[what]
        monkeypatch.setattr(owner, name, fail)
    with pytest.raises(WorldError, match=r"^out of memory on cpu after step 0: Unable .* Try "):
        job().training([Phase(2, 1)]).run()


def test_steps_are_counted_without_keeping_rows(job):
    for config in ({}, {"batch_tokens": 64}):
        loop = _Loop(job(**config).training([Phase(3, 1), Phase(2, 2)]))
        counts = [len(loop.feeder.order(epoch)) for epoch in range(3)]
        assert loop._steps_by_phase() == [counts[0], counts[1] + counts[2]]


def test_fewer_rows_than_a_batch_are_one_step(job):
    work = job(rows=8, epochs=1)
    assert work.training([Phase(0, 1)]).run().steps == 1


def test_a_teacher_that_knows_better_than_the_labels_is_heard(job):
    """With all the weight on the teacher, the labels make no difference."""
    teacher = torch.randn(48, 2, generator=torch.Generator().manual_seed(0))
    config = {"distill": {"soft_share": 1.0}}
    one, other = job(**config), job(**config)
    turned = Examples(other.train.contents, other.train.examples, 1 - other.train.targets)
    one.training([Phase(0, 2)], teacher=teacher).run()
    Training(other.model, turned, other.valid, other.config, [Phase(0, 2)], teacher=teacher).run()
    learned = {name: each for name, each in one.model.network.named_parameters()}
    assert any(
        not torch.equal(a, b)
        for a, b in zip(learned.values(), job().model.network.parameters(), strict=True)
    )
    for name, weight in other.model.network.named_parameters():
        assert torch.equal(weight, learned[name])


def test_what_was_seen_is_counted_and_told(job):
    told = []

    class Watcher(Silent):
        def metrics(self, values, step):
            told.append((step, values))

    work = job(watcher=Watcher(), batch_rows=4)
    history = work.training([Phase(0, 2)]).run()
    assert (history.steps, history.rows) == (24, 96)
    assert history.tokens == 2 * sum(map(len, work.train.examples))
    assert [step for step, values in told if "learning_rate" in values] == [10, 20]
    assert [step for step, values in told if "valid_macro_f1" in values] == [12, 24]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_training_learns_the_same(job, precision):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    plain = weights_after(job(precision=precision))
    compiled = weights_after(job(precision=precision, compile=True))
    assert close(plain, compiled, atol=1e-3 if precision == "float32" else 3e-2)
