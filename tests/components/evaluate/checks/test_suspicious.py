from __future__ import annotations

import dataclasses

import pytest

from components.evaluate.checks.suspicious import suspicious
from components.evaluate.config import EvaluateConfig


@pytest.mark.parametrize(
    ("right", "rows", "verdict"),
    [(1.0, 400, "failed"), (1.0, 200, "passed"), (0.98, 2000, "passed"), (0.999, 4000, "failed")],
)
def test_hardly_an_error_in_many_rows_is_suspicious(make_exam, right, rows, verdict):
    (found,) = suspicious(make_exam({"challenger": right}, rows={"test": rows}), EvaluateConfig())
    assert found.verdict == verdict
    assert found.low is not None
    assert found.measured is not None
    assert found.low < found.measured


def test_rows_of_one_group_count_once(make_exam):
    exam = make_exam({"challenger": 1.0}, rows={"test": 400})
    grouped = exam.rows.assign(group=[f"g{number // 4}" for number in range(400)])
    (found,) = suspicious(dataclasses.replace(exam, rows=grouped), EvaluateConfig())
    assert found.verdict == "passed"
