from __future__ import annotations

import numpy as np
import pytest

from components.prepare.label_errors import likely_label_errors, out_of_fold


def clusters(rows, kinds, turned, seed=0):
    """Unit vectors in clusters, and labels of which a share is another's."""
    chance = np.random.default_rng(seed)
    true = chance.integers(kinds, size=rows)
    vectors = np.eye(kinds, 8)[true] + chance.normal(0, 0.25, (rows, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = chance.random(rows) < turned
    labels = np.where(wrong, (true + chance.integers(1, kinds, size=rows)) % kinds, true)
    return vectors.astype(np.float32), labels, wrong


@pytest.mark.parametrize("kinds", [2, 4])
def test_turned_labels_are_found_and_few_others(kinds):
    vectors, labels, wrong = clusters(600, kinds, 0.05)
    answers = out_of_fold(vectors, labels, np.arange(600))
    found = likely_label_errors(answers, labels)
    assert wrong[found].mean() > 0.8
    assert wrong[found].sum() > 0.8 * wrong.sum()
    assert wrong[found[0]]


def test_where_all_labels_are_right_almost_none_is_suspected():
    vectors, labels, _ = clusters(600, 3, 0.0)
    answers = out_of_fold(vectors, labels, np.arange(600))
    assert len(likely_label_errors(answers, labels)) <= 6


def test_no_row_is_answered_by_a_model_that_saw_its_group():
    chance = np.random.default_rng(0)
    # Nothing tells the labels but which of thirty groups a row is of.
    groups = np.repeat(np.arange(30), 10)
    labels = chance.integers(2, size=30)[groups]
    vectors = np.eye(30, dtype=np.float32)[groups]
    answers = out_of_fold(vectors, labels, groups)
    right = answers[np.arange(300), labels]
    assert (right > 0.6).mean() < 0.7
    torn = out_of_fold(vectors, labels, np.arange(300))
    assert (torn[np.arange(300), labels] > 0.6).all()


def test_rows_of_one_group_and_rare_labels_do_not_stop_it():
    vectors, labels, _ = clusters(50, 2, 0.0)
    one = out_of_fold(vectors, labels, np.zeros(50, dtype=np.int64))
    assert one.shape == (50, 2)
    rare = np.where(np.arange(50) == 0, 2, labels)
    answers = out_of_fold(vectors, rare, np.arange(50))
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)
    assert likely_label_errors(answers, rare).max(initial=0) < 50


def test_the_likeliest_comes_first():
    answers = np.array([[0.9, 0.1]] * 8 + [[0.1, 0.9]] * 8 + [[0.92, 0.08], [0.95, 0.05]])
    labels = np.array([0] * 8 + [1] * 10)
    assert likely_label_errors(answers, labels).tolist() == [17, 16]
