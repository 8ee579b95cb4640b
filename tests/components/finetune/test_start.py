from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from sklearn.metrics import f1_score

from components import bundle
from components.errors import BundleError, ConfigError
from components.finetune.batches import Examples
from components.finetune.config import ChooseBaseConfig, FinetuneConfig
from components.finetune.history import Silent
from components.finetune.report import to_html
from components.finetune.start import (
    Candidate,
    choose,
    continued,
    log_evidence,
    megabytes_of,
    preferred,
    probe_score,
    sample,
)
from components.plan import Base


def direct_evidence(features, column):
    """The evidence of a Bayesian linear model by its definition, maximised by scipy."""
    rows = len(features)

    def negative(logs):
        alpha, beta = np.exp(np.clip(logs, -15, 15))
        covariance = features @ features.T / alpha + np.eye(rows) / beta
        _, log_determinant = np.linalg.slogdet(covariance)
        fit = column @ np.linalg.solve(covariance, column)
        return (log_determinant + fit + rows * np.log(2 * np.pi)) / 2

    best = min(
        minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).fun
        for start in ([0.0, 0.0], [3.0, 3.0], [-2.0, 2.0])
    )
    return -best / rows


@pytest.mark.parametrize(("rows", "width"), [(60, 8), (20, 50)])
def test_log_evidence_is_that_of_the_best_bayesian_linear_model(rows, width):
    chance = np.random.default_rng(0)
    features = chance.normal(size=(rows, width))
    values = features @ chance.normal(size=width) + chance.normal(size=rows)
    got = log_evidence(features, values)
    assert got == pytest.approx(direct_evidence(features, values), abs=2e-3)


def test_log_evidence_of_classes_is_the_mean_over_them():
    chance = np.random.default_rng(1)
    features = chance.normal(size=(50, 6))
    classes = (features[:, 0] > 0).astype(np.int64) + (features[:, 1] > 1)
    expected = np.mean(
        [direct_evidence(features, (classes == each).astype(float)) for each in np.unique(classes)]
    )
    assert log_evidence(features, classes) == pytest.approx(expected, abs=2e-3)


def test_features_that_say_more_have_more_evidence():
    chance = np.random.default_rng(2)
    classes = chance.integers(0, 2, 200)
    noise = chance.normal(size=(200, 10))
    telling = noise + classes[:, None]
    assert log_evidence(telling, classes) > log_evidence(noise, classes) + 0.1


def test_a_probe_scores_by_the_tasks_metric(make_classifier):
    chance = np.random.default_rng(3)
    classes = chance.integers(0, 2, 300)
    features = chance.normal(size=(300, 5)) + 2 * classes[:, None]
    model = make_classifier(0)
    score = probe_score(model, features[:200], classes[:200], features[200:], classes[200:])
    assert score > 0.95
    lost = probe_score(model, features[:200], classes[:200][::-1], features[200:], classes[200:])
    assert lost < 0.7


def test_a_sample_is_drawn_once_for_a_seed():
    rows = Examples([str(i) for i in range(50)], [np.array([i]) for i in range(50)], np.arange(50))
    assert sample(rows, 10, 0).contents == sample(rows, 10, 0).contents
    assert sample(rows, 10, 0).contents != sample(rows, 10, 1).contents
    assert len(sample(rows, 99, 0)) == 50


def labelled(targets):
    numbers = range(len(targets))
    return Examples([str(i) for i in numbers], [np.array([i]) for i in numbers], targets)


def test_a_sample_has_rows_of_a_rare_class_and_the_others_by_their_share():
    targets = np.repeat([0, 1, 2], [7_000, 5, 2_995])
    drawn = sample(labelled(targets), 600, 0)
    assert np.bincount(drawn.targets).tolist() == pytest.approx([417, 5, 178], abs=5)
    assert len(set(drawn.contents)) == len(drawn) == 600
    places = np.array([int(content) for content in drawn.contents if int(content) < 7_000])
    assert 3_000 < places.mean() < 4_000  # from everywhere in the class


def test_a_sample_of_more_classes_than_rows_has_one_row_of_each():
    drawn = sample(labelled(np.arange(1_000) // 2), 100, 0)
    assert len(set(drawn.targets)) == 100


def test_a_sample_of_numbers_is_drawn_at_random():
    values = np.repeat([0.0, 1.0], [900, 100])
    assert 5 <= sample(labelled(values), 200, 0).targets.sum() <= 40


def test_a_probe_that_saw_one_class_answers_it_always(make_classifier):
    chance = np.random.default_rng(4)
    train, valid = chance.normal(size=(30, 5)), chance.normal(size=(20, 5))
    right = np.repeat([0, 1], [5, 15])
    score = probe_score(make_classifier(0), train, np.ones(30, dtype=np.int64), valid, right)
    assert score == pytest.approx(f1_score(right, np.ones(20), average="macro"))
    assert np.isfinite(log_evidence(train, np.ones(30, dtype=np.int64)))


def test_a_comparison_survives_a_class_with_a_few_rows_among_thousands(toy, toy_champion, tmp_path):
    prepared = shutil.copytree(toy.second, tmp_path / "prepared")
    frame = pd.read_parquet(prepared / "rows.parquet")
    positive = frame[frame["label"] == "positive"].groupby("split").head(2)
    negative = frame[frame["label"] == "negative"]
    many = pd.concat([positive, *[negative] * 40], ignore_index=True)
    many.to_parquet(prepared / "rows.parquet")
    config = FinetuneConfig(start="auto", threads=1)
    start = choose(prepared, [toy.start.base], toy_champion, toy.task, config, Silent())
    assert all((candidate.score or 0) > 0.4 for candidate in start.candidates)


# --- going on from the champion ---


def test_a_champion_learns_on_with_the_dropout_that_the_project_says(finetuned, toy, toy_champion):
    model = continued(toy_champion, toy.task, FinetuneConfig(dropout=0.625))
    assert model.network.get_submodule("dropout").p == 0.625
    none, half = (
        finetuned(str(dropout), champion=toy_champion, epochs=1, dropout=dropout)
        for dropout in (0.0, 0.5)
    )
    assert none.start == half.start == "champion"
    assert none.epochs[0].train_loss != half.epochs[0].train_loss


# --- which of several ---


def candidate(name, score, parameters=100, log_evidence=0.0):
    return Candidate(name=name, score=score, log_evidence=log_evidence, parameters=parameters)


def test_the_best_probe_wins():
    found = [candidate("a", 0.70), candidate("b", 0.80, 900), candidate("champion", 0.75)]
    chosen, reason = preferred(found, ChooseBaseConfig())
    assert chosen.name == "b"
    assert reason == (
        "a linear probe's score on its features is the best, 0.800; "
        "the others: a 0.700, champion 0.750"
    )


def test_of_bases_about_as_good_as_the_best_the_smallest_wins():
    found = [candidate("large", 0.800, 900), candidate("small", 0.796), candidate("bad", 0.5, 1)]
    chosen, reason = preferred(found, ChooseBaseConfig())
    assert chosen.name == "small"
    assert reason.endswith("about as good as the best (large, 0.800), and it is smaller")
    assert preferred(found, ChooseBaseConfig(tolerance=0.001))[0].name == "large"


def test_a_champion_about_as_good_as_the_best_goes_before_smaller_bases():
    found = [candidate("champion", 0.796, 900), candidate("base", 0.800), candidate("b", 0.799, 1)]
    chosen, reason = preferred(found, ChooseBaseConfig())
    assert chosen.name == "champion"
    assert reason.endswith("and it continues what the champion knows")


def test_log_evidence_may_decide_instead_of_the_probe():
    found = [candidate("a", 0.9, log_evidence=-0.9), candidate("b", 0.8, log_evidence=-0.5)]
    chosen, reason = preferred(found, ChooseBaseConfig(by="log_evidence"))
    assert chosen.name == "b"
    assert reason.startswith("LogME on its features is the best, -0.500")


@pytest.fixture
def bases(toy, tmp_path):
    """The toy's encoder with a card, and one whose words all look the same."""
    good = shutil.copytree(toy.base, tmp_path / "good")
    (good / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    blind = shutil.copytree(toy.base, tmp_path / "blind")
    weights = load_file(blind / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    weights[name] = np.zeros_like(weights[name])
    save_file(weights, blind / "model.safetensors", {"format": "pt"})
    return [Base(place=str(blind), digest="b" * 64), Base(place=str(good), digest="a" * 64)]


def chosen_start(toy, bases, champion=None, **config):
    return choose(
        toy.second, bases, champion, toy.task, FinetuneConfig(threads=1, **config), Silent()
    )


def test_the_base_that_tells_the_classes_apart_is_taken_and_the_table_kept(
    toy, bases, finetuned, tmp_path
):
    report = finetuned(bases=bases, epochs=1, probe_head=True)
    blind, good = report.candidates
    assert (report.start, report.base) == ("base", bases[1].place)
    assert good.score > blind.score + 0.2
    assert (good.licence, blind.licence) == ("apache-2.0", "")
    assert all(each.latency_ms > 0 and each.rows_per_second > 0 for each in report.candidates)
    assert good.megabytes == pytest.approx(megabytes_of(Path(bases[1].place)))
    assert bundle.describe(tmp_path / "bundle").lineage["base"] == "a" * 64
    # The embeddings of the rows are the first one's, and of no use for this head.
    assert report.start_scores["macro_f1"] > 0.95
    page = to_html(report)
    assert "apache-2.0" in page
    assert "not known" in page


def test_one_base_alone_is_not_probed(toy, bases):
    start = chosen_start(toy, bases[:1])
    assert (start.base, start.candidates) == (bases[0], ())


def test_limits_leave_bases_out_before_they_are_probed(toy, bases):
    start = chosen_start(toy, bases, choose_base={"licences": ["Apache-2.0", "mit"]})
    blind, good = start.candidates
    assert start.base == bases[1]
    assert blind.left_out == "no model card tells its licence; say it in finetune.base"
    assert (blind.score, good.left_out) == (None, "")
    said = [bases[0].model_copy(update={"licence": "gpl-3.0"}), bases[1]]
    start = chosen_start(toy, said, choose_base={"licences": ["apache-2.0"]})
    assert start.candidates[0].left_out == "its licence gpl-3.0 is none of apache-2.0"


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_megabytes": 1e-3}, "MB are more than 0.001"),
        ({"max_latency_ms": 1e-6}, "ms for a row are more than 1e-06"),
        ({"licences": ["mit"]}, "its licence apache-2.0 is none of mit"),
    ],
)
def test_where_no_base_keeps_to_the_limits_it_says_why(toy, bases, limit, reason):
    with pytest.raises(ConfigError, match=r"no model of finetune\.base keeps to") as caught:
        chosen_start(toy, bases[1:], choose_base=limit)
    assert reason in str(caught.value)
    assert bases[1].place in str(caught.value)


def test_a_champion_goes_on_without_a_comparison_if_its_base_is_among_them(
    toy, bases, toy_champion, seal_bundle, tmp_path
):
    folder = shutil.copytree(toy_champion, tmp_path / "champion")
    seal_bundle(folder, lineage={"base": "a" * 64})
    start = chosen_start(toy, bases, folder)
    assert (start.name, start.base, start.candidates) == ("champion", bases[1], ())
    start = chosen_start(toy, bases[:1], folder)
    assert (start.name, start.reason) == ("base", "the champion grew from another base")
    start = chosen_start(toy, bases, folder, start="auto")
    assert [each.name for each in start.candidates] == ["champion", *(b.place for b in bases)]
    assert (start.name, start.base) == ("champion", bases[1])


def test_a_base_that_does_not_load_is_named(toy, bases, tmp_path):
    (tmp_path / "good" / "config.json").write_text("{}")
    with pytest.raises(BundleError, match=str(tmp_path / "good")):
        chosen_start(toy, bases)
