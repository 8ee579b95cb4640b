from __future__ import annotations

import numpy as np
import pytest

from components.telling_rows import telling_rows


@pytest.fixture
def clusters():
    """Ten clusters of 50 unit vectors; rows of the even ones are answered with doubt."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(10, 16))
    cluster = np.repeat(np.arange(10), 50)
    vectors = centres[cluster] + 0.02 * draw.normal(size=(500, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sure = np.where(cluster % 2, 0.999, 0.55)
    return vectors.astype(np.float32), np.column_stack([sure, 1 - sure]), cluster


def test_rows_are_uncertain_and_different(clusters):
    vectors, answers, cluster = clusters
    chosen = telling_rows(vectors, answers, 5)
    assert set(cluster[chosen]) == {0, 2, 4, 6, 8}


def test_numbers_tell_nothing_of_doubt_and_rows_are_different(clusters):
    vectors, _, cluster = clusters
    chosen = telling_rows(vectors, np.zeros((500, 1)), 10)
    assert set(cluster[chosen]) == set(range(10))


def test_a_choice_is_repeatable_without_repetition_and_longer_ones_begin_alike(clusters):
    vectors, answers, _ = clusters
    chosen = telling_rows(vectors, answers, 100)
    assert len(set(chosen)) == 100
    assert (telling_rows(vectors, answers, 100) == chosen).all()
    assert (telling_rows(vectors, answers, 30) == chosen[:30]).all()


@pytest.mark.parametrize("count", [3, 4])
def test_of_few_rows_all_are_chosen(count):
    vectors = np.ones((3, 2), np.float32)
    assert telling_rows(vectors, np.full((3, 2), 0.5), count).tolist() == [0, 1, 2]


def test_rows_that_are_all_the_same_can_be_chosen():
    chosen = telling_rows(np.ones((20, 2), np.float32), np.full((20, 2), 0.5), 5)
    assert len(set(chosen.tolist())) == 5
