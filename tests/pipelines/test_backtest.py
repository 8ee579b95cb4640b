from __future__ import annotations

import pytest

from pipelines.backtest import HEADER, ORACLE, Point, compare, rows_of, to_html


def played(scores, retrains=(), after=None):
    """Return windows with scores before a retrain, and after it."""
    return [
        Point(
            window=f"w{number}",
            score=score,
            retrained=number in retrains,
            device_hours=0.5 * (number in retrains),
            score_after=(after or {}).get(number, score),
        )
        for number, score in enumerate(scores)
    ]


ALWAYS = played([None, 0.9, 0.6, 0.9, 0.9], retrains=(1, 2, 3, 4), after={2: 0.9})


def test_policies_are_compared_with_the_oracle():
    found = compare(
        {
            ORACLE: ALWAYS,
            "good": played([None, 0.9, 0.6, 0.9, 0.9], retrains=(2,), after={2: 0.9}),
            "late": played([None, 0.9, 0.6, 0.6, 0.9], retrains=(1, 3), after={3: 0.9}),
            "never": played([None, 0.9, 0.6, 0.6, 0.6]),
        }
    )
    assert found.changes == [2]
    oracle, good, late, never = found.summaries
    assert (oracle.retrains, oracle.device_hours, oracle.regret, oracle.saved) == (4, 2.0, 0, 0)
    assert (good.retrains, good.device_hours, good.saved) == (1, 0.5, 0.75)
    assert (good.delay_windows, good.missed, good.needless, good.regret) == (0, 0, 0, 0)
    assert (late.delay_windows, late.missed, late.needless) == (1, 0, 1)
    assert late.regret == pytest.approx(0.3 / 4)
    assert (never.delay_windows, never.missed, never.saved) == (None, 1, 1)
    assert never.regret == pytest.approx(0.6 / 4)


def test_changes_that_are_known_count_and_each_is_answered_before_the_next():
    found = compare(
        {ORACLE: ALWAYS, "one": played([None, 0.9, 0.9, 0.9, 0.9], retrains=(4,))}, changes=[1, 3]
    )
    (one,) = (each for each in found.summaries if each.policy == "one")
    assert (one.delay_windows, one.missed, one.needless) == (1, 1, 0)


def test_a_world_without_change_needs_no_retrain():
    calm = played([None, 0.9, 0.9], retrains=(1, 2))
    found = compare({ORACLE: calm, "one": played([None, 0.9, 0.9], retrains=(1,))})
    assert found.changes == []
    assert [each.needless for each in found.summaries] == [2, 1]


def test_the_table_and_the_page_show_every_policy():
    found = compare({ORACLE: ALWAYS, "never": played([None, 0.9, 0.6, 0.6, 0.6])})
    rows = rows_of(found)
    assert all(set(row) == set(HEADER) for row in rows)
    assert rows[1]["regret"] == "+15.00 points" and rows[1]["delay"] == "–"
    html = to_html("Policies of demo", found, "accuracy")
    assert "The world changed in: w2." in html
    assert html.count("never") >= 2 and "<svg" in html


def test_policies_over_other_windows_are_not_compared():
    with pytest.raises(ValueError, match="same windows"):
        compare({ORACLE: ALWAYS, "short": ALWAYS[:-1]})
    with pytest.raises(ValueError, match="'oracle'"):
        compare({"one": ALWAYS})
