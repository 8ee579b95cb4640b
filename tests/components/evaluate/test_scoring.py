from __future__ import annotations

import hashlib
import shutil
from html import escape

import numpy as np
import pandas as pd
import pytest

from components import bundle
from components.errors import BundleError, ConfigError, SourceError
from components.evaluate.checks import run_checks
from components.evaluate.config import EvaluateConfig
from components.evaluate.core import evaluate, to_html
from components.evaluate.evidence import scores_of
from components.evaluate.memory import peak_bytes
from components.evaluate.recording import PREDICTIONS, read, write
from components.evaluate.scoring import served_bytes, sit
from components.operating_point import OperatingPointConfig
from components.tasks.text_classification import TextClassification, TextClassifier


@pytest.fixture
def take(toy):
    """Let two models sit the exam of the second week."""

    def run(challenger, champion, *, prepared=None, task=None, **config):
        return sit(
            prepared or toy.second,
            challenger,
            champion,
            task or toy.task,
            EvaluateConfig.model_validate(config),
        )

    return run


@pytest.fixture
def labelled(make_classifier, seal_bundle, tmp_path):
    """Make the bundle of an untrained model with labels of its own."""

    def make(seed, *labels):
        folder = tmp_path / "-".join(labels)
        make_classifier(seed, labels).save(folder)
        seal_bundle(folder, task=TextClassification(labels=labels, max_tokens=16))
        return folder

    return make


def test_each_model_answers_each_row_as_it_does_alone(take, make_bundle):
    exam, _ = take(make_bundle(1), make_bundle(2))
    for who, seed in (("challenger", 1), ("champion", 2)):
        model = TextClassifier.load(make_bundle(seed))
        asked = exam.of("test", "guard")
        answers = model.predict(exam.rows["text"][asked].tolist())
        np.testing.assert_allclose(exam.answers[who][asked], answers, atol=1e-5)
        assert (exam.decided[who][asked] == answers.argmax(1)).all()
        wrong = answers.argmax(1) != model.targets(exam.rows["label"][asked].tolist())
        assert (exam.errors[who][asked] == wrong).all()
    only_challenger = exam.of("train", "valid")
    assert np.isnan(exam.answers["champion"][only_challenger]).all()
    assert np.isfinite(exam.answers["challenger"]).all()


def test_batches_are_timed_for_both_models(take, make_bundle):
    exam, _ = take(make_bundle(1), make_bundle(2))
    asked = exam.of("test", "guard")
    for who in ("challenger", "champion"):
        times = pd.Series(exam.milliseconds[who][asked])
        assert (times > 0).all()
        assert (times.groupby(exam.batch[asked]).nunique() == 1).all()
    assert len(np.unique(exam.batch[asked])) >= 24


def test_only_some_training_rows_are_answered_again(take, make_bundle):
    exam, _ = take(make_bundle(1), None, overfitting={"rows": 20}, robustness={"rows": 0})
    assert exam.of("train").sum() == 20
    assert exam.perturbed == {}
    assert set(exam.answers) == {"challenger", "naive", "probe"}


def test_contents_are_changed_and_answers_compared(take, make_bundle, toy_champion):
    exam, _ = take(toy_champion, make_bundle(2), robustness={"rows": 30})
    assert set(exam.perturbed) == {"case", "typos", "whitespace", "unicode", "numbers"}
    assert len(exam.perturbed["numbers"].groups) == 0
    assert len(exam.perturbed["case"].groups) == 30
    # The tokenizer folds case.
    assert exam.perturbed["case"].kept["challenger"].all()
    assert not exam.perturbed["unicode"].kept["challenger"].all()


# --- labels that differ


def test_labels_that_differ_stop_unless_their_intersection_is_asked_for(
    take, make_bundle, labelled
):
    other = labelled(3, "positive", "neutral", "negative")
    with pytest.raises(BundleError, match=r"evaluate\.labels: intersection"):
        take(make_bundle(1), other)
    exam, _ = take(make_bundle(1), other, labels="intersection")
    assert exam.labels == ("negative", "positive")
    assert exam.left_out == 0
    answers = exam.answers["champion"][exam.of("test")]
    np.testing.assert_allclose(answers.sum(1), 1)
    own = TextClassifier.load(other).predict(exam.rows["text"][exam.of("test")].tolist())
    np.testing.assert_allclose(answers[:, 0], own[:, 2] / (own[:, 0] + own[:, 2]), atol=1e-5)
    assert (exam.decided["champion"][exam.of("test")] == answers.argmax(1)).all()


def test_rows_of_labels_that_one_model_lacks_are_left_out(take, labelled, toy, tmp_path):
    labels = ("negative", "positive", "mixed")
    task = TextClassification(labels=labels, max_tokens=16)
    mixed = shutil.copytree(toy.second, tmp_path / "mixed")
    frame = pd.read_parquet(mixed / "rows.parquet")
    some = (frame["split"] == "test") & (np.arange(len(frame)) % 3 == 0)
    frame.loc[some, "label"] = "mixed"
    frame.to_parquet(mixed / "rows.parquet")
    challenger, champion = labelled(1, *labels), labelled(2, "negative", "positive")
    config = {"labels": "intersection"}
    with pytest.raises(
        ConfigError, match=r"evaluate\.floors\.recall:mixed names the label 'mixed'"
    ):
        take(
            challenger, champion, prepared=mixed, task=task, floors={"recall:mixed": 0.1}, **config
        )
    exam, _ = take(challenger, champion, prepared=mixed, task=task, **config)
    assert exam.left_out == some.sum() > 0
    assert len(exam.vectors) == exam.of("test").sum()
    out = tmp_path / "out"
    report = evaluate(mixed, challenger, champion, out, task, EvaluateConfig.model_validate(config))
    assert (report.labels, report.left_out) == (("negative", "positive"), some.sum())


def test_models_without_common_labels_cannot_be_compared(take, make_bundle, labelled):
    other = labelled(3, "dark", "bright")
    with pytest.raises(BundleError, match="no two labels in common"):
        take(make_bundle(1), other, labels="intersection")


# --- trusted rows


@pytest.fixture
def trusted(toy, tmp_path):
    """A file of trusted rows, and the configuration that pins it."""
    frame = pd.read_parquet(toy.second / "rows.parquet")[["text", "label"]].head(40)

    def make(suffix="csv", **columns):
        file = tmp_path / f"trusted.{suffix}"
        table = frame.assign(**columns)
        {
            "csv": lambda: table.to_csv(file, index=False),
            "jsonl": lambda: table.to_json(file, orient="records", lines=True),
            "parquet": lambda: table.to_parquet(file),
            "txt": lambda: file.write_text("text"),
        }[suffix]()
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return {"path": str(file), "sha256": digest}

    return make


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_trusted_rows_are_answered_by_both(take, make_bundle, trusted, suffix):
    exam, _ = take(make_bundle(1), make_bundle(2), holdout=trusted(suffix))
    rows = exam.of("holdout")
    assert rows.sum() == 40
    assert np.isfinite(exam.answers["champion"][rows]).all()


@pytest.mark.parametrize(
    ("suffix", "columns", "message"),
    [
        ("txt", {}, "is none of .csv, .jsonl, .parquet"),
        ("csv", {"label": "odd"}, "has 40 labels not of the task"),
        ("jsonl", {"label": None}, "has 40 labels not of the task"),
        ("parquet", {"text": None}, "has 40 rows without a good text"),
        ("csv", {"text": " "}, "has 40 rows without a good text"),
    ],
)
def test_a_file_of_something_else_is_refused(take, make_bundle, trusted, suffix, columns, message):
    with pytest.raises(ConfigError, match=message):
        take(make_bundle(1), make_bundle(2), holdout=trusted(suffix, **columns))


def test_trusted_rows_that_were_changed_stop_the_run(take, make_bundle, trusted, tmp_path):
    pinned = trusted()
    with (tmp_path / "trusted.csv").open("a") as file:
        file.write("a poisoned film,positive\n")
    with pytest.raises(ConfigError, match="trusted rows never change"):
        take(make_bundle(1), make_bundle(2), holdout=pinned)
    (tmp_path / "trusted.csv").write_text("content,label\na film,positive\n")
    pinned["sha256"] = hashlib.sha256((tmp_path / "trusted.csv").read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match="no readable columns text and label"):
        take(make_bundle(1), make_bundle(2), holdout=pinned)


# --- what is broken


def test_a_champion_that_does_not_load_stops_the_run(take, make_bundle, seal_bundle, tmp_path):
    folder = shutil.copytree(make_bundle(2), tmp_path / "cut")
    (folder / "model.safetensors").write_bytes(b"cut")
    (folder / bundle.MANIFEST).unlink()
    with pytest.raises(BundleError, match="not a complete bundle"):
        take(make_bundle(1), folder)
    seal_bundle(folder)
    with pytest.raises(BundleError, match="does not load"):
        take(make_bundle(1), folder)


def test_a_broken_challenger_leaves_the_champions_scores(make_bundle, seal_bundle, toy, tmp_path):
    folder = shutil.copytree(make_bundle(1), tmp_path / "cut")
    (folder / "model.safetensors").write_bytes(b"cut")
    seal_bundle(folder)
    out = tmp_path / "out"
    for champion in (make_bundle(2), None):
        report = evaluate(toy.second, folder, champion, out, toy.task, EvaluateConfig())
        assert report.verdict == "keep"
        assert report.headline == "keep: loads"
        assert list(report.scores) == (["champion"] if champion else [])
        assert len(pd.read_parquet(out / PREDICTIONS))


def test_a_challenger_whose_answers_are_no_numbers_is_broken(
    take, make_bundle, seal_bundle, tmp_path
):
    model = TextClassifier.load(make_bundle(1))
    for name, parameter in model.network.named_parameters():
        if name.startswith("head."):  # finite, but what it gives is not
            parameter.data.fill_(3e38)
    folder = tmp_path / "huge"
    model.save(folder)
    seal_bundle(folder)
    exam, examinees = take(folder, make_bundle(2))
    assert exam.broken
    assert set(exam.answers) == set(examinees) == {"champion"}
    with pytest.raises(BundleError, match="the champion gives answers that are not finite"):
        take(make_bundle(2), folder)


def test_labels_that_no_model_knows_stop_the_run(take, make_bundle, toy, tmp_path):
    odd = shutil.copytree(toy.second, tmp_path / "odd")
    frame = pd.read_parquet(odd / "rows.parquet")
    frame.loc[frame["split"] == "test", "label"] = "odd"
    frame.to_parquet(odd / "rows.parquet")
    with pytest.raises(SourceError, match="labels outside of the task's: odd"):
        take(make_bundle(1), make_bundle(2), prepared=odd)


def test_what_the_config_names_must_be_there(make_bundle, toy, tmp_path):
    for config, message in (
        ({"primary": "f1"}, "evaluate.primary is wrong: no metric 'f1'"),
        (
            {"slices": {"columns": ["country"]}},
            "evaluate.slices.columns names no column: 'country'",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(
                toy.second,
                make_bundle(1),
                make_bundle(2),
                tmp_path / "out",
                toy.task,
                EvaluateConfig.model_validate(config),
            )


# --- what is served


def test_other_forms_and_the_profile_are_not_served(make_bundle, tmp_path):
    folder = shutil.copytree(make_bundle(1), tmp_path / "bundle")
    before = served_bytes(folder)
    assert before > (folder / "model.safetensors").stat().st_size
    (folder / "profile.safetensors").write_bytes(b"0" * 1000)
    assert served_bytes(folder) == before


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(make_bundle):
    found = peak_bytes(make_bundle(1), ["the film was good"])
    assert 50e6 < found < 5e9
    with pytest.raises(BundleError, match="could not be measured"):
        peak_bytes(make_bundle(1) / "nowhere", ["the film was good"])


# --- models with a rule of their own


@pytest.fixture
def ruled(make_classifier, seal_bundle, tmp_path, toy):
    """Make the bundle of an untrained model that was calibrated and decides for an aim."""

    def make(seed, labels=("negative", "positive"), **aim):
        model, folder = make_classifier(seed, labels), tmp_path / f"ruled-{seed}"
        rows = pd.read_parquet(toy.second / "rows.parquet")
        config = OperatingPointConfig.model_validate(aim)
        answers = model.predict(rows["text"].tolist())
        targets = model.targets(rows["label"].tolist())
        model.rule = model.fitted_rule(targets, answers, config, calibrate=True)
        model.save(folder)
        seal_bundle(folder, task=TextClassification(labels=labels, max_tokens=16))
        return folder

    return make


def test_each_model_decides_by_its_own_rule_in_whatever_order_its_labels_are(
    take, ruled, make_bundle
):
    aim = {"aim": "recall", "label": "positive", "at_least": 0.9, "answered_accuracy": 0.7}
    folder = ruled(1, ("positive", "negative"), **aim)
    exam, examinees = take(folder, make_bundle(2))
    model = TextClassifier.load(folder)
    assert model.rule is not None and model.rule.abstains
    assert exam.rules == {"challenger": model.rule}
    answers = model.predict(exam.rows["text"].tolist())
    assert exam.labels == ("negative", "positive")
    np.testing.assert_allclose(exam.answers["challenger"], answers[:, ::-1], atol=1e-6)
    said = np.array(exam.labels)[exam.decided["challenger"]]
    assert said.tolist() == model.decisions(answers) != [model.labels[k] for k in answers.argmax(1)]
    left = exam.abstained["challenger"]
    np.testing.assert_array_equal(left, model.abstained(answers))
    assert 0 < left.mean() < 1
    # What is left to a person counts by what the model leans to.
    wrong = said != exam.rows["label"]
    np.testing.assert_array_equal(exam.errors["challenger"], wrong)
    assert {"coverage", "answered_accuracy"} <= set(exam.metrics)
    assert "champion" not in exam.abstained
    assert examinees["challenger"].all_labels
    # The page tells the scores of these decisions.
    for who, scores in scores_of(exam, examinees).items():
        assert scores["test"]["accuracy"] == 1 - exam.errors[who][exam.of("test")].mean()


@pytest.mark.parametrize("knows_more", ["champion", "challenger"])
def test_compared_on_some_labels_no_model_has_a_rule(
    take, ruled, labelled, make_bundle, knows_more
):
    aim = {"aim": "recall", "label": "positive", "at_least": 0.9, "answered_accuracy": 0.7}
    labels = ("negative", "positive", "neutral")
    if knows_more == "champion":
        exam, _ = take(ruled(1, **aim), labelled(2, *labels), labels="intersection")
    else:
        task = TextClassification(labels=labels, max_tokens=16)
        challenger, champion = labelled(2, *labels), ruled(1, **aim)
        exam, _ = take(challenger, champion, task=task, labels="intersection")
    assert (exam.rules, exam.abstained) == ({}, {})
    for who in ("challenger", "champion"):
        asked = exam.of("test", "guard")
        most_probable = exam.answers[who][asked].argmax(1)
        np.testing.assert_array_equal(exam.decided[who][asked], most_probable)


def test_answers_of_a_model_that_abstains_are_recorded_and_shown(take, ruled, make_bundle, toy):
    folder = ruled(1, answered_accuracy=0.7)
    exam, _ = take(folder, make_bundle(2), robustness={"rows": 20})
    write(exam, folder.parent / "exam")
    again = read(folder.parent / "exam")
    assert again.rules == exam.rules
    assert exam.abstains("challenger") and not exam.abstains("champion")
    for name in ("decided", "abstained"):
        mine, recorded = getattr(exam, name), getattr(again, name)
        assert mine.keys() == recorded.keys()
        for who in mine:
            np.testing.assert_array_equal(mine[who], recorded[who])
    config = EvaluateConfig()
    assert run_checks(again, config) == run_checks(exam, config)
    report = evaluate(
        toy.second, folder, make_bundle(2), folder.parent / "out", toy.task, EvaluateConfig()
    )
    scores = report.scores["challenger"]["test"]
    left = exam.abstained["challenger"][exam.of("test")]
    assert scores["coverage"] == pytest.approx(1 - left.mean())
    assert {gain.metric for gain in report.gains} >= {"coverage"}
    assert sum(map(sum, report.confusion)) == exam.of("test").sum()
    page = to_html(report)
    assert "How the models decide" in page
    assert all(escape(each) in page for each in report.rules["challenger"].sentences)
    shown = [row.challenger for row in report.evidence.disagreements]
    assert any(each.startswith("left to a person, leaning to ") for each in shown)


def test_without_a_rule_nobody_speaks_of_abstention(take, make_bundle):
    exam, _ = take(make_bundle(1), make_bundle(2))
    assert (exam.rules, exam.abstained) == ({}, {})
    assert "coverage" not in exam.metrics


def test_a_linear_probe_decides_for_the_aim_of_the_challenger(take, ruled):
    # It tells the rows apart, so that only a low aim makes it say more than is true.
    aim = {"aim": "precision", "label": "positive", "at_least": 0.6}
    (usual, _), (aiming, examinees) = (
        take(ruled(seed, **keys), None) for seed, keys in ((1, {}), (2, aim))
    )
    test = usual.of("test")
    for exam, follows in ((usual, False), (aiming, True)):
        said, meant = exam.decided["probe"][test] == 1, exam.targets[test] == 1
        assert said[meant].all()
        assert said[~meant].any() == follows
        assert (said == (exam.answers["probe"][test].argmax(1) == 1)).all() != follows
    shown = scores_of(aiming, examinees)["probe"]["test"]
    assert shown["accuracy"] == pytest.approx(1 - aiming.errors["probe"][test].mean())
