from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri, stdtrit
from scipy.stats import binom, binomtest

from components.evaluate.comparison import (
    MAX_MORE,
    Outcome,
    _interval,
    compare,
    detectable_gain,
    family,
    holm,
    mcnemar,
    non_inferiority,
    superiority,
)
from components.evaluate.metrics import METRICS, Scored, score

LONG = ["roc_auc", "log_loss"]
"""Of the metrics, those that take longest to resample."""
CLASSIFICATION = [name for name, metric in METRICS.items() if "classification" in metric.kinds]


def models(rows, accuracies=(0.8, 0.8), *, seed=0, shared=0.7, positive=0.5, groups=None):
    """Two models whose margins are normal and have a share of their variance in common."""
    generator = np.random.default_rng(seed)
    names = np.arange(rows) if groups is None else groups

    def luck():
        own, common = generator.normal(size=rows), generator.normal(size=rows)[names]
        return own if groups is None else np.sqrt(0.5) * own + np.sqrt(0.5) * common

    true = (generator.random(rows) < positive).astype(int)
    difficulty, both = luck(), []
    for accuracy in accuracies:
        margin = ndtri(accuracy) + np.sqrt(shared) * difficulty + np.sqrt(1 - shared) * luck()
        right = 1 / (1 + np.exp(-2 * margin))
        answers = np.stack([right, 1 - right], axis=1)
        answers[true == 1] = answers[true == 1, ::-1]
        both.append(Scored.of("classification", true, answers))
    return both


def labelled(true, given, classes=2):
    """A model of which only the labels are known."""
    true, given = np.asarray(true), np.asarray(given)
    return Scored.of("classification", true, np.eye(classes)[given])


def differ(a, b, groups=None, metrics=("macro_f1",), *, alpha=0.05, resamples=500, seed=0):
    return compare(a, b, groups, metrics, alpha=alpha, resamples=resamples, seed=seed)


def difference(a, b, groups=None, *, metric="macro_f1", **options):
    return differ(a, b, groups, (metric,), **options)[metric]


def discordant(rows, for_b, for_a, wrong=0):
    """Models that are both right but for a few rows."""
    true = np.arange(rows) % 2
    a, b = true.copy(), true.copy()
    a[:for_b] = 1 - a[:for_b]
    b[for_b : for_b + for_a] = 1 - b[for_b : for_b + for_a]
    both = slice(rows - wrong, rows)
    a[both] = b[both] = 1 - true[both]
    return labelled(true, a), labelled(true, b)


# --- what is measured ---


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_a_gain_is_how_much_better_the_challenger_is_whichever_way_the_metric_runs(name):
    a, b = models(400, (0.6, 0.9))
    found = difference(a, b, metric=name)
    assert (found.champion, found.challenger) == (score(name, a)[0], score(name, b)[0])
    better = found.challenger - found.champion
    assert found.gain == (better if METRICS[name].higher_is_better else -better)
    assert found.room == pytest.approx(abs(METRICS[name].best - found.champion))
    if name != "ece":
        assert found.gain > 0
        assert superiority(found).verdict == "passed"
        assert superiority(difference(b, a, metric=name)).verdict == "failed"


def test_many_metrics_at_once_are_the_same_as_one_at_a_time_but_for_chance():
    a, b = models(300, (0.8, 0.85))
    together = differ(a, b, metrics=CLASSIFICATION, resamples=4000)
    assert list(together) == CLASSIFICATION
    for name in ("macro_f1", "roc_auc", "brier"):
        alone = difference(a, b, metric=name, resamples=4000)
        width = alone.high - alone.low
        assert together[name].gain == alone.gain
        assert together[name].low == pytest.approx(alone.low, abs=width / 15)
        assert together[name].high == pytest.approx(alone.high, abs=width / 15)


@pytest.mark.parametrize("scale", [2.0**83, 2.0**150, 2.0**-40])
def test_the_unit_of_numbers_changes_nothing_but_the_unit(scale):
    generator = np.random.default_rng(0)
    true = generator.normal(size=200)
    errors = [generator.normal(scale=each, size=200) for each in (1, 0.5)]

    def found(unit):
        a, b = [Scored.of("regression", unit * true, unit * (true + e)[:, None]) for e in errors]
        return differ(a, b, metrics=("mae", "mse", "r2"))

    usual, scaled = found(1.0), found(scale)
    for name, unit in (("mae", scale), ("mse", scale**2), ("r2", 1)):
        for number in ("gain", "low", "high", "step"):
            wanted = unit * getattr(usual[name], number)
            assert getattr(scaled[name], number) == pytest.approx(wanted, rel=1e-6)
        assert superiority(scaled[name]).verdict == "passed"
        seen = detectable_gain(usual[name])
        assert seen and detectable_gain(scaled[name]) == pytest.approx(unit * seen)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "roc_auc", "pr_auc", "brier", "ece"])
@pytest.mark.parametrize("group_rows", [1, 4])
def test_resamples_are_those_of_a_loop_over_groups_of_rows(name, group_rows, monkeypatch):
    groups = np.arange(200) // group_rows
    a, b = models(200, (0.75, 0.85), groups=groups)
    seen = {}

    def remember(gain, gains, *rest):
        seen["gains"] = gains
        return gain, gain

    monkeypatch.setattr("components.evaluate.comparison._interval", remember)
    difference(a, b, groups, metric=name, resamples=3000)
    generator, of = np.random.default_rng(1), 200 // group_rows
    drawn = [np.bincount(generator.integers(0, of, of), minlength=of) for _ in range(3000)]
    counts = np.array(drawn, dtype=float)[:, groups]
    gains = score(name, b, counts) - score(name, a, counts)
    gains *= 1 if METRICS[name].higher_is_better else -1
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    found = np.quantile(seen["gains"], levels)
    # Two simulations of 3,000 resamples differ by about a twentieth of the spread, and
    # accuracies by whole rows.
    close = 0.2 * gains.std() + (0.5 / 200 if name == "accuracy" else 0)
    assert found == pytest.approx(np.quantile(gains, levels), abs=close)
    assert seen["gains"].std() == pytest.approx(gains.std(), rel=0.06)


def test_groups_may_have_any_names_and_any_order():
    names = np.array([f"document {each}" for each in range(50)], object)
    groups = np.repeat(np.arange(50), 4)
    a, b = models(200, (0.75, 0.85), groups=groups)
    found = difference(a, b, names[groups], resamples=4000)
    assert (found.rows, found.groups) == (200, 50)
    order = np.random.default_rng(0).permutation(200)
    shuffled = [
        Scored.of("classification", each.targets[order], each.answers[order]) for each in (a, b)
    ]
    again = difference(shuffled[0], shuffled[1], names[groups][order], resamples=4000)
    width = found.high - found.low
    assert (again.low, again.high) == pytest.approx((found.low, found.high), abs=width / 15)
    alone = difference(a, b, np.arange(200).astype(object))
    assert alone == difference(a, b)
    assert alone.groups == 200


def test_the_same_seed_gives_the_same_on_any_number_of_cores(monkeypatch):
    a, b = models(3000)
    metrics = ["macro_f1", "roc_auc", "log_loss"]
    first = differ(a, b, metrics=metrics, resamples=1000)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert differ(a, b, metrics=metrics, resamples=1000) == first
    other = differ(a, b, metrics=metrics, resamples=1000, seed=1)
    assert all(other[name] != first[name] for name in metrics)


def test_turning_the_models_round_turns_the_interval_round():
    a, b = models(300, (0.7, 0.8))
    for name, there in differ(a, b, metrics=CLASSIFICATION, resamples=4000).items():
        back = difference(b, a, metric=name, resamples=4000)
        width = there.high - there.low
        assert back.gain == pytest.approx(-there.gain)
        assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=width / 10)
        assert back.p_worse == pytest.approx(there.p_better, abs=0.02)


def test_values_are_compared_as_well():
    generator = np.random.default_rng(3)
    true = 1e6 + generator.normal(size=500)
    a, b = (
        Scored.of("regression", true, (true + generator.normal(scale=s, size=500))[:, None])
        for s in (0.8, 0.5)
    )
    for name, found in differ(a, b, metrics=["r2", "mse", "mae"]).items():
        assert 0 < found.low < found.gain < found.high, name
        assert superiority(found).verdict == "passed"


# --- what can be known ---


def test_one_model_twice_does_not_differ():
    a, _ = models(100)
    for name, found in differ(a, a, metrics=CLASSIFICATION).items():
        assert (found.gain, found.low, found.high) == (0, 0, 0), name
        assert superiority(found).verdict == "undecided"
        assert superiority(found).more_rows is None
        assert non_inferiority(found, 0.01).verdict == "passed"
        assert detectable_gain(found) is None


def test_what_rounding_leaves_is_no_gain():
    targets = np.random.default_rng(0).normal(0.5, 1, 100)
    said = np.zeros((100, 1))
    verdicts = []
    for nearer in (1e-9, 0.4):
        a, b = (Scored.of("regression", targets, each) for each in (said, said + nearer))
        found = compare(a, b, None, ["r2"], alpha=0.05, resamples=500, seed=0)["r2"]
        assert found.gain > 0
        # All rows speak for the second model on the whole, by however little.
        assert found.p_value(0, above=True) < 0.05
        verdicts.append(superiority(found).verdict)
    assert verdicts == ["undecided", "passed"]


@pytest.mark.parametrize("rows", [60, 400])
def test_models_that_agree_on_all_rows_may_yet_differ_in_three_per_n(rows):
    """The rule of three, also for accuracy: the bound of what never happened."""
    true = np.arange(rows) % 2
    a, b = (
        Scored.of("classification", true, np.where(np.eye(2)[true] == 1, sure, 1 - sure))
        for sure in (0.8, 0.9)
    )
    found = difference(a, b, metric="accuracy")
    assert found.gain == 0
    assert found.low == pytest.approx(-3 / rows, rel=0.01)
    assert found.high == pytest.approx(3 / rows, rel=0.01)
    assert non_inferiority(found, 0.03).verdict == ("passed" if rows == 400 else "undecided")
    # In macro F1 a row weighs as much, where classes are as frequent as each other.
    assert difference(a, b).low == pytest.approx(-3 / rows, rel=0.05)


@pytest.mark.parametrize(
    ("for_b", "for_a", "verdict"),
    [
        (4, 0, "undecided"),  # a sixteenth
        (5, 0, "passed"),  # a thirty-second
        (0, 5, "failed"),
        (7, 1, "passed"),
        (6, 1, "undecided"),
        (60, 40, "passed"),
        (58, 42, "undecided"),
    ],
)
def test_few_rows_in_favour_are_no_proof(for_b, for_a, verdict):
    found = difference(*discordant(1000, for_b, for_a, wrong=50), metric="accuracy")
    assert superiority(found).verdict == verdict
    assert found.differing == pytest.approx(for_a + for_b, rel=1e-3)
    wanted = binom.sf(for_b - 1, for_a + for_b, 0.5)
    assert found.p_better == pytest.approx(wanted, abs=4 * np.sqrt(wanted / 9999) + 1e-4)


def test_the_interval_knows_no_more_than_there_are_rows_that_differ():
    found = difference(*discordant(1000, 3, 0, wrong=50), metric="accuracy", resamples=4000)
    # One resample in twenty holds none of the three, and t has three degrees of freedom.
    wanted = 0.003 * stdtrit(3, 0.95) / stdtrit(999, 0.95)
    assert found.gain - found.low == pytest.approx(wanted, rel=1e-3)
    assert found.freedom == pytest.approx(3, rel=1e-3)
    # Three of each: resamples would do, but t asks for a little more.
    even = difference(*discordant(1000, 3, 3, wrong=50), metric="accuracy", resamples=4000)
    least = np.sqrt(6) / 1000 * stdtrit(6, 0.95)
    assert min(-even.low, even.high) >= least * (1 - 1e-6)


def test_levels_of_the_bootstrap_are_those_of_student():
    """Of ten groups the mean varies by a factor of 0.95 too little, and t is not normal."""
    resampled = np.random.default_rng(0).normal(scale=np.sqrt(0.9), size=400_000)
    low, high = _interval(0.5, 0.5 + resampled, groups=10, differing=10, step=0, alpha=0.05)
    assert (0.5 - low, high - 0.5) == pytest.approx((stdtrit(9, 0.95),) * 2, rel=0.01)


def test_both_the_interval_and_the_permutations_must_say_so():
    found = difference(*discordant(1000, 30, 10), metric="accuracy")
    assert superiority(found).verdict == "passed"
    unsure = replace(found, p_better=0.06)
    assert superiority(unsure).verdict == "undecided"
    wide = replace(found, low=-0.001)
    assert superiority(wide).verdict == "undecided"
    assert superiority(replace(found, alpha=0.01, p_better=0.02)).verdict == "undecided"


def test_with_one_group_nothing_is_known():
    a, b = models(50, (0.6, 0.9))
    found = difference(a, b, np.zeros(50))
    assert found.groups == 1
    assert superiority(found).verdict == non_inferiority(found, 0.5).verdict == "undecided"
    assert superiority(found).more_rows is None
    assert superiority(found).p_passed == superiority(found).p_failed == 1


def test_without_positive_rows_there_is_no_area_and_no_verdict():
    a, b = (Scored.of("anomaly", np.zeros(40, int), each.answers) for each in models(40))
    found = difference(a, b, metric="roc_auc")
    assert np.isnan([found.challenger, found.gain, found.low, found.high]).all()
    for outcome in (superiority(found), non_inferiority(found, 0.5)):
        assert outcome.verdict == "undecided"
        assert outcome.p_passed == outcome.p_failed == 1
        assert outcome.more_rows is None


def test_resamples_without_a_positive_row_are_left_out():
    true = np.zeros(60, int)
    true[:3] = 1
    generator = np.random.default_rng(0)
    a, b = (Scored.of("anomaly", true, generator.dirichlet((1, 1), 60)) for _ in range(2))
    found = difference(a, b, metric="roc_auc")
    assert np.isfinite([found.low, found.high]).all()


def test_other_rows_are_refused():
    a, b = models(50)
    other = Scored.of("classification", 1 - b.targets, b.answers)
    with pytest.raises(ValueError, match="must answer the same rows"):
        differ(a, other)
    with pytest.raises(ValueError, match="no metric 'f2'"):
        differ(a, b, metrics=["f2"])


# --- how often it is wrong ---


def promoted(trials, alpha=0.05, **condition):
    """How many of so many equal challengers are promoted."""
    found = 0
    for trial in range(trials):
        a, b = models(seed=trial, **condition)
        groups = condition.get("groups")
        outcome = superiority(difference(a, b, groups, alpha=alpha, resamples=200, seed=trial))
        found += outcome.verdict == "passed"
    return found


GROUPS = np.repeat(np.arange(40), np.arange(40) % 9 + 1)


@pytest.mark.parametrize(
    "condition",
    [
        {"rows": 40},
        {"rows": 300},
        {"rows": 60, "shared": 0.98},
        {"rows": 100, "positive": 0.05, "accuracies": (0.95, 0.95)},
        {"rows": len(GROUPS), "groups": GROUPS},
    ],
    ids=["few rows", "rows", "hardly different", "few positive", "groups"],
)
def test_equal_models_are_promoted_no_more_often_than_alpha_says(condition):
    # More than this happens once in a thousand such tests.
    assert promoted(500, **condition) <= binom.isf(1e-3, 500, 0.05)


@pytest.mark.parametrize("alpha", [pytest.param(0.01, marks=pytest.mark.slow), 0.2])
def test_alpha_is_what_it_says(alpha):
    low, high = binom.ppf([1e-3, 1 - 1e-3], 600, alpha)
    # Permutations of a few hundred rows are a little conservative.
    assert low * 0.6 <= promoted(600, alpha, rows=400) <= high


def test_rows_that_are_copies_of_each_other_are_no_evidence():
    """Ten rows of a document are not ten documents; only the groups tell."""
    documents = np.repeat(np.arange(60), 10)
    fooled = honest = 0
    for trial in range(200):
        a, b = (
            Scored.of("classification", each.targets[documents], each.answers[documents])
            for each in models(60, seed=trial)
        )
        fooled += superiority(difference(a, b, resamples=200)).verdict == "passed"
        honest += superiority(difference(a, b, documents, resamples=200)).verdict == "passed"
    assert fooled > 50
    assert honest <= binom.isf(1e-3, 200, 0.05)


@pytest.mark.parametrize(
    ("rows", "groups", "shared"),
    [(30, None, 0.7), (100, None, 0.99), (400, None, 0.7), (len(GROUPS), GROUPS, 0.7)],
    ids=["few rows", "hardly different", "rows", "groups"],
)
def test_a_loss_as_large_as_the_margin_is_seldom_called_kept(rows, groups, shared):
    kept = 0
    for trial in range(600):
        a, b = models(rows, (0.85, 0.8), seed=trial, shared=shared, groups=groups)
        found = difference(a, b, groups, metric="accuracy", resamples=200, seed=trial)
        kept += non_inferiority(found, 0.05).verdict == "passed"
    assert kept <= binom.isf(1e-3, 600, 0.06)


@pytest.mark.parametrize(
    "name", ["macro_f1", *(pytest.param(each, marks=pytest.mark.slow) for each in LONG)]
)
def test_the_interval_covers_the_true_gain_as_often_as_it_promises(name):
    truth = difference(*models(200_000, (0.78, 0.84), seed=1), metric=name, resamples=1).gain
    covered = 0
    for trial in range(300):
        a, b = models(200, (0.78, 0.84), seed=100 + trial)
        found = difference(a, b, metric=name, resamples=300, seed=trial)
        covered += found.low <= truth <= found.high
    low, high = binom.ppf([1e-3, 1 - 1e-3], 300, 0.9)
    assert low <= covered <= high + 12


# --- the tests on their own ---


def test_mcnemar_is_the_exact_binomial():
    a, b = discordant(200, 14, 4, wrong=20)
    right = [each.decisions == each.targets for each in (a, b)]
    found = mcnemar(*right)
    assert (found.only_champion, found.only_challenger, found.exact) == (4, 14, True)
    assert found.p_value == pytest.approx(binomtest(14, 18).pvalue)
    assert found.p_better == pytest.approx(binomtest(14, 18, alternative="greater").pvalue)
    back = mcnemar(*right[::-1])
    assert back.p_value == found.p_value
    assert back.p_better == pytest.approx(binomtest(4, 18, alternative="greater").pvalue)
    assert mcnemar(right[0], right[0]).p_value == 1


def test_mcnemar_of_groups_counts_groups():
    a, b = discordant(200, 14, 4, wrong=20)
    right = [each.decisions == each.targets for each in (a, b)]
    assert mcnemar(*right).p_value < 0.05
    # All that speaks for the challenger is in two groups.
    groups = np.concatenate([np.repeat([0, 1], 7), np.arange(2, 188)])
    found = mcnemar(right[0], right[1], groups)
    assert not found.exact
    assert found.p_value > 0.3
    each_its_own = mcnemar(right[0], right[1], np.arange(200)[::-1])
    assert each_its_own == mcnemar(*right)


def test_holm_is_the_textbooks():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_a_family_is_wrong_no_more_often_than_one_test():
    outcomes = {
        "poor": Outcome("failed", -0.1, 0.999, 0.001),
        "perhaps": Outcome("failed", -0.1, 0.97, 0.03),
        "good": Outcome("passed", -0.1, 0.01, 0.99),
    }
    found = family(outcomes, 0.05)
    assert {name: each.verdict for name, each in found.items()} == {
        "poor": "failed",
        "perhaps": "undecided",
        "good": "passed",
    }
    assert [each.p_failed for each in found.values()] == pytest.approx([0.003, 0.06, 0.99])
    assert [each.p_passed for each in found.values()] == pytest.approx([1.0, 1.0, 0.03])
    assert family(outcomes, 0.02)["good"].verdict == "undecided"


@pytest.mark.parametrize("margin", [0.0, 0.02, 0.05])
def test_p_values_and_bounds_say_the_same(margin):
    a, b = models(300, (0.82, 0.8))
    for name, found in differ(a, b, metrics=["accuracy", "roc_auc", "brier"]).items():
        outcome = non_inferiority(found, margin)
        assert outcome.threshold == -margin
        assert (outcome.p_passed < 0.05) == (found.low > -margin), name
        assert (outcome.p_failed < 0.05) == (found.high < -margin), name
        assert found.p_value(found.low, above=True) == pytest.approx(0.05)
        assert found.p_value(found.high, above=False) == pytest.approx(0.05)
        assert found.p_value(found.gain, above=True) == pytest.approx(0.5)


# --- power ---


def seen_with(found, power=0.8):
    """The smallest gain that is seen with this power."""
    gain = detectable_gain(found, power)
    assert gain is not None
    return gain


def test_the_detectable_gain_is_seen_four_times_in_five():
    of_equals = np.median(
        [seen_with(difference(*models(500, seed=each), metric="accuracy")) for each in range(9)]
    )
    seen = sum(
        superiority(
            difference(*models(500, (0.8, 0.8 + of_equals), seed=each), metric="accuracy")
        ).verdict
        == "passed"
        for each in range(300)
    )
    assert seen / 300 == pytest.approx(0.8, abs=0.08)


def test_a_gain_takes_six_rows_however_little_models_differ():
    found = difference(*discordant(1000, 1, 0), metric="accuracy")
    assert seen_with(found) == pytest.approx(6.18 / 1000, rel=0.01)
    assert found.room == pytest.approx(1 / 1000)
    assert seen_with(found, power=0.95) > seen_with(found)
    # And two rows more than do may differ.
    some = difference(*discordant(1000, 12, 8), metric="accuracy")
    assert seen_with(some) == pytest.approx(2.4865 * np.sqrt(22) / 1000, rel=1e-3)


def test_four_times_the_rows_see_half_the_gain():
    some, more = (seen_with(difference(*models(rows))) for rows in (1000, 4000))
    assert more == pytest.approx(some / 2, rel=0.15)


@pytest.mark.parametrize("group_rows", [1, 4])
def test_with_the_rows_that_are_asked_for_it_would_pass(group_rows):
    groups = np.arange(400) // group_rows
    a, b = discordant(400, 24, 16, wrong=20)
    found = difference(a, b, groups, metric="accuracy", resamples=4000)
    outcome = superiority(found)
    assert outcome.verdict == "undecided"
    assert outcome.more_rows is not None
    assert outcome.more_groups == pytest.approx(outcome.more_rows / group_rows, abs=1)
    times = 1 + outcome.more_rows / 400
    several = round(times)
    many = [
        Scored.of(
            "classification", np.tile(each.targets, several), np.tile(each.answers, (several, 1))
        )
        for each in (a, b)
    ]
    grown = difference(many[0], many[1], np.arange(400 * several) // group_rows, metric="accuracy")
    assert superiority(grown).verdict == "passed"
    # Just so: it is 2.49 standard errors from nothing, which 80 % of such samples show.
    assert grown.gain / grown.standard_error(above=True) == pytest.approx(
        2.49 * np.sqrt(several / times), rel=0.1
    )


def test_no_number_of_rows_is_asked_for_if_the_gain_points_the_wrong_way_or_is_tiny():
    worse = superiority(difference(*discordant(400, 16, 24), metric="accuracy"))
    assert (worse.verdict, worse.more_rows) == ("undecided", None)
    tiny = superiority(difference(*discordant(400, 51, 50), metric="accuracy"))
    assert (tiny.verdict, tiny.more_rows) == ("undecided", None)
    some = superiority(difference(*discordant(400, 55, 45), metric="accuracy"))
    assert some.more_rows is not None
    assert 400 < some.more_rows < 400 * MAX_MORE
    passed = superiority(difference(*discordant(400, 60, 20), metric="accuracy"))
    assert (passed.verdict, passed.more_rows) == ("passed", None)
    # A margin is easier to keep than to beat.
    kept = non_inferiority(difference(*discordant(400, 16, 24), metric="accuracy"), 0.03)
    assert kept.verdict == "undecided"
    assert kept.more_rows is not None
