from __future__ import annotations

import shutil
from dataclasses import replace
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, r2_score, roc_auc_score

from components import bundle
from components.errors import BundleError, SourceError
from components.evaluate.check import Check, conclude, more_rows, of_difference
from components.evaluate.comparison import Difference, non_inferiority, superiority
from components.evaluate.core import (
    PREDICTIONS,
    EvaluateConfig,
    EvaluateReport,
    evaluate,
    to_html,
    to_metrics,
)
from components.tasks import TASKS
from components.tasks.text_classification import TextClassification, TextClassifier


@pytest.fixture
def compare(toy, tmp_path):
    """Evaluate on the second week."""

    def run(challenger, champion, *, prepared=None, task=None, **config):
        return evaluate(
            prepared or toy.second,
            challenger,
            champion,
            tmp_path / "predictions",
            task or toy.task,
            EvaluateConfig(**config),
        )

    return run


@pytest.fixture
def resealed(make_classifier, seal_bundle, tmp_path):
    """Make a bundle of an untrained model, not quite as it should be."""

    def make(labels=("negative", "positive"), **changes):
        folder = tmp_path / "resealed"
        make_classifier(1, labels).save(folder)
        seal_bundle(folder, task=TextClassification(labels=labels, max_tokens=16), **changes)
        return folder

    return make


class Frozen(NamedTuple):
    """A check that can be in a set."""

    name: str
    check: str
    content: str


def rows(prepared, *splits):
    frame = pd.read_parquet(prepared / "rows.parquet")
    return frame[frame["split"].isin(splits)]


def of(report, name):
    """Return the checks of a kind that were made."""
    return [each for each in report.checks if each.check == name and each.verdict != "skipped"]


# --- verdicts ---


def test_a_better_challenger_is_promoted(compare, make_bundle, toy_champion):
    report = compare(toy_champion, make_bundle(1))
    assert report.verdict == "promote"
    found = [*of(report, "primary"), *of(report, "guarded")]
    first, guard, log_loss = found
    assert first.name == "test F1 against champion"
    assert guard.name == "guard F1 against champion"
    assert log_loss.name == "test log loss against champion"
    assert all(each.verdict == "passed" and each.required for each in found)
    assert all(each.low > 0 for each in found)
    assert report.checks[0] == first
    assert report.headline.startswith("promote: test F1 against champion +")
    for name in ("loads", "slices", "serving", "leak"):
        assert of(report, name)[0].verdict == "passed"
    assert of(report, "baselines") == of(report, "floors") == []


def test_a_worse_challenger_is_not(compare, make_bundle, toy_champion):
    report = compare(make_bundle(1), toy_champion)
    assert report.verdict == "keep"
    failed = [*of(report, "primary"), *of(report, "guarded")]
    assert all(each.verdict == "failed" and each.high < 0 for each in failed)
    assert report.checks[0].reason.startswith("worse than champion: difference -")


def test_an_equal_challenger_is_inconclusive(compare, toy_champion):
    report = compare(toy_champion, toy_champion)
    assert report.verdict == "inconclusive"
    first, guard = of(report, "primary")[0], of(report, "guarded")[0]
    assert first.verdict == "undecided"
    assert first.measured == 0
    assert guard.verdict == "passed"


@pytest.mark.parametrize(("margin", "verdict"), [(0.03, "keep"), (0.99, "promote")])
def test_who_wins_now_but_forgot_the_past_is_stopped_by_the_guard(
    compare, make_bundle, toy, toy_champion, tmp_path, margin, verdict
):
    # The earlier weeks' labels are turned round, so that the good model fails there.
    turned = shutil.copytree(toy.second, tmp_path / "turned")
    frame = pd.read_parquet(turned / "rows.parquet")
    guard = frame["split"] == "guard"
    frame.loc[guard, "label"] = frame.loc[guard, "label"].map(
        {"negative": "positive", "positive": "negative"}
    )
    frame.to_parquet(turned / "rows.parquet")
    # The earlier weeks are a slice as well.
    report = compare(
        toy_champion, make_bundle(1), prepared=turned, guard_margin=margin, warn=["slices"]
    )
    assert of(report, "primary")[0].verdict == "passed"
    assert report.verdict == verdict
    assert of(report, "guarded")[0].threshold == -margin
    (slices,) = of(report, "slices")
    assert (slices.verdict, slices.required) == ("failed", False)


def test_without_earlier_rows_the_test_rows_decide(compare, make_bundle, toy, toy_champion):
    report = compare(toy_champion, make_bundle(1), prepared=toy.first)
    assert report.verdict == "promote"
    assert [each.name for each in of(report, "guarded")] == ["test log loss against champion"]


def check(verdict, required=True, more_rows=None):
    return Check(
        name="",
        check="primary",
        verdict=verdict,
        required=required,
        reason="",
        more_rows=more_rows,
    )


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        (["passed"], "promote"),
        (["passed", "passed"], "promote"),
        (["passed", "skipped"], "promote"),
        (["passed", "undecided"], "inconclusive"),
        (["undecided"], "inconclusive"),
        (["skipped"], "inconclusive"),
        (["passed", "failed"], "keep"),
        (["undecided", "failed"], "keep"),
        (["failed", "passed"], "keep"),
    ],
)
def test_one_failure_keeps_and_only_all_passed_promote(checks, verdict):
    required = [check(each) for each in checks]
    assert conclude(required) == verdict
    for standing in ("failed", "undecided", "skipped"):
        assert conclude([*required, check(standing, required=False)]) == verdict


def test_what_merely_warns_promotes_nobody():
    assert conclude([check("passed", required=False)]) == "inconclusive"


@pytest.mark.parametrize(
    ("needed", "rows"),
    [
        ([("undecided", 40), ("undecided", 90)], 90),
        ([("undecided", None), ("undecided", 90)], None),
    ],
)
def test_the_rows_that_would_decide_are_those_of_the_hardest_question(needed, rows):
    checks = [check(verdict, more_rows=more) for verdict, more in needed]
    assert more_rows([*checks, check("passed"), check("undecided", False, 500)]) == rows


def difference_of(low, high, groups):
    """A difference with these bounds, of which permutations say the same."""
    return Difference(
        metric="macro_f1",
        champion=0.8,
        challenger=0.8 + (low + high) / 2,
        gain=(low + high) / 2,
        low=low,
        high=high,
        alpha=0.05,
        p_better=0.01,
        p_worse=0.01,
        rows=groups,
        groups=groups,
        differing=groups / 5,
        step=1 / groups,
        room=0.2,
    )


WORDS = {"passed": "good", "failed": "bad", "undecided": "open"}


@pytest.mark.parametrize(
    ("low", "high", "better", "guarded"),
    [
        (0.01, 0.09, "passed", "passed"),
        (-0.001, 0.09, "undecided", "passed"),
        (-0.01, 0.09, "undecided", "passed"),
        (-0.031, 0.09, "undecided", "undecided"),
        (-0.09, 0.001, "undecided", "undecided"),
        (-0.02, -0.01, "failed", "passed"),
        (-0.09, -0.029, "failed", "undecided"),
        (-0.09, -0.04, "failed", "failed"),
    ],
)
def test_the_interval_decides_and_not_the_estimate(low, high, better, guarded):
    difference, config = difference_of(low, high, groups=100), EvaluateConfig()
    for outcome, expected in (
        (superiority(difference), better),
        (non_inferiority(difference, 0.03), guarded),
    ):
        found = of_difference("F1", "primary", difference, outcome, WORDS, config)
        assert found.verdict == expected
        assert found.reason.startswith(f"{WORDS[expected]}: difference")


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.09), (-0.09, -0.04)])
def test_with_few_groups_of_rows_nothing_is_shown(low, high):
    difference, config = difference_of(low, high, groups=29), EvaluateConfig()
    found = of_difference("F1", "primary", difference, superiority(difference), WORDS, config)
    assert found.verdict == "undecided"
    assert "29 groups of rows, evaluate.min_groups asks for 30" in found.reason
    assert found.more_rows and found.more_rows >= 1


def test_an_interval_that_a_permutation_test_does_not_bear_out_says_so():
    difference = replace(difference_of(0.01, 0.5, groups=40), p_better=0.12)
    found = of_difference(
        "F1", "primary", difference, superiority(difference), WORDS, EvaluateConfig()
    )
    assert found.verdict == "undecided"
    assert "with probability 0.12, and evaluate.alpha allows 0.05" in found.reason


def test_the_groups_that_lack_are_told_in_rows():
    difference = replace(difference_of(-0.5, -0.4, groups=20), rows=200)
    outcome = superiority(difference)
    assert outcome.more_rows is None
    found = of_difference("F1", "primary", difference, outcome, WORDS, EvaluateConfig())
    assert found.more_rows == 100


# --- the first champion ---


def test_a_first_champion_must_beat_the_majority_and_match_a_linear_probe(
    compare, toy, toy_champion
):
    report = compare(toy_champion, None)
    assert report.verdict == "promote"
    assert report.champion == ""
    assert [each.name for each in of(report, "baselines")] == [
        "test F1 against majority class",
        "test F1 against linear probe",
    ]
    assert of(report, "primary") == of(report, "guarded") == of(report, "slices") == []
    current = pd.read_parquet(toy.second / "rows.parquet")
    vectors = load_file(toy.second / "embeddings.safetensors")["vectors"]
    current = current.iloc[: len(vectors)].reset_index(drop=True)
    train, test = (current["split"] == split for split in ("train", "test"))
    truth = current["label"][test]
    majority = current["label"][train].mode()[0]
    probe = LogisticRegression(max_iter=1000, random_state=0)
    probe.fit(vectors[train], current["label"][train])
    for model, answers in {
        "naive": [majority] * int(test.sum()),
        "probe": probe.predict(vectors[test]),
    }.items():
        expected = f1_score(truth, answers, average="macro", zero_division=0)
        assert report.scores[model]["test"]["macro_f1"] == pytest.approx(expected)


def test_an_untrained_first_champion_does_not_pass(compare, make_bundle):
    report = compare(make_bundle(1), None)
    assert report.verdict == "keep"
    assert "failed" in [each.verdict for each in of(report, "baselines")]


def test_nothing_guards_a_first_champion(compare, toy, toy_champion):
    report = compare(toy_champion, None)
    assert all(list(sets) == ["test"] for sets in report.scores.values())
    assert report.scores["challenger"]["test"]["rows"] == len(rows(toy.second, "test"))


# --- the evidence ---


def test_the_verdict_can_be_computed_again_from_the_predictions(
    compare, make_bundle, toy, toy_champion, tmp_path
):
    report = compare(toy_champion, make_bundle(1))
    table = pd.read_parquet(tmp_path / "predictions" / PREDICTIONS)
    asked = rows(toy.second, "test", "guard")["id"].tolist()
    assert table["id"][table["split"].isin(["test", "guard"])].tolist() == asked
    only_challenger = table["split"].isin(["train", "valid"])
    assert table["answer_champion"].isna().equals(only_challenger)
    for model in ("challenger", "champion"):
        for name in ("test", "guard"):
            part = table[table["split"] == name]
            scores = report.scores[model][name]
            answers = part[f"answer_{model}"]
            assert scores["rows"] == len(part)
            assert scores["accuracy"] == pytest.approx((part["label"] == answers).mean())
            assert scores["macro_f1"] == pytest.approx(
                f1_score(part["label"], answers, average="macro", zero_division=0)
            )
    probabilities = table[["output_negative", "output_positive"]].to_numpy()
    np.testing.assert_allclose(
        probabilities, TextClassifier.load(toy_champion).predict(table["text"].tolist()), atol=1e-6
    )
    winners = np.array(["negative", "positive"])[probabilities.argmax(1)]
    assert table["answer_challenger"].tolist() == winners.tolist()


def test_the_confusion_counts_the_test_rows(compare, make_bundle, toy, tmp_path):
    report = compare(make_bundle(1), make_bundle(2))
    table = pd.read_parquet(tmp_path / "predictions" / PREDICTIONS)
    test = table[table["split"] == "test"]
    for true, row in zip(report.labels, report.confusion, strict=True):
        for answer, count in zip(report.labels, row, strict=True):
            assert count == ((test["label"] == true) & (test["answer_challenger"] == answer)).sum()


def set_of(report):
    """Return what differs from report to report if anything does."""
    return {Frozen(each.name, each.check, each.to_json()) for each in report.checks}


def test_the_same_inputs_give_the_same_report(compare, make_bundle, toy_champion):
    first = compare(toy_champion, make_bundle(1))
    again = compare(toy_champion, make_bundle(1))
    timed = {"checks", "evidence"}
    assert again.model_dump(exclude=timed) == first.model_dump(exclude=timed)
    assert {each.check for each in set_of(again) ^ set_of(first)} <= {"serving"}
    assert EvaluateReport.from_json(first.to_json()) == first
    assert (first.challenger, first.champion) == (
        bundle.digest_of_folder(toy_champion),
        bundle.digest_of_folder(make_bundle(1)),
    )


def test_labels_in_another_order_make_no_difference(compare, resealed, make_bundle):
    other = resealed(("positive", "negative"))
    turned = TextClassification(labels=("positive", "negative"), max_tokens=16)
    one = compare(other, make_bundle(2))
    two = compare(other, make_bundle(2), task=turned)
    for model, sets in one.scores.items():
        for name, scores in sets.items():
            # Precision and recall are those of the second label.
            assert two.scores[model][name] | {"pr_auc": 0} == pytest.approx(scores | {"pr_auc": 0})
    assert one.confusion == [row[::-1] for row in two.confusion[::-1]]


def test_metrics_are_flat_numbers(compare, make_bundle, toy_champion):
    report = compare(toy_champion, make_bundle(1))
    metrics = to_metrics(report)
    assert metrics["challenger_test_macro_f1"] == report.scores["challenger"]["test"]["macro_f1"]
    assert {name.split("_", 2)[2] for name in metrics} >= {"accuracy", "macro_f1", "log_loss"}
    assert {tuple(name.split("_", 2)[:2]) for name in metrics} == {
        (model, name) for model in ("challenger", "champion") for name in ("test", "guard")
    }


def test_the_page_shows_verdict_reasons_and_scores(compare, make_bundle, toy_champion):
    report = compare(toy_champion, make_bundle(1))
    page = to_html(report)
    assert '<p class="verdict good">promote' in page
    assert all(escape(check.reason) in page for check in report.checks)
    assert all(f"{row['macro_f1']:.3f}" in page for row in report.scores["challenger"].values())


# --- groups of people ---


@pytest.fixture
def unfair(toy, tmp_path):
    """Prepared rows whose people of one country are nearly all in the negative."""
    folder = shutil.copytree(toy.second, tmp_path / "unfair")
    frame = pd.read_parquet(folder / "rows.parquet")
    draw = np.random.default_rng(0).random(len(frame)) < 0.85
    negative = (frame["label"] == "negative").to_numpy()
    frame["country"] = np.where(negative == draw, "fr", "jp")
    frame.to_parquet(folder / "rows.parquet")
    return folder


FAIR = {"columns": ("country",), "favourable": "positive", "min_rows": 10}


@pytest.mark.parametrize(("required", "verdict"), [((), "promote"), (("fairness",), "keep")])
def test_an_unfair_challenger_is_warned_about_or_kept_out(
    compare, unfair, toy_champion, make_bundle, required, verdict
):
    report = compare(
        toy_champion, make_bundle(1), prepared=unfair, fairness=FAIR, required=required
    )
    assert report.verdict == verdict
    found = {check.name: check for check in of(report, "fairness")}
    four_fifths = found["four-fifths of country"]
    assert four_fifths.verdict == "failed"
    assert found["equal opportunity of country"].verdict != "failed"
    page = to_html(report)
    reason = escape(four_fifths.reason)
    assert (reason if required else f"Warning: {reason}") in page
    assert reason.startswith("unfair: four-fifths of country at least 0.8; the worst is fr")


# --- broken inputs ---


def test_an_altered_bundle_is_not_scored(compare, make_bundle, tmp_path):
    altered = shutil.copytree(make_bundle(1), tmp_path / "altered")
    (altered / "config.json").write_text("{}")
    for challenger, champion in [(altered, make_bundle(2)), (make_bundle(2), altered)]:
        with pytest.raises(BundleError, match="altered"):
            compare(challenger, champion)


def test_models_of_other_labels_cannot_be_compared(compare, resealed, make_bundle):
    other = resealed(("negative", "neutral", "positive"))
    for challenger, champion in [(other, make_bundle(2)), (make_bundle(2), other)]:
        with pytest.raises(BundleError, match="cannot be compared"):
            compare(challenger, champion)


def test_a_model_that_may_have_seen_the_test_rows_is_refused(compare, resealed, make_bundle):
    with pytest.raises(BundleError, match="may have seen the test rows"):
        compare(make_bundle(2), resealed(test_share=0.1))


def test_without_test_rows_nothing_is_decided(compare, make_bundle, toy, tmp_path):
    empty = shutil.copytree(toy.second, tmp_path / "empty")
    rows(empty, "train", "valid").to_parquet(empty / "rows.parquet")
    with pytest.raises(SourceError, match="no test rows"):
        compare(make_bundle(1), make_bundle(2), prepared=empty)


# --- every kind of task ---


@pytest.fixture
def judge(case_of, tmp_path):
    """Evaluate models of a kind of task on its only window."""

    def run(kind, challenger, champion=None):
        case, config = case_of(kind), EvaluateConfig(min_groups=10, resamples=500)
        return evaluate(case.prepared, challenger, champion, tmp_path / "out", case.task, config)

    return run


def test_models_of_every_kind_are_scored_on_the_same_rows(judge, case_of, learnt, kind, tmp_path):
    report = judge(kind, learnt(kind), learnt(kind, seed=1))
    case, model = case_of(kind), TASKS[kind].load(learnt(kind))
    test = rows(case.prepared, "test")
    answers = model.predict(test["text"].tolist())
    expected = model.scores(model.targets(test["label"].tolist()), answers)
    found = report.scores["challenger"]["test"]
    assert found["rows"] == len(test)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert report.scores["champion"]["test"].keys() == found.keys()
    assert report.metric == model.gate_metric
    (check,) = of(report, "primary")
    gain = found[report.metric] - report.scores["champion"]["test"][report.metric]
    assert check.measured == pytest.approx(gain, abs=1e-9)
    assert check.low <= check.measured <= check.high
    table = pd.read_parquet(tmp_path / "out" / PREDICTIONS)
    table = table[table["split"] == "test"]
    assert table["answer_challenger"].tolist() == model.decisions(answers)
    for place, name in enumerate(model.answer_names):
        np.testing.assert_allclose(table[f"output_{name}"], answers[:, place], atol=1e-5)
    assert sum(map(sum, report.confusion)) == (len(test) if report.labels else 0)
    assert escape(check.reason) in to_html(report)
    assert f"challenger_test_{report.metric}" in to_metrics(report)
    assert EvaluateReport.from_json(report.to_json()) == report


def test_first_champions_of_every_kind_must_beat_the_naive_answer_and_a_probe(
    judge, case_of, learnt, kind
):
    report = judge(kind, learnt(kind))
    title = {"macro_f1": "F1", "r2": "R²"}[report.metric]
    model = TASKS[kind].load(learnt(kind))
    assert {each.name for each in of(report, "baselines")} == {
        f"test {title} against {model.naive}",
        f"test {title} against {model.probe}",
    }
    assert report.scores.keys() == {"challenger", "naive", "probe"}


def test_a_regression_that_always_says_the_mean_is_no_first_champion(
    judge, case_of, learnt, seal_bundle, tmp_path
):
    kind = "text-regression"
    model = TASKS[kind].load(learnt(kind))
    mean = rows(case_of(kind).prepared, "train")["label"].astype(float).mean()
    head: Any = model.network.head
    head.weight.data.zero_()
    head.bias.data.fill_(mean)  # the range is -2 to 2, and outputs are quarters of it
    model.save(tmp_path / "flat")
    seal_bundle(tmp_path / "flat", task=case_of(kind).task)
    report = judge(kind, tmp_path / "flat")
    found = {each.name: each for each in of(report, "baselines")}
    naive = found["test R² against mean value"]
    assert naive.measured == pytest.approx(0, abs=1e-6)
    assert naive.verdict == "undecided"
    assert report.verdict != "promote"


def test_the_naive_answer_to_a_regression_is_the_mean_of_the_training_rows(judge, case_of, learnt):
    report = judge("text-regression", learnt("text-regression"))
    prepared = case_of("text-regression").prepared
    mean = rows(prepared, "train")["label"].astype(float).mean()
    truth = rows(prepared, "test")["label"].astype(float)
    assert report.scores["naive"]["test"]["r2"] == pytest.approx(
        r2_score(truth, np.full(len(truth), mean))
    )
    assert report.scores["naive"]["test"]["mae"] == pytest.approx((truth - mean).abs().mean())


def test_the_probe_for_anomalies_is_the_distance_from_normal_embeddings(judge, case_of, learnt):
    report = judge("text-anomaly", learnt("text-anomaly"))
    prepared = case_of("text-anomaly").prepared
    current = rows(prepared, "train", "valid", "test").reset_index(drop=True)
    vectors = load_file(prepared / "embeddings.safetensors")["vectors"].astype(float)
    normal = (current["split"] == "train") & (current["label"] == "normal")
    fitted = LedoitWolf().fit(vectors[normal])
    test = current["split"] == "test"
    distance = fitted.mahalanobis(vectors[test])
    assert report.scores["probe"]["test"]["auroc"] == pytest.approx(
        roc_auc_score(current["label"][test] == "anomaly", distance)
    )


def test_models_of_different_kinds_cannot_be_compared(judge, learnt):
    with pytest.raises(BundleError, match="cannot be compared"):
        judge("text-regression", learnt("text-regression"), learnt("text-anomaly"))
