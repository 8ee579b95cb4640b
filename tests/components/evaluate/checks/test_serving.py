from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.checks.serving import median_bounds, serving
from components.evaluate.config import EvaluateConfig, ServingConfig

BOTH = {"champion": 0.8, "challenger": 0.9}


@pytest.mark.parametrize(("ms", "verdict"), [(1.0, "passed"), (1.4, "passed"), (2.0, "failed")])
def test_latency_is_a_ratio_of_batches(make_exam, ms, verdict):
    exam = make_exam(BOTH, milliseconds={"champion": 1.0, "challenger": ms})
    latency, size = serving(exam, EvaluateConfig())
    assert (latency.name, latency.verdict) == ("latency against champion", verdict)
    given = latency.model_dump()
    assert given["low"] <= given["measured"] <= given["high"]
    assert latency.measured == pytest.approx(ms, rel=0.1)
    assert size.verdict == "passed"


def test_timings_that_vary_too_much_decide_nothing(make_exam):
    exam = make_exam(BOTH)
    exam.milliseconds["challenger"] *= np.where(exam.batch % 5 < 2, 0.5, 3.0)
    exam.milliseconds["challenger"] *= np.where(exam.batch % 5 == 4, 0.6, 1.0)
    (latency, _) = serving(exam, EvaluateConfig())
    assert latency.verdict == "undecided"
    assert "vary too much" in latency.reason


def test_a_model_that_is_slow_on_long_contents_alone_is_too_slow(make_exam):
    exam = make_exam(BOTH)
    last = exam.batch[exam.of("test", "guard")].max()
    exam.milliseconds["challenger"][(exam.batch > 0.74 * last) & (exam.batch <= last)] *= 3
    latency, part, _ = serving(exam, EvaluateConfig())
    assert latency.verdict == "passed"
    assert (part.name[-21:], part.verdict) == ("part 4 of 4 by length", "failed")
    assert part.low is not None and part.low > 1.5
    exam.milliseconds["challenger"][exam.batch == last // 2] *= 3  # one slow batch is chance
    assert len(serving(exam, EvaluateConfig())) == 3


@pytest.mark.parametrize(("size", "verdict"), [(1_400_000, "passed"), (1_600_000, "failed")])
def test_size_is_a_ratio_of_what_is_served(make_exam, size, verdict):
    exam = make_exam(BOTH, size_bytes={"champion": 1_000_000, "challenger": size})
    found = serving(exam, EvaluateConfig())[1]
    assert (found.name, found.verdict) == ("size against champion", verdict)
    assert found.measured == size / 1_000_000


def test_absolute_limits_hold_for_a_first_champion_too(make_exam):
    limits = ServingConfig(max_latency_ms=0.5, max_size_mb=0.5, max_memory_mb=700)
    exam = make_exam({"challenger": 0.9}, memory_bytes={"challenger": 600_000_000})
    found = serving(exam, EvaluateConfig(serving=limits))
    assert {each.name: each.verdict for each in found} == {
        "latency": "failed",
        "size": "failed",
        "memory": "passed",
    }


def test_without_a_champion_and_limits_nothing_is_asked(make_exam):
    (found,) = serving(make_exam({"challenger": 0.9}), EvaluateConfig())
    assert found.verdict == "skipped"


def test_few_batches_time_nothing(make_exam):
    found = serving(make_exam(BOTH, rows={"test": 40}), EvaluateConfig())
    assert [each.verdict for each in found] == ["skipped", "passed"]


def test_the_bounds_of_a_median_cover_it():
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        median, low, high = median_bounds(draw.exponential(size=40))
        assert low <= median <= high
        inside += low <= np.log(2) <= high
    assert inside >= 390
