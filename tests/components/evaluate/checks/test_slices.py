from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from components.evaluate.checks.slices import slices
from components.evaluate.config import EvaluateConfig, SlicesConfig


def countries(count):
    return {"country": np.where(np.arange(count) % 5 == 0, "fr", "de")}


@pytest.fixture
def collapsed(make_exam):
    """An exam whose challenger is better but wrong on so many of the rows of one country."""

    def make(share, rows=500):
        exam = make_exam(
            {"champion": 0.8, "challenger": 0.9}, rows={"test": rows}, columns=countries
        )
        draw = np.random.default_rng(1)
        bad = (exam.rows["country"] == "fr").to_numpy() & (draw.random(rows) < share)
        exam.decided["challenger"][bad] = 1 - exam.targets[bad]
        exam.errors["challenger"][bad] = 1
        return exam

    return make


CONFIG = EvaluateConfig(slices=SlicesConfig(columns=("country",), search=False))


def test_a_better_challenger_collapses_nowhere(collapsed):
    (found,) = slices(collapsed(0), CONFIG)
    assert found.verdict == "passed"
    assert {"country = fr", "country = de"} <= {part.name for part in found.parts}
    assert all(part.verdict == "passed" for part in found.parts)
    assert found.reason.startswith(f"none of {len(found.parts)} slices collapses")


def test_a_collapse_on_a_declared_column_is_seen(collapsed):
    (found,) = slices(collapsed(1), CONFIG)
    assert found.verdict == "failed"
    assert found.reason.startswith("the challenger collapses on country = fr: -0.")
    first = found.parts[0]
    assert (first.name, first.rows, first.challenger) == ("country = fr", 100, 0)
    assert (
        found.measured
        == first.measured
        == pytest.approx(0 - found.model_dump()["parts"][0]["champion"])
    )


def test_a_loss_that_may_be_chance_is_named_and_stops_nobody(collapsed):
    config = EvaluateConfig(slices=SlicesConfig(columns=("country",), search=False, min_rows=5))
    (found,) = slices(collapsed(0.35, rows=60), config)
    assert (found.verdict, found.parts[0].verdict) == ("passed", "undecided")
    assert "perhaps by chance" in found.reason


def test_a_collapse_that_no_column_tells_of_is_found(make_exam):
    exam = make_exam({"champion": 0.8, "challenger": 0.95}, rows={"test": 2000})
    draw = np.random.default_rng(2)
    vectors = draw.normal(size=(2000, 8)).astype(np.float32)
    there = vectors[:, 0] > 1.3
    exam.decided["challenger"][there] = 1 - exam.targets[there]
    exam.errors["challenger"][there] = 1
    vectors[:, 0] += 4 * there
    exam = dataclasses.replace(exam, vectors=vectors)
    (found,) = slices(exam, EvaluateConfig())
    assert found.verdict == "failed"
    assert found.parts[0].name.endswith("(found)")
    (blind,) = slices(exam, EvaluateConfig(slices=SlicesConfig(search=False)))
    assert blind.verdict == "passed"


def test_the_margin_says_what_a_collapse_is(collapsed):
    settings = CONFIG.slices.model_copy(update={"margin": 0.95})
    (found,) = slices(collapsed(1), CONFIG.model_copy(update={"slices": settings}))
    assert found.verdict == "passed"


def test_equal_models_are_seldom_said_to_collapse(make_exam):
    verdicts = []
    for seed in range(40):
        exam = make_exam(
            {"champion": 0.8, "challenger": 0.8}, rows={"test": 600}, columns=countries, seed=seed
        )
        (found,) = slices(exam, CONFIG)
        verdicts.append(found.verdict)
    assert verdicts.count("failed") <= 4


def test_of_many_slices_one_looks_bad_by_chance(make_exam):
    exam = make_exam({"champion": 1.0, "challenger": 1.0}, rows={"test": 500}, columns=countries)
    there = np.random.default_rng(0).permutation(np.flatnonzero(exam.rows["country"] == "fr"))
    for who, wrong in (("challenger", there[:34]), ("champion", there[34:54])):
        exam.decided[who][wrong] = 1 - exam.targets[wrong]
        exam.errors[who][wrong] = 1
    (found,) = slices(exam, CONFIG)
    worst = next(part for part in found.parts if part.name == "country = fr")
    assert worst.high is not None and worst.high < 0  # by itself it would be shown
    assert (found.verdict, worst.verdict, worst.measured) == ("passed", "undecided", -0.14)


def test_few_rows_are_no_slice(make_exam):
    exam = make_exam({"champion": 0.8, "challenger": 0.9}, rows={"test": 60})
    (found,) = slices(exam, EvaluateConfig(slices=SlicesConfig(min_rows=55)))
    assert found.verdict == "skipped"
    (found,) = slices(make_exam({"challenger": 0.9}), EvaluateConfig())
    assert found.verdict == "skipped"
