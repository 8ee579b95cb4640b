from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from sklearn.exceptions import UndefinedMetricWarning

from components.evaluate.metrics import ABSTENTION, METRICS, Scored, find_metric, score

LABELLED = [name for name, metric in METRICS.items() if "anomaly" in metric.kinds]
COUNTED = [name for name in LABELLED if not name.endswith("_auc")]
PROBABLE = [name for name, metric in METRICS.items() if "classification" in metric.kinds]
NUMERIC = [name for name, metric in METRICS.items() if "regression" in metric.kinds]


def reference(name, scored, weights):
    """What scikit-learn says."""
    true, given, answers = scored.targets, scored.decisions, scored.answers
    classes = range(answers.shape[1])
    if name == "accuracy":
        return sklearn.accuracy_score(true, given, sample_weight=weights)
    if name == "balanced_accuracy":
        return sklearn.balanced_accuracy_score(true, given, sample_weight=weights)
    if name in ("log_loss", "brier"):
        of = sklearn.log_loss if name == "log_loss" else sklearn.brier_score_loss
        return of(true, answers, labels=classes, sample_weight=weights)
    if name in ("mse", "mae", "r2"):
        of = {
            "mse": sklearn.mean_squared_error,
            "mae": sklearn.mean_absolute_error,
            "r2": sklearn.r2_score,
        }[name]
        return of(true, answers[:, 0], sample_weight=weights)
    average, of = name.split("_")
    return getattr(sklearn, f"{of}_score")(
        true, given, labels=classes, average=average, zero_division=0, sample_weight=weights
    )


def areas(scored, weights):
    """What scikit-learn says of each class that has positive and negative rows."""
    classes = [1] if scored.answers.shape[1] == 2 else range(scored.answers.shape[1])
    found: dict[str, list[float]] = {"roc_auc": [], "pr_auc": []}
    for each in classes:
        positive = scored.targets == each
        if 0 < (weights * positive).sum() < weights.sum():
            of = (positive, scored.answers[:, each])
            found["roc_auc"].append(sklearn.roc_auc_score(*of, sample_weight=weights))
            found["pr_auc"].append(sklearn.average_precision_score(*of, sample_weight=weights))
    return found


@st.composite
def answered(draw, least=2, most=4):
    """Rows of few classes, with answers of one decimal, so that many tie, and weights."""
    classes = draw(st.integers(least, most))
    rows = draw(st.integers(1, 25))
    seed = draw(st.integers(0, 10_000))
    generator = np.random.default_rng(seed)
    # Some classes may be missing from the truth, others from the answers.
    targets = generator.integers(0, draw(st.integers(1, classes)), rows)
    parts = generator.integers(0, 5, (rows, classes)) + 1.0
    answers = parts / parts.sum(1, keepdims=True)
    weights = generator.integers(0, 4, rows).astype(float)
    weights[generator.integers(rows)] += 1
    return Scored.of("classification", targets, answers), weights


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@settings(max_examples=150, deadline=None)
@given(answered())
def test_label_metrics_and_losses_are_those_of_scikit_learn(case):
    scored, weights = case
    for name in [*COUNTED, "log_loss", "brier"]:
        found = score(name, scored, np.stack([weights, np.ones(len(weights))]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = [reference(name, scored, each) for each in (weights, None)]
        assert found == pytest.approx(wanted, abs=1e-12), name


@settings(max_examples=150, deadline=None)
@given(answered())
def test_areas_are_those_of_scikit_learn_with_ties_and_classes_that_are_missing(case):
    scored, weights = case
    wanted = areas(scored, weights)
    assert score("roc_auc", scored, weights[None]) == pytest.approx(
        [np.mean(wanted["roc_auc"]) if wanted["roc_auc"] else np.nan], abs=1e-12, nan_ok=True
    )
    # An area under precision needs no negative rows: it is 1 without.
    of_one_class = np.unique(scored.targets[weights > 0]).size == 1
    if not of_one_class:
        assert score("pr_auc", scored, weights[None]) == pytest.approx(
            [np.mean(wanted["pr_auc"])], abs=1e-12
        )


def test_areas_of_many_rows_are_those_of_scikit_learn():
    """More thresholds than are summed at once."""
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 3, 1000)
    answers = generator.dirichlet(np.ones(3), 1000)
    answers[np.arange(1000), targets] += 0.4
    answers /= answers.sum(1, keepdims=True)
    scored = Scored.of("classification", targets, answers)
    weights = generator.integers(0, 3, (4, 1000)).astype(float)
    for at, each in enumerate(weights):
        wanted = areas(scored, each)
        for name in ("roc_auc", "pr_auc"):
            assert score(name, scored, weights)[at] == pytest.approx(np.mean(wanted[name]))
    exact = score("roc_auc", scored, weights)
    assert score("roc_auc", scored, weights.astype(np.float32)) == pytest.approx(exact, abs=1e-5)


def test_macro_areas_are_those_of_scikit_learn_where_it_has_them():
    generator = np.random.default_rng(1)
    targets = generator.integers(0, 3, 60)
    answers = generator.dirichlet(np.ones(3), 60)
    scored = Scored.of("classification", targets, answers)
    wanted = sklearn.roc_auc_score(targets, answers, multi_class="ovr")
    assert score("roc_auc", scored)[0] == pytest.approx(wanted)
    wanted = sklearn.average_precision_score(targets, answers)
    assert score("pr_auc", scored)[0] == pytest.approx(wanted)


def test_an_area_without_positive_rows_or_without_negative_ones_has_no_value():
    answers = np.array([[0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    none, all_ = (Scored.of("anomaly", np.full(3, each), answers) for each in (0, 1))
    assert np.isnan(score("roc_auc", none)).all()
    assert np.isnan(score("roc_auc", all_)).all()
    assert np.isnan(score("pr_auc", none)).all()
    assert score("pr_auc", all_)[0] == 1
    mixed = Scored.of("anomaly", np.array([0, 1, 0]), answers)
    weights = np.array([[1.0, 0, 1], [1, 1, 1]])
    assert np.isnan(score("roc_auc", mixed, weights)).tolist() == [True, False]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_metrics_of_values_are_those_of_scikit_learn(seed, rows):
    generator = np.random.default_rng(seed)
    targets = generator.integers(-3, 4, rows) / 2 + 1e4
    answers = (targets + generator.normal(size=rows))[:, None]
    weights = generator.integers(0, 4, rows).astype(float)
    weights[:2] += 1
    scored = Scored.of("regression", targets, answers)
    for name in NUMERIC:
        found = score(name, scored, np.stack([weights, np.ones(rows)]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            wanted = [reference(name, scored, each) for each in (weights, None)]
        assert found == pytest.approx(wanted, rel=1e-7, abs=1e-9), name


@pytest.mark.parametrize(("error", "wanted"), [(0.0, 1.0), (0.5, 0.0)])
def test_r2_of_equal_values_is_one_without_any_error_and_else_nothing(error, wanted):
    targets = np.full(4, 2.5)
    scored = Scored.of("regression", targets, (targets + error)[:, None])
    assert score("r2", scored)[0] == wanted


def test_calibration_error_is_the_textbooks():
    generator = np.random.default_rng(2)
    answers = generator.dirichlet(np.ones(3), 500)
    scored = Scored.of("classification", generator.integers(0, 3, 500), answers)
    confidence, right = answers.max(1), answers.argmax(1) == scored.targets
    wanted = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        rows = (confidence > low) & (confidence <= high)
        if rows.any():
            wanted += rows.mean() * abs(right[rows].mean() - confidence[rows].mean())
    assert score("ece", scored)[0] == pytest.approx(wanted)


def test_a_confidence_between_two_bins_belongs_to_the_lower():
    """The textbook's bins are open below; 9/15 shares one with 0.55 and not with 0.65."""
    sure = np.array([0.6, 0.55, 0.65])
    answers = np.stack([sure, 1 - sure], axis=1)
    scored = Scored.of("classification", np.array([0, 1, 0]), answers)
    wanted = (abs((0.6 - 1) + (0.55 - 0)) + abs(0.65 - 1)) / 3
    assert score("ece", scored)[0] == pytest.approx(wanted)


def test_calibration_error_of_a_sure_and_right_model_is_nothing():
    answers = np.eye(2)[[0, 1, 1]]
    right = Scored.of("classification", np.array([0, 1, 1]), answers)
    wrong = Scored.of("classification", np.array([1, 0, 0]), answers)
    assert score("ece", right)[0] == 0
    assert score("ece", wrong)[0] == 1


def scored_pair(kind, seed=0, rows=120):
    """Two models' answers to the same rows, of which the second is worse."""
    generator = np.random.default_rng(seed)
    if kind == "regression":
        targets = generator.normal(size=rows)
        return [
            Scored.of(kind, targets, (targets + generator.normal(scale=s, size=rows))[:, None])
            for s in (0.5, 0.7)
        ]
    classes = 2 if kind == "anomaly" else 3
    targets = generator.integers(0, classes, rows)
    both = []
    for hint in (1.5, 1.0):
        logits = generator.normal(size=(rows, classes))
        logits[np.arange(rows), targets] += hint
        odds = np.exp(logits)
        both.append(Scored.of(kind, targets, odds / odds.sum(1, keepdims=True)))
    return both


def contributions(name, a, b):
    """What each row adds to the score of b minus that of a."""
    measure: Any = METRICS[name].measure
    return measure(a).contributions(measure(b))


EVERY = [(kind, name) for name, metric in METRICS.items() for kind in metric.kinds]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_weights_are_how_often_a_row_is_there(kind, name):
    scored, _ = scored_pair(kind)
    counts = np.random.default_rng(3).integers(0, 4, (5, len(scored.targets)))
    found = score(name, scored, counts.astype(float))
    assert found.shape == (5,)
    for each, times in zip(found, counts, strict=True):
        rows = np.repeat(np.arange(len(times)), times)
        repeated = Scored.of(
            kind, scored.targets[rows], scored.answers[rows], scored.decisions[rows]
        )
        assert each == pytest.approx(score(name, repeated)[0], rel=1e-9)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_score_is_within_its_bounds_and_best_without_errors(kind, name):
    metric = METRICS[name]
    scored, worse = scored_pair(kind)
    for each in (scored, worse):
        assert metric.low < score(name, each)[0] < metric.high
    if kind == "regression":
        answers = scored.targets[:, None]
    else:
        answers = np.eye(scored.answers.shape[1])[scored.targets]
    perfect = Scored.of(kind, scored.targets, answers)
    assert score(name, perfect)[0] == pytest.approx(metric.best, abs=1e-12)
    better = score(name, scored)[0] - score(name, worse)[0]
    if name != "ece":  # overconfident is not what the worse one is
        assert (better > 0) == metric.higher_is_better


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_contributions_of_rows_add_up_to_the_difference(kind, name):
    a, b = scored_pair(kind, rows=300)
    wanted = score(name, b)[0] - score(name, a)[0]
    found = contributions(name, a, b)
    assert found.shape == (300,)
    if name != "ece":  # not smooth
        assert found.sum() == pytest.approx(wanted, rel=0.01)
    assert contributions(name, b, a) == pytest.approx(-found, abs=1e-12)


@pytest.mark.parametrize(("kind", "name"), [each for each in EVERY if not each[1].endswith("_auc")])
def test_answers_that_change_places_turn_their_contribution_and_no_other(kind, name):
    a, b = scored_pair(kind)
    before = contributions(name, a, b)
    turned = np.arange(len(before)) % 3 == 0
    swapped = []
    for mine, other in ((a, b), (b, a)):
        answers = np.where(turned[:, None], other.answers, mine.answers)
        decisions = np.where(turned, other.decisions, mine.decisions)
        swapped.append(Scored.of(kind, a.targets, answers, decisions))
    after = contributions(name, *swapped)
    assert after == pytest.approx(np.where(turned, -before, before), abs=1e-8)


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc"])
def test_contributions_to_an_area_count_the_order_of_scores_only(name):
    a, b = scored_pair("anomaly")
    cooler = b.answers**3 / (b.answers**3).sum(1, keepdims=True)
    same_order = Scored.of("anomaly", b.targets, cooler)
    assert contributions(name, a, same_order) == pytest.approx(contributions(name, a, b))
    assert not contributions(name, b, same_order).any()


def test_metrics_of_one_class_are_those_of_scikit_learn():
    scored, _ = scored_pair("classification")
    labels = ("a", "b", "c")
    for name in ("precision", "recall", "f1"):
        of = getattr(sklearn, f"{name}_score")
        wanted = of(scored.targets, scored.decisions, average=None)
        found = [score(f"{name}:{label}", scored, labels=labels)[0] for label in labels]
        assert found == pytest.approx(wanted)


def test_what_never_happened_has_no_recall_and_what_was_never_said_no_precision():
    answers = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    scored = Scored.of("classification", np.array([0, 0]), answers)
    labels = ("a", "b", "c")
    assert np.isnan(score("recall:b", scored, labels=labels)[0])
    assert score("precision:b", scored, labels=labels)[0] == 0
    assert np.isnan(score("precision:c", scored, labels=labels)[0])
    assert np.isnan(score("f1:c", scored, labels=labels)[0])
    assert score("macro_f1", scored)[0] == pytest.approx((2 / 3) / 3)
    there = Scored.of("classification", np.array([0, 2]), answers)
    assert score("precision:c", there, labels=labels)[0] == 0


@pytest.mark.parametrize("name", ["precision:b", "macro_precision"])
def test_rows_add_up_to_the_precision_of_a_label_that_one_model_never_gives(name):
    labels, targets = ("a", "b"), np.arange(100) % 2
    never, always = (
        Scored.of("classification", targets, np.eye(2)[each])
        for each in (np.zeros(100, int), np.where(np.arange(100) < 10, 1 - targets, targets))
    )
    metric = find_metric(name, "classification", labels)
    one: Any = metric.measure(never)
    other: Any = metric.measure(always)
    gain = score(name, always, labels=labels)[0] - score(name, never, labels=labels)[0]
    assert one.contributions(other).sum() == pytest.approx(gain, rel=0.05)
    np.testing.assert_allclose(other.contributions(one), -one.contributions(other))


def test_a_threshold_of_ones_own_decides_instead_of_the_highest_answer():
    answers = np.array([[0.7, 0.3], [0.6, 0.4], [0.9, 0.1]])
    scored = Scored.of("anomaly", np.array([1, 1, 0]), answers, np.array([1, 1, 0]))
    assert score("accuracy", scored)[0] == 1


def test_what_is_left_to_a_person_is_counted_apart_and_leans_to_a_label():
    generator = np.random.default_rng(0)
    targets, decisions = generator.integers(0, 2, (2, 200))
    answers, answered = np.eye(2)[decisions], generator.random(200) < 0.6
    every = Scored.of("classification", targets, answers, decisions)
    some = Scored.of("classification", targets, answers, decisions, answered)
    for name in METRICS:
        if "classification" in METRICS[name].kinds:
            assert score(name, some)[0] == score(name, every)[0]
    assert score("coverage", some)[0] == answered.mean()
    right = (targets == decisions)[answered].mean()
    assert score("answered_accuracy", some)[0] == pytest.approx(right)
    assert score("coverage", every)[0] == 1
    assert score("answered_accuracy", every)[0] == score("accuracy", every)[0]
    none = Scored.of("anomaly", targets, answers, decisions, np.zeros(200, bool))
    assert score("coverage", none)[0] == 0
    assert np.isnan(score("answered_accuracy", none)[0])
    weights = generator.integers(0, 4, (3, 200)).astype(float)
    expected = (weights * answered * (targets == decisions)).sum(1) / (weights * answered).sum(1)
    assert score("answered_accuracy", some, weights) == pytest.approx(expected)


@pytest.mark.parametrize("name", ABSTENTION)
def test_contributions_to_what_is_answered_add_up_to_the_difference(name):
    generator = np.random.default_rng(1)
    targets = generator.integers(0, 2, 300)
    a, b = (
        Scored.of(
            "classification",
            targets,
            np.eye(2)[said],
            said,
            generator.random(300) < share,
        )
        for share, said in zip((0.6, 0.7), generator.integers(0, 2, (2, 300)), strict=True)
    )
    measure: Any = ABSTENTION[name].measure
    found = measure(a).contributions(measure(b))
    assert found.sum() == pytest.approx(score(name, b)[0] - score(name, a)[0], rel=0.02)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("f1_macro", "classification", "did you mean macro_f1"),
        ("recall:spam", "classification", "no metric 'recall:spam'"),
        ("accuracy:a", "classification", "no metric 'accuracy:a'"),
        ("log_loss", "anomaly", "log_loss is no metric of anomaly"),
        ("recall:a", "regression", "recall:a is no metric of regression"),
        ("macro_f1", "regression", "macro_f1 is no metric of regression"),
        ("coverage", "regression", "coverage is no metric of regression"),
        ("rmse", "regression", "no metric 'rmse' among mse, mae, r2; did you mean mse\\?$"),
    ],
)
def test_an_unknown_metric_is_refused_with_what_there_is(name, kind, message):
    with pytest.raises(ValueError, match=message):
        find_metric(name, kind, ("a", "b"))


@pytest.mark.parametrize(
    ("targets", "answers", "message"),
    [
        ([], np.zeros((0, 2)), "no rows"),
        ([0, 1], np.eye(3), "2 targets, 3 answers"),
        ([0, 1], np.array([[0.5, 0.5], [np.nan, 0.5]]), "not finite"),
    ],
)
def test_answers_that_cannot_be_scored_are_refused(targets, answers, message):
    with pytest.raises(ValueError, match=message):
        Scored.of("classification", np.array(targets, dtype=int), answers)
