"""Are declared columns watched as what they are, whatever lies in them?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from components.declared_columns import (
    MAX_KINDS,
    OTHER,
    as_known,
    common_kinds,
    numbers_in,
    watched_kinds,
    watched_numbers,
)


def test_columns_are_watched_by_their_kind():
    frame = pd.DataFrame({"country": ["de", None, "日本"], "price": [1.0, np.nan, 3.0]})
    assert watched_kinds(frame, ["country", "price"]) == {
        "column country": ["de", "(missing)", "日本"]
    }
    assert list(watched_numbers(frame, ["country", "price"])) == ["column price"]


def test_what_is_no_number_is_missing():
    found = numbers_in(pd.Series(["1", "1e3", "-0", "inf", "x", None]))
    assert found.tolist()[:3] == [1.0, 1000.0, 0.0]
    assert found.isna().tolist() == [False, False, False, True, True, True]


def test_names_are_no_kinds():
    values = [f"customer {number}" for number in range(1000)] + ["often"] * 50
    counted = common_kinds(values)
    assert len(set(counted)) == MAX_KINDS + 1
    assert counted[-1] == "often"
    known = {"often": 50, OTHER: 10}
    assert as_known(["often", "never seen"], known) == ["often", OTHER]


def test_a_few_kinds_stay_as_they_are_and_a_new_one_shows():
    assert common_kinds(["a", "b"]) == ["a", "b"]
    assert as_known(["a", "new"], {"a": 1}) == ["a", "new"]
