from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, r2_score

from components.evaluate.bootstrap import f1_difference, r2_difference


def difference(expected, a, b, groups=None, *, classes=2, alpha=0.05, resamples=1000, seed=0):
    groups = np.arange(len(expected)) if groups is None else groups
    return f1_difference(
        expected,
        a,
        b,
        groups.astype(object),
        classes=classes,
        alpha=alpha,
        resamples=resamples,
        seed=seed,
    )


def macro_f1(expected, answers, classes):
    return f1_score(expected, answers, labels=range(classes), average="macro", zero_division=0)


def f1_gain(expected, a, b, classes):
    """Macro F1 of b minus that of a, row by row, as it is written in textbooks."""

    def f1(answers):
        scores = []
        for label in range(classes):
            hits = np.sum((answers == label) & (expected == label))
            total = np.sum(answers == label) + np.sum(expected == label)
            scores.append(2 * hits / total if total else 0.0)
        return np.mean(scores)

    return f1(b) - f1(a)


def answers_of(generator, expected, accuracy, classes=2):
    wrong = (expected + generator.integers(1, classes, len(expected))) % classes
    return np.where(generator.random(len(expected)) < accuracy, expected, wrong)


ROWS = st.integers(2, 4).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(
            st.tuples(*[st.integers(0, classes - 1)] * 3, st.integers(0, 6)),
            min_size=1,
            max_size=40,
        ),
    )
)


@given(ROWS)
def test_the_estimate_is_the_difference_of_scikit_learns_f1(case):
    classes, rows = case
    expected, a, b, _ = np.array(rows).T
    found = difference(expected, a, b, classes=classes, resamples=100)
    wanted = macro_f1(expected, b, classes) - macro_f1(expected, a, classes)
    assert found.estimate == pytest.approx(wanted, abs=1e-12)
    assert f1_gain(expected, a, b, classes) == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.integers(0, 99))
def test_groups_are_resampled_whole_like_by_a_loop_over_their_rows(case, seed):
    classes, rows = case
    rows = [*rows, rows[0]]  # at least one group of two, or every row is its own
    expected, a, b, groups = np.array(rows).T
    found = difference(expected, a, b, groups, classes=classes, resamples=150, seed=seed)
    names = np.unique(groups.astype(str))
    of_group = [np.flatnonzero(groups.astype(str) == name) for name in names]
    # The same draws: how often each group comes in each resample.
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=150
    )
    gains = []
    for draw in draws:
        drawn = np.concatenate([np.tile(of_group[i], times) for i, times in enumerate(draw)])
        drawn = drawn.astype(int)
        gains.append(f1_gain(expected[drawn], a[drawn], b[drawn], classes))
    low, high = np.quantile(gains, [0.05, 0.95])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("group_rows", [1, 4])
def test_the_interval_is_that_of_a_brute_force_loop_over_resampled_rows(group_rows):
    generator = np.random.default_rng(7)
    expected = generator.integers(0, 3, 200)
    a, b = (answers_of(generator, expected, accuracy, 3) for accuracy in (0.7, 0.8))
    groups = np.arange(200) // group_rows
    found = difference(expected, a, b, groups, classes=3, resamples=4000)
    of_group = np.arange(200).reshape(-1, group_rows)
    gains = []
    for _ in range(4000):
        drawn = of_group[generator.integers(0, len(of_group), len(of_group))].ravel()
        gains.append(f1_gain(expected[drawn], a[drawn], b[drawn], 3))
    low, high = np.quantile(gains, [0.05, 0.95])
    # Two independent simulations of 4,000 resamples differ by about a fiftieth of its width.
    assert (found.low, found.high) == pytest.approx((low, high), abs=(high - low) / 15)


def test_the_same_seed_gives_the_same_interval_and_another_another():
    generator = np.random.default_rng(0)
    expected = generator.integers(0, 2, 100)
    a, b = (answers_of(generator, expected, 0.8) for _ in range(2))
    first = difference(expected, a, b)
    assert difference(expected, a, b) == first
    assert difference(expected, a, b, seed=1) != first


def test_turning_the_models_round_turns_the_interval_round():
    generator = np.random.default_rng(0)
    expected = generator.integers(0, 2, 300)
    a, b = (answers_of(generator, expected, accuracy) for accuracy in (0.7, 0.85))
    there, back = difference(expected, a, b), difference(expected, b, a)
    assert back.estimate == pytest.approx(-there.estimate)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=0.02)


def test_models_that_answer_alike_do_not_differ():
    expected = np.array([0, 1, 1, 0])
    found = difference(expected, expected[::-1], expected[::-1])
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_equal_models_are_told_apart_as_often_as_alpha_says(alpha):
    generator = np.random.default_rng(11)
    trials = 700
    promoted = 0
    for trial in range(trials):
        expected = generator.integers(0, 2, 300)
        a, b = (answers_of(generator, expected, 0.8) for _ in range(2))
        found = difference(expected, a, b, alpha=alpha, resamples=300, seed=trial)
        promoted += found.low > 0
    spread = np.sqrt(alpha * (1 - alpha) / trials)
    # A percentile interval of 300 resamples is a little too narrow.
    assert promoted / trials == pytest.approx(alpha, abs=4 * spread + 0.005)


def test_the_interval_covers_the_true_difference_as_often_as_it_promises():
    generator = np.random.default_rng(12)
    expected = np.arange(400_000) % 2
    a, b = (answers_of(generator, expected, accuracy) for accuracy in (0.75, 0.82))
    truth = difference(expected, a, b, resamples=1).estimate
    covered = 0
    for trial in range(600):
        drawn = generator.integers(0, len(expected), 300)
        found = difference(expected[drawn], a[drawn], b[drawn], resamples=300, seed=trial)
        covered += found.low <= truth <= found.high
    assert covered / 600 == pytest.approx(0.9, abs=0.04)


def test_rows_that_are_copies_of_each_other_do_not_count_as_evidence():
    """Ten rows of a document are not ten documents; only the groups tell."""
    generator = np.random.default_rng(13)
    documents = np.repeat(np.arange(60), 10)
    fooled = honest = 0
    for trial in range(300):
        truth = generator.integers(0, 2, 60)
        a, b = (answers_of(generator, truth, 0.8) for _ in range(2))
        truth, a, b = (array[documents] for array in (truth, a, b))
        fooled += difference(truth, a, b, resamples=300, seed=trial).low > 0
        honest += difference(truth, a, b, documents, resamples=300, seed=trial).low > 0
    assert fooled > 80
    assert honest < 30


def test_no_rows_are_refused():
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="no rows"):
        difference(nothing, nothing, nothing)


# --- R² ---


def r2_gain(expected, a, b):
    """R² of b minus that of a; what has no spread is explained by no error only."""

    def r2(answers):
        left = np.square(answers - expected).sum()
        spread = np.square(expected - expected.mean()).sum()
        return 1 - left / spread if len(set(expected)) > 1 else float(left == 0)

    return r2(b) - r2(a)


RATED = st.lists(
    st.tuples(*[st.integers(-4, 4).map(lambda value: value / 2)] * 3, st.integers(0, 6)),
    min_size=2,
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(RATED, st.integers(0, 99), st.booleans())
def test_r2_is_resampled_by_groups_like_by_a_loop_over_their_rows(rows, seed, grouped):
    expected, a, b, groups = np.array(rows).T
    if not grouped:
        groups = np.arange(len(rows))
    found = r2_difference(
        expected, a, b, groups.astype(object), alpha=0.05, resamples=150, seed=seed
    )
    assert found.estimate == pytest.approx(r2_gain(expected, a, b), abs=1e-9)
    names = np.unique(groups.astype(str))
    of_group = [np.flatnonzero(groups.astype(str) == name) for name in names]
    assert found.groups == len(names)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=150
    )
    gains = []
    for draw in draws:
        drawn = np.concatenate([np.tile(of_group[i], times) for i, times in enumerate(draw)])
        drawn = drawn.astype(int)
        gains.append(r2_gain(expected[drawn], a[drawn], b[drawn]))
    low, high = np.quantile(gains, [0.05, 0.95])
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)


def test_the_estimate_is_the_difference_of_scikit_learns_r2_also_far_from_zero():
    generator = np.random.default_rng(3)
    expected = 1e6 + generator.normal(size=500)
    a, b = (expected + generator.normal(scale=scale, size=500) for scale in (0.8, 0.5))
    found = r2_difference(
        expected, a, b, np.arange(500).astype(object), alpha=0.05, resamples=2000, seed=0
    )
    wanted = r2_score(expected, b) - r2_score(expected, a)
    assert found.estimate == pytest.approx(wanted, abs=1e-6)
    assert found.low < found.estimate < found.high
    assert found.low > 0


def test_r2_of_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        no = np.zeros(0)
        r2_difference(no, no, no, no.astype(object), alpha=0.05, resamples=100, seed=0)
