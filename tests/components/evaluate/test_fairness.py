from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.evaluate.fairness import fairness, together

YES = (1, "yes")


def rows_of(groups, chance=None):
    """Values, targets, decisions and documents of groups given as (rows, deserving, given to
    the deserving, given to others): shares, exact without a source of chance."""
    values, targets, decided = [], [], []
    for name, (rows, deserving, to_them, to_others) in groups.items():
        if chance is None:
            deserve = np.arange(rows) < round(rows * deserving)
            luck = np.concatenate(
                [
                    (np.arange(len(part)) + 0.5) / len(part)
                    for part in (deserve[deserve], deserve[~deserve])
                ]
            )
        else:
            deserve, luck = chance.random(rows) < deserving, chance.random(rows)
        values += [name] * rows
        targets.append(deserve.astype(int))
        decided.append((luck < np.where(deserve, to_them, to_others)).astype(int))
    documents = [str(each) for each in range(len(values))]
    return values, np.concatenate(targets), np.concatenate(decided), documents


def by_group(treatments):
    return {each.group: each for each in treatments}


def test_rates_ratios_and_gaps_by_hand():
    found = fairness(
        "sex", *rows_of({"a": (1000, 0.5, 0.9, 0.1), "b": (1000, 0.5, 0.6, 0.0)}), favourable=YES
    )
    a, b = (by_group(found.four_fifths)[name] for name in "ab")
    assert (a.rate.measured, b.rate.measured) == (0.5, 0.3)
    assert (a.value, b.value) == (1, pytest.approx(0.6))
    assert b.low < 0.6 < b.high < 0.8
    assert (a.standing, b.standing, b.reference) == ("fair", "unfair", "a")
    gap = by_group(found.equal_opportunity)["b"]
    assert gap.rate.measured == 0.6
    assert gap.rate.rows == 500
    assert gap.value == pytest.approx(0.3)
    assert 0.1 < gap.low < 0.3 < gap.high
    assert gap.standing == "unfair"
    assert together(found.four_fifths) == together(found.equal_opportunity) == "unfair"


def test_groups_that_are_treated_alike_are_fair():
    alike = (3000, 0.4, 0.9, 0.1)
    found = fairness("sex", *rows_of({"a": alike, "b": alike}), favourable=YES)
    assert together(found.four_fifths) == together(found.equal_opportunity) == "fair"


def test_groups_may_deserve_an_answer_to_different_degrees():
    groups = {"a": (2000, 0.6, 0.9, 0.1), "b": (2000, 0.3, 0.9, 0.1)}
    found = fairness("sex", *rows_of(groups), favourable=YES)
    assert together(found.four_fifths) == "unfair"
    assert together(found.equal_opportunity) == "fair"


def test_few_rows_leave_it_undecided_and_very_few_are_left_out():
    groups = {"a": (1000, 0.5, 0.8, 0.1), "b": (60, 0.5, 0.8, 0.1), "c": (20, 0.5, 0.0, 0.0)}
    found = fairness("sex", *rows_of(groups), favourable=YES)
    assert by_group(found.four_fifths)["b"].standing == "undecided"
    assert found.left_out == {"c": 20}
    assert "c" not in by_group(found.four_fifths)
    assert together(found.four_fifths) == "undecided"


def test_few_deserving_rows_are_no_yardstick_and_undecided():
    groups = {"a": (1000, 0.5, 0.8, 0.1), "b": (1000, 0.01, 1.0, 0.4)}
    found = fairness("sex", *rows_of(groups), favourable=YES)
    b = by_group(found.equal_opportunity)["b"]
    assert (b.rate.rows, b.reference, b.standing) == (10, "a", "undecided")


def test_a_group_that_never_gets_it_is_unfair_and_nobody_getting_it_is_undecided():
    groups = {"a": (500, 0.5, 0.8, 0.1), "b": (500, 0.5, 0.0, 0.0)}
    found = fairness("sex", *rows_of(groups), favourable=YES)
    b = by_group(found.four_fifths)["b"]
    assert (b.value, b.low, b.standing) == (0, 0, "unfair")
    nobody = fairness(
        "sex", *rows_of({"a": (500, 0.5, 0, 0), "b": (500, 0.5, 0, 0)}), favourable=YES
    )
    assert by_group(nobody.four_fifths)["a"].value is None
    assert together(nobody.four_fifths) == together(nobody.equal_opportunity) == "undecided"


def test_missing_values_are_a_group_and_an_abstention_is_no_favour():
    values = ["a"] * 100 + [None] * 50 + [float("nan")] * 40 + [pd.NA] * 10
    decided = np.array([1] * 100 + [-1] * 100)
    found = fairness(
        "sex", values, np.ones(200, int), decided, [str(row) for row in range(200)], favourable=YES
    )
    assert by_group(found.four_fifths)["is missing"].rate.rows == 100
    assert by_group(found.four_fifths)["is missing"].rate.measured == 0


def test_a_group_that_is_called_missing_is_none_of_rows_without_a_value():
    values = ["missing"] * 50 + [None] * 50 + ["x"] * 50
    truth, rows = np.ones(150, int), [str(row) for row in range(150)]
    found = by_group(fairness("sex", values, truth, truth, rows, favourable=YES).four_fifths)
    assert {name: each.rate.rows for name, each in found.items()} == {
        "missing": 50,
        "is missing": 50,
        "x": 50,
    }


def test_rows_of_one_document_count_for_less():
    values, targets, decided, documents = rows_of(
        {"a": (1000, 0.5, 0.9, 0.1), "b": (1000, 0.5, 0.7, 0.0)}
    )
    alone = fairness("sex", values, targets, decided, documents, favourable=YES)
    tens = [str(row // 10) for row in range(2000)]
    together_ = fairness("sex", values, targets, decided, tens, favourable=YES)
    narrow, wide = (by_group(each.four_fifths)["b"] for each in (alone, together_))
    assert narrow.value == wide.value
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert (narrow.standing, wide.standing) == ("unfair", "undecided")


@pytest.mark.slow
def test_a_group_is_called_unfair_or_fair_wrongly_no_more_often_than_stated():
    # Five groups that are exactly at both limits: neither fair nor unfair can be shown.
    chance = np.random.default_rng(0)
    unfair = fair = 0
    for _ in range(300):
        groups = {"a": (2000, 0.5, 0.8, 0.2)}
        groups |= {name: (400, 0.5, 0.7, 0.1) for name in "bcde"}
        found = fairness("sex", *rows_of(groups, chance), favourable=YES)
        others = [t for t in (*found.four_fifths, *found.equal_opportunity) if t.group != "a"]
        unfair += any(each.standing == "unfair" for each in others)
        fair += any(each.standing == "fair" for each in others)
    # Each question and side may err in 2.5 %: 15 of 300 for both questions together.
    assert unfair <= 26
    assert fair <= 26


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="of one length"):
        fairness("sex", ["a"], np.array([1, 0]), np.array([1]), ["d"], favourable=YES)


def test_nothing_to_look_at_is_undecided():
    found = fairness("sex", [], np.array([]), np.array([]), [], favourable=YES)
    assert found.four_fifths == []
    assert together(found.four_fifths) == "undecided"
