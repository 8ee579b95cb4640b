from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.checks.robustness import robustness
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Perturbed


def kept(rows=200, **shares):
    draw = np.random.default_rng(0)
    groups = np.array([f"g{number}" for number in range(rows)], dtype=object)
    return Perturbed(groups, {who: draw.random(rows) < share for who, share in shares.items()})


@pytest.mark.parametrize(
    ("challenger", "verdict"), [(0.99, "passed"), (0.6, "failed"), (0.9, "undecided")]
)
def test_as_many_answers_stay_as_of_the_champions(make_exam, challenger, verdict):
    right = {"champion": 0.8, "challenger": 0.9}
    perturbed = {
        "typos": kept(champion=0.95, challenger=challenger),
        "case": kept(champion=1, challenger=1),
        "numbers": kept(0, champion=1, challenger=1),
    }
    (found,) = robustness(make_exam(right, perturbed=perturbed), EvaluateConfig())
    assert found.verdict == verdict
    assert {part.name for part in found.parts} == {"typos", "case"}
    assert found.reason.endswith("; too few rows to look at: numbers")
    worst = next(part for part in found.parts if part.name == "typos")
    assert worst.challenger == pytest.approx(challenger, abs=0.06)
    assert worst.champion == pytest.approx(0.95, abs=0.05)


@pytest.mark.parametrize(
    ("share", "rows", "verdict"),
    [(0.9, 200, "passed"), (0.5, 200, "failed"), (0.75, 30, "undecided")],
)
def test_of_a_first_champion_a_share_must_stay(make_exam, share, rows, verdict):
    perturbed = {"typos": kept(rows, challenger=share)}
    (found,) = robustness(make_exam({"challenger": 0.9}, perturbed=perturbed), EvaluateConfig())
    assert (found.verdict, found.threshold) == (verdict, 0.8)


def test_of_many_ways_to_change_contents_one_looks_bad_by_chance(make_exam):
    steady = kept(100, champion=1, challenger=1)
    moved = kept(100, champion=1, challenger=1)
    moved.kept["challenger"][:12] = False
    for others, verdict in ((0, "failed"), (4, "undecided")):
        perturbed = {"typos": moved} | {f"other {number}": steady for number in range(others)}
        exam = make_exam({"champion": 0.8, "challenger": 0.8}, perturbed=perturbed)
        (found,) = robustness(exam, EvaluateConfig())
        assert found.verdict == verdict


@pytest.mark.parametrize("models", [("challenger",), ("challenger", "champion")])
def test_few_changed_rows_show_nothing(make_exam, models):
    few = {"numbers": kept(2, **dict.fromkeys(models, 1))}
    exam = make_exam(dict.fromkeys(models, 0.9), perturbed=few)
    (found,) = robustness(exam, EvaluateConfig())
    assert (found.verdict, found.parts) == ("undecided", [])
    assert "not enough data for robustness" in found.reason


def test_where_nothing_was_changed_nothing_is_asked(make_exam):
    (found,) = robustness(make_exam({"challenger": 0.9}), EvaluateConfig())
    assert found.verdict == "skipped"
