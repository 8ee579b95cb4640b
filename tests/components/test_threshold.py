from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from components.operating_point import ABSTAIN, OperatingPointConfig, decide, decide_all, sureness
from components.proportion import lower_bound
from components.threshold import choose_point

LABELS = ("no", "yes")


def share(found):
    assert found is not None
    return found


def two_columns(scores):
    scores = np.asarray(scores, float)
    return np.stack([1 - scores, scores], 1)


def measured(answers, targets, point, label):
    called = decide_all(answers, point) == label
    meant = targets == label
    hits = (called & meant).sum()
    return hits / max(1, meant.sum()), hits / max(1, called.sum())


def every_cut(scores, meant):
    """Recall and precision of calling scores from each score on, by brute force."""
    for threshold in np.unique(scores):
        called = scores >= threshold
        hits = (called & meant).sum()
        yield hits / meant.sum(), hits / called.sum()


ROWS = st.lists(
    st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=50
)  # few scores, so that many are equal


@settings(deadline=None, max_examples=300)
@given(ROWS, st.sampled_from([0.3, 0.5, 0.8, 0.9, 0.99]))
def test_no_threshold_that_recalls_enough_has_a_better_precision(rows, at_least):
    scores, targets = np.array([r[0] for r in rows]) / 12, np.array([int(r[1]) for r in rows])
    answers = two_columns(scores)
    config = OperatingPointConfig(aim="recall", label="yes", at_least=at_least)
    point = choose_point(answers, targets, LABELS, config)
    if not targets.any():
        assert not point.reached and point.threshold is None
        return
    best = max(
        (precision, recall)
        for recall, precision in every_cut(scores, targets == 1)
        if recall >= at_least
    )
    recall, precision = measured(answers, targets, point, 1)
    assert (precision, recall) == best
    assert (share(point.recall).measured, share(point.precision).measured) == (recall, precision)
    assert point.reached


@settings(deadline=None, max_examples=300)
@given(ROWS, st.sampled_from([0.3, 0.5, 0.8, 0.9, 0.99]))
def test_no_threshold_that_is_precise_enough_has_a_better_recall(rows, at_least):
    scores, targets = np.array([r[0] for r in rows]) / 12, np.array([int(r[1]) for r in rows])
    answers = two_columns(scores)
    config = OperatingPointConfig(aim="precision", label="yes", at_least=at_least)
    point = choose_point(answers, targets, LABELS, config)
    if not targets.any():
        assert not point.reached and point.threshold is None
        return
    cuts = list(every_cut(scores, targets == 1))
    reaching = [recall for recall, precision in cuts if precision >= at_least]
    recall, precision = measured(answers, targets, point, 1)
    assert point.reached == bool(reaching)
    if reaching:
        assert recall == max(reaching)
        assert precision >= at_least
    else:
        assert precision == max(precision for _, precision in cuts)
        assert "the best precision of 'yes' is" in point.reason


@settings(deadline=None, max_examples=200)
@given(ROWS, st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from(["most-probable", "recall"]))
def test_as_few_rows_as_possible_are_left_to_a_person(rows, accuracy, aim):
    scores, targets = np.array([r[0] for r in rows]) / 12, np.array([int(r[1]) for r in rows])
    answers = two_columns(scores)
    label = "yes" if aim == "recall" else ""
    config = OperatingPointConfig(aim=aim, label=label, at_least=0.9, answered_accuracy=accuracy)
    point = choose_point(answers, targets, LABELS, config)
    decided, all_decided = decide(answers, point), decide_all(answers, point)
    if point.rows == 0 or (aim == "recall" and not targets.any()):
        return
    answered, right = decided != ABSTAIN, all_decided == targets
    sure = sureness(answers, all_decided, point)
    cuts = {int((sure >= at).sum()): right[sure >= at].mean() for at in np.unique(sure)}
    enough = [rows for rows, share in cuts.items() if share >= accuracy]
    if enough:
        assert answered.sum() == max(enough)
        assert right[answered].mean() >= accuracy
    else:
        assert "accuracy of answered rows" in point.reason
        assert right[answered].mean() == max(cuts.values())
    assert point.abstained == pytest.approx(1 - answered.mean())
    assert share(point.accuracy).measured == right[answered].mean()


def test_a_threshold_lies_halfway_between_scores_so_that_a_last_digit_changes_nothing():
    answers = two_columns([0.9, 0.8, 0.4, 0.2])
    config = OperatingPointConfig(aim="recall", label="yes")
    assert choose_point(answers, np.array([1, 1, 0, 0]), LABELS, config).threshold == (
        pytest.approx(0.6)
    )
    assert choose_point(answers, np.array([1, 1, 0, 1]), LABELS, config).threshold == (
        pytest.approx(0.1)
    )


def test_scores_one_digit_apart_are_told_apart():
    low = 0.5
    high = np.nextafter(low, 1)
    answers = two_columns([low, high])
    config = OperatingPointConfig(aim="precision", label="yes", at_least=0.9)
    point = choose_point(answers, np.array([0, 1]), LABELS, config)
    assert point.threshold == high
    assert decide(answers, point).tolist() == [0, 1]


def test_one_label_of_many_gets_a_threshold():
    chance = np.random.default_rng(0)
    answers = chance.dirichlet([1, 1, 1, 1], 2000)
    targets = (answers.cumsum(1) < chance.random((2000, 1))).sum(1)
    labels = ("a", "b", "c", "d")
    config = OperatingPointConfig(aim="recall", label="c", at_least=0.9, answered_accuracy=0.5)
    point = choose_point(answers, targets, labels, config)
    recall, precision = measured(answers, targets, point, 2)
    assert recall >= 0.9
    assert share(point.recall).measured == recall
    assert share(point.precision).measured == precision
    assert share(point.recall).low < 0.9
    answered = decide(answers, point) != ABSTAIN
    assert (decide(answers, point) == targets)[answered].mean() >= 0.5


def test_costs_are_weighed_and_their_mean_is_told():
    chance = np.random.default_rng(0)
    answers = chance.dirichlet([1, 1, 1], 3000)
    targets = (answers.cumsum(1) < chance.random((3000, 1))).sum(1)
    labels = ("a", "b", "c")
    config = OperatingPointConfig(
        aim="cost", costs={"a": {"b": 20, "c": 5}}, class_weights={"c": 2}
    )
    point = choose_point(answers, targets, labels, config)
    costs = np.array(config.cost_matrix(labels))
    assert point.cost == pytest.approx(costs[targets, decide(answers, point)].mean())
    assert point.cost < costs[targets, answers.argmax(1)].mean()
    assert point.reached


def scores_of(rows, seed):
    chance = np.random.default_rng(seed)
    targets = (chance.random(rows) < 0.3).astype(int)
    return two_columns(1 / (1 + np.exp(-chance.normal(4.0 * targets - 2, 1)))), targets


def on_other_rows(config, simulations):
    """Recall and precision on many other rows, of each point that was reached, ``[m, 2]``."""
    fresh, truth = scores_of(200_000, 10**6)
    points = []
    for seed in range(simulations):
        answers, targets = scores_of(1000, seed)
        points.append(choose_point(answers, targets, LABELS, config))
    return np.array([measured(fresh, truth, point, 1) for point in points if point.reached])


@pytest.mark.slow
def test_a_recall_by_its_bound_holds_on_other_rows_as_often_as_stated():
    config = OperatingPointConfig(aim="recall", label="yes", at_least=0.95, by="bound")
    recalls = on_other_rows(config, 1000)[:, 0]
    assert len(recalls) == 1000
    assert binom.cdf((recalls >= 0.95).sum(), 1000, 0.95) > 0.001
    # By what was measured alone, about every other one falls short.
    short = on_other_rows(config.model_copy(update={"by": "measured"}), 200)[:, 0]
    assert 0.2 < (short >= 0.95).mean() < 0.8


@pytest.mark.slow
def test_a_precision_by_its_bound_holds_on_other_rows_at_least_as_often_as_stated():
    config = OperatingPointConfig(aim="precision", label="yes", at_least=0.9, by="bound")
    precisions = on_other_rows(config, 500)[:, 1]
    assert len(precisions) > 450
    assert binom.cdf((precisions >= 0.9).sum(), len(precisions), 0.95) > 0.001


def test_too_few_rows_for_a_bound_give_the_nearest_point_and_how_many_it_takes():
    answers, targets = scores_of(300, 0)
    config = OperatingPointConfig(aim="recall", label="yes", at_least=0.99, by="bound")
    point = choose_point(answers, targets, LABELS, config)
    assert not point.reached
    assert "0.99 takes 299 rows or more" in point.reason
    assert share(point.recall).measured == 1
    assert lower_bound(299, 299, 0.95) > 0.99 > lower_bound(298, 298, 0.95)


@pytest.mark.parametrize("aim", ["recall", "precision"])
def test_without_a_row_of_the_label_the_most_probable_is_answered(aim):
    answers = two_columns([0.9, 0.2])
    config = OperatingPointConfig(aim=aim, label="yes", answered_accuracy=0.8)
    point = choose_point(answers, np.array([0, 0]), LABELS, config)
    assert (point.reached, point.reason) == (False, "no validation row is 'yes'")
    assert decide(answers, point).tolist() == [1, 0]
    nothing = choose_point(answers[:0], np.array([], dtype=int), LABELS, config)
    assert (nothing.reached, nothing.reason) == (False, "no validation rows")
    assert decide(answers, nothing).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("answers", "targets", "message"),
    [
        (np.zeros((2, 3)), [0, 1], r"are not \[2, 2\]"),
        (np.zeros((2, 2)), [0], r"are not \[1, 2\]"),
        (np.full((1, 2), np.nan), [0], "finite"),
    ],
)
def test_what_makes_no_sense_is_refused(answers, targets, message):
    with pytest.raises(ValueError, match=message):
        choose_point(answers, np.array(targets), LABELS, OperatingPointConfig())
