from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from components import bundle
from components.errors import BundleError
from components.finetune.core import finetune, start_of
from components.profile import Profile
from components.tasks.text_classification import TextClassification, TextClassifier


class Watcher:
    """Writes down what it is told."""

    def __init__(self):
        self.told: list[tuple[int, dict[str, float]]] = []
        self.done: list[tuple[int, int]] = []

    def metrics(self, values, step):
        self.told.append((step, values))

    def progress(self, done, total, what):
        self.done.append((done, total))


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
def train(toy, tmp_path):
    """Fine-tune on the second week; keyword arguments change the configuration."""

    def run(name="bundle", *, champion=None, task=None, watcher=None, prepared=None, **config):
        return finetune(
            prepared or toy.second,
            toy.base,
            champion,
            tmp_path / name,
            task or toy.task,
            toy.training.model_copy(update=config),
            {"data": "d" * 64, "window_end": toy.weeks[1].window.end},
            watcher or Watcher(),
        )

    return run


def accuracy(folder, prepared):
    frame = pd.read_parquet(prepared / "rows.parquet")
    test = frame[frame["split"] == "test"]
    classifier = TextClassifier.load(folder)
    answers = classifier.predict(test["text"].tolist()).argmax(1)
    return (np.array(classifier.labels)[answers] == test["label"]).mean()


@pytest.mark.parametrize("method", ["full", "head"])
def test_learns_what_can_be_learned(train, toy, tmp_path, method):
    report = train(method=method)
    assert report.method == method
    assert report.start == "base"
    assert report.valid_f1 > 0.95
    assert report.valid_f1 == max(report.valid_f1_by_epoch)
    assert report.valid_f1_by_epoch.index(report.valid_f1) + 1 == report.best_epoch
    assert report.train_loss_by_epoch[-1] < report.train_loss_by_epoch[0]
    # What was sealed is what was measured, and holds on rows that nobody has seen.
    assert accuracy(tmp_path / "bundle", toy.second) > 0.95


@pytest.mark.parametrize("method", ["full", "head"])
def test_the_same_inputs_give_the_same_bundle_and_another_seed_another(train, method):
    epochs = {"method": method, "epochs": 1, "head_epochs": 2, "dropout": 0.1}
    first = train("one", **epochs)
    assert train("two", **epochs) == first
    assert train("three", **epochs, seed=1).bundle != first.bundle


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_either_precision_learns_and_repeats_and_keeps_float32_weights(train, tmp_path, precision):
    first = train("one", precision=precision)
    assert first.valid_f1 > 0.95
    assert train("two", precision=precision) == first
    weights = load_file(tmp_path / "one" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {np.dtype("float32")}


def test_head_leaves_the_encoder_as_it_was_and_full_does_not(train, toy, tmp_path):
    train("head", method="head", head_epochs=1)
    train("full", method="full", epochs=1)
    base = load_file(toy.base / "model.safetensors")
    moved = {}
    for name in ("head", "full"):
        weights = load_file(tmp_path / name / "model.safetensors")
        moved[name] = [
            key
            for key, value in base.items()
            if not np.array_equal(weights[f"backbone.{key}"], value)
        ]
    assert moved["head"] == []
    assert len(moved["full"]) > len(base) // 2


def test_a_warm_start_goes_on_from_the_champion(train, toy_champion):
    cold = train("cold", epochs=1, learning_rate=1e-6, head_learning_rate=1e-6)
    warm = train(
        "warm", champion=toy_champion, epochs=1, learning_rate=1e-6, head_learning_rate=1e-6
    )
    assert (cold.start, warm.start) == ("base", "champion")
    assert cold.valid_f1 < 0.8
    assert warm.valid_f1 > 0.95


def test_the_champion_is_not_changed_by_a_warm_start(train, toy_champion):
    train(champion=toy_champion, epochs=1)
    bundle.verify(toy_champion)


def test_without_warm_start_the_champion_makes_no_difference(train, toy_champion):
    config = {"epochs": 1, "warm_start": False}
    assert train("with", champion=toy_champion, **config) == train("without", **config)


def test_a_champion_with_other_labels_is_not_continued(toy, toy_champion):
    other = TextClassification(labels=("positive", "neutral", "negative"), max_tokens=16)
    started, start = start_of(toy.base, toy_champion, other, toy.training, "")
    assert start == "base"
    assert started.labels == other.labels


def test_a_champion_whose_labels_are_in_another_order_is_continued(train, toy, toy_champion):
    turned = TextClassification(labels=toy.task.labels[::-1], max_tokens=16)
    report = train(
        champion=toy_champion, task=turned, epochs=1, learning_rate=1e-6, head_learning_rate=1e-6
    )
    assert report.start == "champion"
    assert report.valid_f1 > 0.95


def test_the_champion_goes_by_the_tasks_limit_of_tokens(toy, toy_champion):
    task = toy.task.model_copy(update={"max_tokens": 8})
    started, start = start_of(toy.base, toy_champion, task, toy.training, "")
    assert (start, started.max_tokens) == ("champion", 8)


def test_the_bundle_says_what_it_is_and_where_it_comes_from(train, toy, tmp_path):
    report = train(epochs=1)
    description = bundle.verify(tmp_path / "bundle", report.bundle)
    assert description.task == toy.task
    assert description.recipe["epochs"] == 1
    assert description.lineage == {"data": "d" * 64, "window_end": toy.weeks[1].window.end}
    assert description.scores == {
        "valid_f1": report.valid_f1,
        "valid_accuracy": report.valid_accuracy,
    }
    assert description.test_share == 0.2
    frame = pd.read_parquet(toy.second / "rows.parquet")
    learned = set(frame["text"][frame["split"] == "train"])
    assert len(description.examples) == 3
    assert set(description.examples) <= learned


def test_the_profile_remembers_training_rows_and_the_confidence_on_validation_rows(
    train, toy, tmp_path
):
    report = train(epochs=1)
    profile = Profile.load(tmp_path / "bundle")
    frame = pd.read_parquet(toy.second / "rows.parquet")
    texts = frame["text"][frame["split"] == "train"]
    assert profile.window == "2026-01-12"
    assert profile.error_rate == pytest.approx(1 - report.valid_accuracy)
    np.testing.assert_array_equal(profile.features["characters"], sorted(map(len, texts)))
    vectors = load_file(toy.second / "embeddings.safetensors")["vectors"]
    train_rows = (frame["split"] == "train").to_numpy()[: len(vectors)]
    np.testing.assert_allclose(
        profile.features["embedding_007"], np.sort(vectors[train_rows, 7]), atol=1e-7
    )
    valid = frame["text"][frame["split"] == "valid"].tolist()
    confidence = TextClassifier.load(tmp_path / "bundle").predict(valid).max(1)
    np.testing.assert_allclose(profile.features["confidence"], np.sort(confidence), atol=1e-6)


def test_test_and_guard_rows_have_no_influence(train, toy, tmp_path):
    spoilt = shutil.copytree(toy.second, tmp_path / "spoilt")
    frame = pd.read_parquet(spoilt / "rows.parquet")
    unseen = frame["split"].isin(["test", "guard"])
    frame.loc[unseen, "text"] = "bad bad bad"
    frame.loc[unseen, "label"] = "positive"
    frame.to_parquet(spoilt / "rows.parquet")
    report = train("one", epochs=1)
    assert train("two", epochs=1, prepared=spoilt).bundle == report.bundle
    assert report.train_rows == frame["split"].isin(["train", "rehearsal"]).sum()


@pytest.mark.parametrize("method", ["full", "head"])
def test_a_watcher_is_told_of_every_epoch_and_of_the_end(train, method):
    watcher = Watcher()
    report = train(method=method, epochs=2, head_epochs=2, watcher=watcher)
    epochs = [values for _, values in watcher.told if "valid_f1" in values]
    assert [values["valid_f1"] for values in epochs] == report.valid_f1_by_epoch
    assert [values["epoch_loss"] for values in epochs] == report.train_loss_by_epoch
    assert watcher.done[-1] == (report.steps, report.steps)


def test_training_stops_when_nothing_gets_better_and_keeps_the_best(train, toy_champion):
    report = train(
        champion=toy_champion,
        epochs=50,
        patience_epochs=2,
        learning_rate=1e-7,
        head_learning_rate=1e-7,
    )
    assert len(report.valid_f1_by_epoch) == 3
    assert report.best_epoch == 1


@pytest.mark.parametrize("method", ["full", "head"])
def test_what_later_epochs_spoil_is_not_kept(train, toy, toy_champion, tmp_path, method):
    # The champion knows better than these labels, and unlearns it.
    prepared = shutil.copytree(toy.second, tmp_path / "prepared")
    frame = pd.read_parquet(prepared / "rows.parquet")
    learned = frame["split"].isin(["train", "rehearsal"])
    turned = {"negative": "positive", "positive": "negative"}
    frame.loc[learned, "label"] = frame.loc[learned, "label"].map(turned)
    frame.to_parquet(prepared / "rows.parquet")
    report = train(
        champion=toy_champion,
        prepared=prepared,
        method=method,
        patience_epochs=9,
        learning_rate=1e-3,
        warmup_share=0.5,
    )
    assert report.valid_f1_by_epoch[-1] < 0.5 < report.valid_f1
    assert report.valid_f1 == max(report.valid_f1_by_epoch)
    assert accuracy(tmp_path / "bundle", toy.second) > 0.5


def test_texts_that_were_cut_are_counted(train, toy, tmp_path):
    prepared = shutil.copytree(toy.second, tmp_path / "prepared")
    frame = pd.read_parquet(prepared / "rows.parquet")
    learned = frame.index[frame["split"].isin(["train", "rehearsal"])]
    frame.loc[learned[:3], "text"] = "good " * 40
    frame.to_parquet(prepared / "rows.parquet")
    assert train(prepared=prepared, epochs=1).cut_texts == 3


def test_a_base_or_champion_that_does_not_load_is_a_bundle_error(toy, toy_champion, tmp_path):
    with pytest.raises(BundleError, match="base model"):
        start_of(tmp_path, None, toy.task, toy.training, "")
    broken = shutil.copytree(toy_champion, tmp_path / "champion")
    weights = load_file(broken / "model.safetensors")
    weights["head.bias"] = np.full_like(weights["head.bias"], np.nan)
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(BundleError, match=r"not finite: head\.bias"):
        start_of(toy.base, broken, toy.task, toy.training, "")
    (broken / "classifier.json").write_text(json.dumps({"labels": ["a"]}))
    with pytest.raises(BundleError, match="does not load"):
        start_of(toy.base, broken, toy.task, toy.training, "")


def test_an_adopted_head_is_not_trained_by_method_head(make_classifier):
    from torch import nn

    from components.finetune.batches import Rows
    from components.finetune.config import FinetuneConfig
    from components.finetune.methods import METHODS
    from components.tasks.networks import NativeClassifier

    classifier = make_classifier(0)
    classifier.network = NativeClassifier(nn.Linear(1, 2))
    nothing = Rows([], np.zeros(0, dtype=np.int64))
    with pytest.raises(ValueError, match="adopted"):
        METHODS["head"](classifier, nothing, nothing, FinetuneConfig(), Watcher())
