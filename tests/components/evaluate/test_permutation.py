from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hypergeom

from components.evaluate.permutation import slice_p_values
from components.evaluate.slices import Slice

ROWS = 400
EVERYWHERE = np.ones(ROWS, dtype=bool)
ALONE = [str(row) for row in range(ROWS)]


def slice_of(rows, name="slice"):
    return Slice(name, np.isin(np.arange(ROWS), rows), "column")


def test_of_one_slice_it_is_fishers_exact_test():
    errors = np.zeros(ROWS)
    errors[:12] = errors[200:240] = 1
    found = slice_p_values([slice_of(range(60))], errors, ALONE, EVERYWHERE, resamples=20_000)
    assert found[0] == pytest.approx(hypergeom.sf(11, ROWS, 52, 60), abs=0.01)


def test_of_several_slices_each_pays_for_the_others():
    errors = np.zeros(ROWS)
    errors[:14] = errors[200:240] = 1
    bad = slice_of(range(60))
    alone = slice_p_values([bad], errors, ALONE, EVERYWHERE)[0]
    others = [slice_of(range(start, start + 60)) for start in (60, 120, 260, 320)]
    among_others = slice_p_values([bad, *others], errors, ALONE, EVERYWHERE)
    assert alone < among_others[0] <= 5 * alone + 0.01
    twice = slice_p_values([bad, bad], errors, ALONE, EVERYWHERE)
    assert twice[0] == pytest.approx(alone, abs=0.02), "the same slice twice costs nothing"
    assert among_others[1:].min() > 0.5


def test_errors_of_a_group_move_together():
    groups = [str(row // 20) for row in range(ROWS)]
    errors = np.zeros(ROWS)
    errors[:20] = 1
    bad = slice_of(range(40))
    as_rows = slice_p_values([bad], errors, ALONE, EVERYWHERE)[0]
    as_groups = slice_p_values([bad], errors, groups, EVERYWHERE)[0]
    assert as_rows < 0.001
    assert as_groups == pytest.approx(2 / 20, abs=0.03), "one bad group of twenty"


def test_a_group_of_a_size_of_its_own_says_nothing():
    groups = ["large"] * 40 + ALONE[40:]
    errors = np.zeros(ROWS)
    errors[:40] = 1
    assert slice_p_values([slice_of(range(40))], errors, groups, EVERYWHERE)[0] == 1


def test_rows_elsewhere_do_not_count():
    errors = np.zeros(ROWS)
    errors[:10] = 1
    errors[200:] = 1
    among = np.arange(ROWS) < 200
    low = slice_p_values([slice_of(range(20))], errors, ALONE, among)[0]
    assert low < 0.001
    elsewhere = errors.copy()
    elsewhere[200:] = 0
    assert slice_p_values([slice_of(range(20))], elsewhere, ALONE, among)[0] == low


def test_equal_errors_and_no_slices_are_no_news():
    assert slice_p_values([slice_of(range(20))], np.ones(ROWS), ALONE, EVERYWHERE)[0] == 1
    assert len(slice_p_values([], np.ones(ROWS), ALONE, EVERYWHERE)) == 0
