from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from components import bundle
from components.errors import BundleError, ConfigError
from components.finetune.config import ScheduleConfig
from components.finetune.report import to_html
from components.finetune.start import fitting_champion
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


def f1_by_epoch(report):
    return [epoch.scores["macro_f1"] for epoch in report.epochs]


def loss_by_epoch(report):
    return [epoch.train_loss for epoch in report.epochs]


def accuracy(folder, prepared):
    frame = pd.read_parquet(prepared / "rows.parquet")
    test = frame[frame["split"] == "test"]
    classifier = TextClassifier.load(folder)
    answers = classifier.predict(test["text"].tolist()).argmax(1)
    return (np.array(classifier.labels)[answers] == test["label"]).mean()


@pytest.mark.parametrize("method", ["full", "head", "top", "gradual", "lora", "distill"])
def test_learns_what_can_be_learned(finetuned, toy, tmp_path, method):
    report = finetuned(method=method, epochs=12)
    assert report.method == method
    assert report.start == "base"
    assert report.scores["macro_f1"] > 0.95
    scores = [report.start_scores["macro_f1"], *f1_by_epoch(report)]
    assert report.scores["macro_f1"] == max(scores)
    assert scores.index(max(scores)) == report.best_epoch
    assert loss_by_epoch(report)[-1] < loss_by_epoch(report)[0]
    # What was sealed is what was measured, and holds on rows that nobody has seen.
    assert accuracy(tmp_path / "bundle", toy.second) > 0.95


@pytest.mark.parametrize("method", ["full", "head", "top", "lora", "distill"])
def test_the_same_inputs_give_the_same_bundle_and_another_seed_another(finetuned, method):
    epochs = {"method": method, "epochs": 1, "head_epochs": 2, "dropout": 0.1}
    first = finetuned("one", **epochs)
    assert finetuned("two", **epochs).bundle == first.bundle
    assert finetuned("three", **epochs, seed=1).bundle != first.bundle


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_either_precision_learns_and_repeats_and_keeps_float32_weights(
    finetuned, tmp_path, precision
):
    first = finetuned("one", precision=precision)
    assert first.scores["macro_f1"] > 0.95
    assert finetuned("two", precision=precision).bundle == first.bundle
    weights = load_file(tmp_path / "one" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {np.dtype("float32")}


def test_head_leaves_the_encoder_as_it_was_and_full_does_not(finetuned, toy, tmp_path):
    finetuned("head", method="head", head_epochs=1)
    finetuned("full", method="full", epochs=1)
    base = load_file(toy.base / "model.safetensors")
    moved = {}
    for name in ("head", "full"):
        weights = load_file(tmp_path / name / "model.safetensors")
        moved[name] = [
            key
            for key, value in base.items()
            if not key.startswith("pooler.")  # nothing reads it
            and not np.array_equal(weights[f"encoder.{key}"], value)
        ]
    assert moved["head"] == []
    assert len(moved["full"]) > len(base) // 2


def test_a_warm_start_goes_on_from_the_champion(finetuned, toy_champion):
    cold = finetuned("cold", epochs=1, learning_rate=1e-6, head_learning_rate=1e-6)
    warm = finetuned(
        "warm", champion=toy_champion, epochs=1, learning_rate=1e-6, head_learning_rate=1e-6
    )
    assert (cold.start, warm.start) == ("base", "champion")
    assert cold.scores["macro_f1"] < 0.8
    assert warm.scores["macro_f1"] > 0.95


def test_the_champion_is_not_changed_by_a_warm_start(finetuned, toy_champion):
    finetuned(champion=toy_champion, epochs=1)
    bundle.verify(toy_champion)


def test_without_warm_start_the_champion_makes_no_difference(finetuned, toy_champion):
    config = {"epochs": 1, "start": "base"}
    with_one = finetuned("with", champion=toy_champion, **config)
    assert with_one.bundle == finetuned("without", **config).bundle


def test_a_champion_with_other_labels_is_not_continued(toy, toy_champion):
    other = TextClassification(labels=("positive", "neutral", "negative"), max_tokens=16)
    assert fitting_champion(toy_champion, other, [toy.start.base]) == (
        None,
        "the champion answers in other terms",
    )


def test_a_champion_whose_labels_are_in_another_order_is_continued(finetuned, toy, toy_champion):
    turned = TextClassification(labels=toy.task.labels[::-1], max_tokens=16)
    report = finetuned(
        champion=toy_champion, task=turned, epochs=1, learning_rate=1e-6, head_learning_rate=1e-6
    )
    assert report.start == "champion"
    assert report.scores["macro_f1"] > 0.95


def test_the_champion_goes_by_the_tasks_limit_of_tokens(finetuned, toy, toy_champion, tmp_path):
    task = toy.task.model_copy(update={"max_tokens": 8})
    finetuned(champion=toy_champion, task=task, epochs=1)
    assert TextClassifier.load(tmp_path / "bundle").max_tokens == 8


def test_the_bundle_says_what_it_is_and_where_it_comes_from(finetuned, toy, tmp_path):
    report = finetuned(epochs=1)
    description = bundle.verify(tmp_path / "bundle", report.bundle)
    assert description.task == toy.task
    assert description.recipe["epochs"] == 1
    assert description.lineage == {
        "data": "d" * 64,
        "window_end": toy.weeks[1].window.end,
        "base": "",
    }
    assert description.scores == {f"valid_{name}": each for name, each in report.scores.items()}
    assert description.test_share == 0.2
    frame = pd.read_parquet(toy.second / "rows.parquet")
    learned = set(frame["text"][frame["split"] == "train"])
    assert len(description.examples) == 3
    assert set(description.examples) <= learned


def test_the_profile_remembers_training_rows_and_the_confidence_on_validation_rows(
    finetuned, toy, tmp_path
):
    report = finetuned(epochs=1)
    profile = Profile.load(tmp_path / "bundle")
    frame = pd.read_parquet(toy.second / "rows.parquet")
    texts = frame["text"][frame["split"] == "train"]
    assert profile.window == "2026-01-12"
    assert profile.error_rate == pytest.approx(1 - report.scores["accuracy"])
    characters = profile.numbers["characters"].values
    np.testing.assert_array_equal(characters, sorted(map(len, texts)))
    vectors = load_file(toy.second / "embeddings.safetensors")["vectors"]
    train_rows = (frame["split"] == "train").to_numpy()[: len(vectors)]
    np.testing.assert_array_equal(profile.vectors, vectors[train_rows])
    valid = frame[frame["split"] == "valid"]
    model = TextClassifier.load(tmp_path / "bundle")
    probabilities = model.predict(valid["text"].tolist())
    confidence = np.sort(probabilities.max(1))
    np.testing.assert_allclose(profile.numbers["confidence"].values, confidence, atol=1e-6)
    assert sum(profile.categories["answer"].values()) == len(valid)
    assert sum(profile.categories["language"].values()) == len(texts)
    assert profile.answers is not None
    np.testing.assert_allclose(profile.answers.probabilities, probabilities, atol=1e-6)
    expected = model.targets(valid["label"].tolist())
    np.testing.assert_array_equal(profile.answers.targets, expected)


def test_test_and_guard_rows_have_no_influence(finetuned, toy, tmp_path):
    spoilt = shutil.copytree(toy.second, tmp_path / "spoilt")
    frame = pd.read_parquet(spoilt / "rows.parquet")
    unseen = frame["split"].isin(["test", "guard"])
    frame.loc[unseen, "text"] = "bad bad bad"
    frame.loc[unseen, "label"] = "positive"
    frame.to_parquet(spoilt / "rows.parquet")
    report = finetuned("one", epochs=1)
    assert finetuned("two", epochs=1, prepared=spoilt).bundle == report.bundle
    assert report.train_rows == frame["split"].isin(["train", "rehearsal"]).sum()


@pytest.mark.parametrize("method", ["full", "head"])
def test_a_watcher_is_told_of_every_epoch_and_of_the_end(finetuned, method):
    watcher = Watcher()
    report = finetuned(method=method, epochs=2, head_epochs=2, watcher=watcher)
    epochs = [values for _, values in watcher.told if "valid_macro_f1" in values]
    assert [values["valid_macro_f1"] for values in epochs] == f1_by_epoch(report)
    assert [values["train_loss"] for values in epochs] == loss_by_epoch(report)
    assert all({"device_hours", "host_memory_gb"} <= values.keys() for values in epochs)
    assert watcher.done[-1] == (report.steps, report.steps)


def test_training_stops_when_nothing_gets_better_and_keeps_the_best(finetuned, toy_champion):
    report = finetuned(
        champion=toy_champion,
        epochs=50,
        patience_epochs=2,
        learning_rate=1e-7,
        head_learning_rate=1e-7,
    )
    assert len(f1_by_epoch(report)) == 3, "the first, and two that are no better"
    assert report.best_epoch == 0, "the champion as it was"
    assert report.scores["macro_f1"] == report.start_scores["macro_f1"]


@pytest.mark.parametrize("method", ["full", "head"])
def test_what_later_epochs_spoil_is_not_kept(finetuned, toy, toy_champion, tmp_path, method):
    # The champion knows better than these labels, and unlearns it.
    prepared = shutil.copytree(toy.second, tmp_path / "prepared")
    frame = pd.read_parquet(prepared / "rows.parquet")
    learned = frame["split"].isin(["train", "rehearsal"])
    turned = {"negative": "positive", "positive": "negative"}
    frame.loc[learned, "label"] = frame.loc[learned, "label"].map(turned)
    frame.to_parquet(prepared / "rows.parquet")
    report = finetuned(
        champion=toy_champion,
        prepared=prepared,
        method=method,
        patience_epochs=9,
        learning_rate=1e-3,
        schedule=ScheduleConfig(warmup_share=0.5),
    )
    assert f1_by_epoch(report)[-1] < 0.5 < report.scores["macro_f1"]
    assert report.scores["macro_f1"] == max(report.start_scores["macro_f1"], *f1_by_epoch(report))
    assert accuracy(tmp_path / "bundle", toy.second) > 0.5


def test_texts_that_were_cut_are_counted(finetuned, toy, tmp_path):
    prepared = shutil.copytree(toy.second, tmp_path / "prepared")
    frame = pd.read_parquet(prepared / "rows.parquet")
    learned = frame.index[frame["split"].isin(["train", "rehearsal"])]
    frame.loc[learned[:3], "text"] = "good " * 40
    frame.to_parquet(prepared / "rows.parquet")
    assert finetuned(prepared=prepared, epochs=1).cut_rows == 3


def test_a_base_or_champion_that_does_not_load_is_a_bundle_error(toy, toy_champion, tmp_path):
    with pytest.raises(BundleError, match="base model"):
        TextClassifier.from_base(tmp_path, toy.task, dropout=0.1)
    broken = shutil.copytree(toy_champion, tmp_path / "champion")
    weights = load_file(broken / "model.safetensors")
    weights["head.bias"] = np.full_like(weights["head.bias"], np.nan)
    save_file(weights, broken / "model.safetensors")
    with pytest.raises(BundleError, match=r"not finite: head\.bias"):
        fitting_champion(broken, toy.task, [toy.start.base])
    (broken / "model.json").write_text(json.dumps({"head": "mean-pool"}))
    with pytest.raises(BundleError, match="does not load"):
        fitting_champion(broken, toy.task, [toy.start.base])


def test_the_page_shows_the_curves_and_needs_no_network(finetuned):
    shown = to_html(finetuned(epochs=2))
    assert "<polyline" in shown
    assert "Loss by epoch" in shown
    assert "http" not in shown


def test_auto_compares_champion_and_base_and_says_why(finetuned, toy, toy_champion):
    report = finetuned(champion=toy_champion, epochs=1, start="auto")
    assert report.start == "champion"
    assert [each.name for each in report.candidates] == ["champion", str(toy.base)]
    champion, base = report.candidates
    assert champion.score >= base.score
    assert report.start_reason.startswith("a linear probe's score on its features is")
    assert f"{champion.score:.3f}" in report.start_reason


def test_auto_leaves_a_champion_that_is_worse_than_the_base(
    finetuned, toy, make_classifier, seal_bundle, tmp_path
):
    import torch

    folder = tmp_path / "spoilt"
    spoilt = make_classifier(0)
    with torch.no_grad():
        spoilt.network.encoder.embeddings.word_embeddings.weight.zero_()
    spoilt.save(folder)
    seal_bundle(folder)
    report = finetuned(champion=folder, epochs=1, start="auto")
    assert report.start == "base"
    champion, base = report.candidates
    assert champion.score < base.score
    assert f"the others: champion {champion.score:.3f}" in report.start_reason


@pytest.mark.parametrize("method", ["full", "top"])
def test_a_new_head_starts_as_good_as_a_linear_probe(finetuned, method):
    slow = {"method": method, "epochs": 1, "learning_rate": 1e-9, "head_learning_rate": 1e-9}
    report = finetuned("probed", probe_head=True, **slow)
    assert report.start == "base"
    assert report.start_scores["macro_f1"] > 0.95
    assert report.scores["macro_f1"] >= report.start_scores["macro_f1"]
    assert finetuned("plain", **slow).start_scores["macro_f1"] < 0.8


def test_a_device_that_is_not_there_is_the_users_mistake(finetuned):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        finetuned(device="cuda")
