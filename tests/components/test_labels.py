from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from components.labels import Annotation, Labels, agreements, cohens_kappa, resolve
from components.store import LocalStore

NOON = datetime(2026, 1, 12, 12, tzinfo=UTC)


def words(*said):
    return [Annotation(row=row, window="w", annotator=who, label=label) for row, who, label in said]


@pytest.mark.parametrize(
    ("said", "labels", "counts"),
    [
        ([], {}, (0, 0, 0, 0)),
        ([("a", "ann", "good")], {"a": "good"}, (0, 0, 0, 0)),
        ([("a", "ann", "good")] * 3, {"a": "good"}, (2, 0, 0, 0)),
        ([("a", "ann", "good"), ("a", "ann", "bad")], {"a": "bad"}, (0, 1, 0, 0)),
        ([("a", "ann", "good"), ("a", "bob", "good")], {"a": "good"}, (0, 0, 0, 0)),
        ([("a", "ann", "good"), ("a", "bob", "bad")], {}, (0, 0, 0, 1)),
        (
            [("a", "ann", "good"), ("a", "bob", "bad"), ("a", "cyd", "bad")],
            {"a": "bad"},
            (0, 0, 1, 0),
        ),
        ([("a", "ann", "x"), ("a", "bob", "y"), ("a", "cyd", "z")], {}, (0, 0, 0, 1)),
        (
            [("a", "ann", "x"), ("a", "bob", "x"), ("a", "cyd", "y"), ("a", "dan", "y")],
            {},
            (0, 0, 0, 1),
        ),
        (
            [("a", "ann", "good"), ("a", "bob", "bad"), ("a", "bob", "good")],
            {"a": "good"},
            (0, 1, 0, 0),
        ),
    ],
)
def test_labels_that_come_twice_or_contradict_are_settled_by_one_rule(said, labels, counts):
    found = resolve(words(*said))
    assert found.labels == labels
    assert (found.repeated, found.changed, found.outvoted, len(found.conflicts)) == counts


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.sampled_from(["ann", "bob", "cyd"]), st.sampled_from("xy")
        )
    )
)
def test_each_word_is_counted_once_and_each_row_settled_or_listed(said):
    found = resolve(words(*said))
    last = {(row, who) for row, who, _ in said}
    assert found.repeated + found.changed + len(last) == len(said)
    rows = {row for row, _, _ in said}
    assert found.labels.keys() | {each.row for each in found.conflicts} == rows
    assert not found.labels.keys() & {each.row for each in found.conflicts}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1))
def test_kappa_is_that_of_scikit_learn(pairs):
    first, second = map(list, zip(*pairs, strict=True))
    ours = cohens_kappa(first, second)
    if ours is None:
        assert len({*first, *second}) == 1
    else:
        assert ours == pytest.approx(cohen_kappa_score(first, second))


def test_annotators_are_compared_in_pairs_on_the_rows_that_both_labelled():
    said = words(
        *(("a", "ann", "x"), ("b", "ann", "y"), ("c", "ann", "x")),
        *(("a", "bob", "x"), ("b", "bob", "x"), ("d", "bob", "y")),
        *(("e", "cyd", "y"),),
    )
    (found,) = agreements(said)
    assert (found.first, found.second, found.rows, found.agreed) == ("ann", "bob", 2, 0.5)
    assert found.kappa == 0
    assert agreements(words(("a", "ann", "x"))) == []


def test_imports_are_kept_one_after_another(tmp_path):
    labels = Labels(LocalStore(tmp_path), "projects/demo")
    assert labels.all() == [] and labels.rows_in("w") == 0
    first = words(("a", "ann", "x"), ("b", "ann", "y"))
    assert labels.add(first, "eve", NOON).number == 1
    assert labels.add(first, "eve", NOON).number == 2
    assert labels.all() == first * 2
    assert (labels.rows_in("w"), labels.rows_in("another")) == (2, 0)
    labels.add(words(("a", "bob", "y")), "eve", NOON)
    assert labels.resolved().labels == {"b": "y"}
    assert labels.rows_in("w") == 1


def test_imports_at_the_same_moment_are_all_kept(tmp_path):
    labels, start = Labels(LocalStore(tmp_path)), threading.Barrier(6)

    def add(number):
        start.wait(30)
        return labels.add(words((f"row-{number}", "ann", "x")), "eve", NOON).number

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(add, range(6))) == [1, 2, 3, 4, 5, 6]
    assert len(labels.resolved().labels) == 6
