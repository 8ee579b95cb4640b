"""What every detector promises: silent on the same, alarmed by the shifted, as often as said."""

from __future__ import annotations

import numpy as np
import pytest

from components.drift.detectors import DETECTORS
from components.drift.detectors.detector import binned

STREAMS = [name for name, each in DETECTORS.items() if each.kind == "stream"]
TESTS = [name for name, each in DETECTORS.items() if each.kind != "stream"]
ROWS = 600
NUMBERS = [name for name in TESTS if DETECTORS[name].kind == "numbers"]
CATEGORIES = [name for name in TESTS if DETECTORS[name].kind == "categories"]
VECTORS = [name for name in TESTS if DETECTORS[name].kind == "vectors"]


def drawn(name, seed, shift=0.0, rows=ROWS):
    """Draw a sample of the kind that a detector compares; a shift of 1 is large."""
    generator = np.random.default_rng(seed)
    kind = DETECTORS[name].kind
    if kind == "numbers":
        return np.sort(generator.normal(shift, size=rows))
    if kind == "vectors":
        return generator.normal(shift, size=(rows, 6))
    shares = np.array([0.4, 0.3, 0.2, 0.1]) + shift * np.array([-0.35, 0, 0, 0.35])
    return np.bincount(generator.choice(4, rows, p=shares), minlength=4).astype(float)


def stream(name, seed, rise=0.0):
    """Draw errors whose rate rises in the middle."""
    rates = np.repeat([0.1, 0.1 + rise], 500)
    return (np.random.default_rng(seed).random(1000) < rates).astype(float)


def watching(name):
    """A detector of a stream, set to see a rise of an error rate."""
    parameters = {"threshold": 20.0, "delta": 0.05} if name == "page-hinkley" else {}
    return DETECTORS[name].stream(**parameters)


@pytest.mark.parametrize("name", TESTS)
def test_is_silent_on_the_same_and_alarmed_by_the_shifted(name):
    tool, reference = DETECTORS[name], drawn(name, 0)
    same, other = (
        tool.compare(reference, drawn(name, 1)),
        tool.compare(reference, drawn(name, 2, 1)),
    )
    assert same.effect < tool.threshold
    assert other.effect > tool.threshold
    assert other.p_value < 1e-6 < 0.001 < same.p_value <= 1
    assert other.statistic > same.statistic


@pytest.mark.parametrize("name", TESTS)
def test_says_the_same_twice(name):
    first, second = (DETECTORS[name].compare(drawn(name, 0), drawn(name, 1)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", TESTS)
def test_false_alarms_are_as_frequent_as_the_p_value_says(name):
    p_values = np.array(
        [
            DETECTORS[name].compare(drawn(name, 2 * i), drawn(name, 2 * i + 1)).p_value
            for i in range(200)
        ]
    )
    for level, most in ((0.05, 20), (0.2, 57)):  # one in a thousand has more by chance
        assert (p_values < level).sum() <= most
    assert np.median(p_values) < 0.75  # it is not silent always


@pytest.mark.parametrize("name", [*NUMBERS, *CATEGORIES])
def test_fewer_independent_rows_are_less_significant(name):
    reference, current = drawn(name, 0), drawn(name, 1, 0.3)
    alone = DETECTORS[name].compare(reference, current)
    grouped = DETECTORS[name].compare(reference, current, reference_rows=60, current_rows=60)
    assert alone.p_value < grouped.p_value
    assert grouped.effect == pytest.approx(alone.effect, abs=0.05)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_never_change_are_no_drift(name):
    constant = np.full(100, 3.0)
    found = DETECTORS[name].compare(constant, np.full(50, 3.0))
    assert (found.statistic, found.effect, found.p_value) == (0, 0, 1)
    moved = DETECTORS[name].compare(constant, np.full(50, 4.0))
    assert moved.effect > DETECTORS[name].threshold
    assert moved.p_value < 1e-3


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1.0, 1e200, 1e307])
def test_huge_and_tiny_numbers_are_compared_like_others(name, scale):
    generator = np.random.default_rng(0)
    reference, current = np.sort(generator.normal(size=100)), generator.normal(1, size=80)
    found = DETECTORS[name].compare(reference * scale, current * scale)
    usual = DETECTORS[name].compare(reference, current)
    assert found.effect == pytest.approx(usual.effect, rel=1e-4)
    assert found.p_value == pytest.approx(usual.p_value, rel=1e-2)


@pytest.mark.parametrize("name", ["population-stability", "jensen-shannon"])
@pytest.mark.parametrize("common", [3.0, 0.0, -1e9])
def test_numbers_that_were_nearly_always_the_same_are_seen_to_rise(name, common):
    generator = np.random.default_rng(0)
    before = np.sort(np.append(np.full(475, common), common + generator.random(25)))
    after = np.append(np.full(200, common), common + generator.random(200) * (1 + abs(common)))
    assert DETECTORS[name].compare(*binned(before, before)).effect == 0
    for now in (after, np.full(400, common + 1), np.full(400, common - 1)):
        found = DETECTORS[name].compare(*binned(before, now))
        assert found.effect > DETECTORS[name].threshold
        assert found.p_value < 1e-6


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_category_that_is_new_or_gone_counts(name):
    before, after = np.array([300.0, 300, 0]), np.array([300.0, 0, 300])
    found = DETECTORS[name].compare(before, after)
    assert np.isfinite(found.effect)
    assert found.p_value < 1e-6
    one = DETECTORS[name].compare(np.array([300.0]), np.array([80.0]))
    assert (one.statistic, one.effect, one.p_value) == (0, 0, 1)


@pytest.mark.parametrize("name", CATEGORIES)
def test_many_rare_categories_raise_no_alarm(name):
    generator = np.random.default_rng(0)
    p_values = [
        DETECTORS[name]
        .compare(
            *(
                np.bincount(generator.integers(0, 400, 500), minlength=400).astype(float)
                for _ in range(2)
            )
        )
        .p_value
        for _ in range(100)
    ]
    assert (np.array(p_values) < 0.05).sum() <= 14


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_that_never_change_are_no_drift_and_another_width_is_refused(name):
    same = np.ones((60, 3))
    found = DETECTORS[name].compare(same, same)
    assert found.effect == 0
    assert found.p_value >= 0.5
    with pytest.raises(ValueError, match="vectors of 3 and of 2 components"):
        DETECTORS[name].compare(same, np.ones((60, 2)))


@pytest.mark.parametrize("name", VECTORS)
def test_one_vector_that_became_another_is_seen(name):
    found = DETECTORS[name].compare(np.ones((400, 4)), np.zeros((100, 4)))
    assert found.effect > DETECTORS[name].threshold
    assert found.p_value < 1e-6


def test_vectors_that_come_again_and_again_do_not_hide_the_others():
    generator = np.random.default_rng(0)
    often = np.zeros((1600, 4))
    sides = [np.concatenate([often, generator.normal(5 * n, size=(400, 4))]) for n in (0, 1)]
    assert DETECTORS["mmd"].compare(*sides).p_value < 0.01


@pytest.mark.parametrize("documents", [1, 2, 3])
def test_so_few_documents_that_half_of_them_is_one_tell_nothing_apart(documents):
    generator, groups = np.random.default_rng(0), np.arange(200) % documents
    sides = [generator.normal(n, size=(200, 4)) for n in (0, 3)]
    told = {"reference_groups": groups, "current_groups": groups}
    assert DETECTORS["domain-classifier"].compare(*sides, **told).p_value == 1


def test_a_few_documents_are_no_certainty():
    groups = np.arange(200) % 8
    sides = [np.full((200, 4), float(n)) for n in (0, 1)]
    told = {"reference_groups": groups, "current_groups": groups}
    found = DETECTORS["domain-classifier"].compare(*sides, **told)
    # Of the 70 ways to part eight documents evenly one looks like this.
    assert found.effect == 1
    assert found.p_value == pytest.approx(1 / 70)


def test_documents_of_unequal_sizes_are_told_apart_no_more_often_than_the_p_value_says():
    def side(generator, documents):
        groups = np.repeat(np.arange(documents), generator.integers(1, 30, documents))
        common = generator.normal(size=(documents, 6))[groups]
        return 0.6 * common + generator.normal(size=(len(groups), 6)), groups

    p_values = []
    for seed in range(400):
        generator = np.random.default_rng(seed)
        (reference, documents), (current, others) = side(generator, 12), side(generator, 10)
        told = {"reference_groups": documents, "current_groups": others}
        p_values.append(DETECTORS["domain-classifier"].compare(reference, current, **told).p_value)
    for level, most in ((0.01, 11), (0.05, 35)):  # one in a thousand has more by chance
        assert (np.array(p_values) < level).sum() <= most


@pytest.mark.parametrize("name", VECTORS)
def test_rows_that_are_alike_because_of_their_document_are_no_drift(name):
    generator, groups = np.random.default_rng(0), np.repeat(np.arange(30), 10)
    alarms = {"with": 0, "without": 0}
    for _ in range(40):
        sides = [
            generator.normal(size=(30, 8))[groups] + 0.5 * generator.normal(size=(300, 8))
            for _ in range(2)
        ]
        told = {"reference_groups": groups, "current_groups": groups}
        alarms["with"] += DETECTORS[name].compare(*sides, **told).p_value < 0.05
        alarms["without"] += DETECTORS[name].compare(*sides).p_value < 0.05
    assert alarms["with"] <= 6 < alarms["without"]


@pytest.mark.parametrize("name", TESTS)
def test_empty_samples_are_refused(name):
    empty = drawn(name, 0)[:0]
    with pytest.raises(ValueError, match="both samples need"):
        DETECTORS[name].compare(drawn(name, 0), empty)
    with pytest.raises(ValueError, match="both samples need"):
        DETECTORS[name].compare(empty, drawn(name, 0))


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_quiet_until_its_errors_rise(name):
    quiet = [watching(name).update(stream(name, seed)) for seed in range(20)]
    assert sum(map(bool, quiet)) <= 3  # of ddm one in twenty
    rising = [watching(name).update(stream(name, seed, 0.4)) for seed in range(20)]
    assert sum(any(500 <= alarm < 700 for alarm in alarms) for alarms in rising) >= 19


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_says_the_same_twice_and_in_parts(name):
    values = stream(name, 3, 0.4)
    whole = watching(name).update(values)
    assert watching(name).update(values) == whole
    parts = watching(name)
    first, rest = parts.update(values[:333]), parts.update(values[333:])
    assert first + [333 + alarm for alarm in rest] == whole


@pytest.mark.parametrize("name", STREAMS)
def test_an_empty_or_constant_stream_is_quiet(name):
    assert watching(name).update(np.zeros(0)) == []
    assert watching(name).update(np.zeros(500)) == []
