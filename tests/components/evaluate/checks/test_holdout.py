from __future__ import annotations

import re

import pytest

from components.evaluate.checks.holdout import holdout
from components.evaluate.config import EvaluateConfig, HoldoutConfig

TRUSTED = HoldoutConfig(path="trusted.csv", sha256="0" * 64)
CONFIG = EvaluateConfig(holdout=TRUSTED)
ROWS = {"test": 100, "holdout": 500}


@pytest.mark.parametrize(("challenger", "verdict"), [(0.85, "passed"), (0.7, "failed")])
def test_poisoned_labels_show_on_trusted_rows(make_exam, challenger, verdict):
    right = {"champion": 0.8, "challenger": {"test": 1.0, "holdout": challenger}}
    (found,) = holdout(make_exam(right, rows=ROWS), CONFIG)
    assert found.verdict == verdict
    assert found.name == "hold-out F1 against champion"


def test_trusted_rows_have_a_margin_of_their_own(make_exam):
    exam = make_exam({"champion": 0.8, "challenger": 0.7}, rows=ROWS)
    for margin, guard_margin, verdict in ((0.03, 0.5, "failed"), (0.5, 0.03, "passed")):
        trusted = TRUSTED.model_copy(update={"margin": margin})
        (found,) = holdout(exam, EvaluateConfig(holdout=trusted, guard_margin=guard_margin))
        assert (found.verdict, found.threshold) == (verdict, -margin)


def test_more_trusted_rows_are_no_test_rows(make_exam):
    exam = make_exam({"champion": 0.8, "challenger": 0.8}, rows={"test": 100, "holdout": 20})
    (found,) = holdout(exam, CONFIG)
    assert (found.verdict, found.more_rows) == ("undecided", None)
    assert re.search(r"; about [\d,]+ more trusted rows would decide$", found.reason)


@pytest.mark.parametrize(("floor", "verdict"), [(0.75, "passed"), (0.95, "failed")])
def test_a_first_champion_must_reach_the_floor_on_trusted_rows(make_exam, floor, verdict):
    config = EvaluateConfig(holdout=TRUSTED.model_copy(update={"floor": floor}))
    (found,) = holdout(make_exam({"challenger": 0.85}, rows=ROWS), config)
    assert (found.name, found.verdict) == (f"holdout F1 of at least {floor}", verdict)


def test_a_file_of_other_labels_shows_nothing(make_exam):
    exam = make_exam({"challenger": 0.9, "champion": 0.8}, rows={"test": 100})
    (found,) = holdout(exam, CONFIG)
    assert found.verdict == "undecided"


def test_without_a_file_or_a_champion_nothing_is_asked(make_exam):
    exam = make_exam({"challenger": 0.9, "champion": 0.8}, rows=ROWS)
    assert holdout(exam, EvaluateConfig())[0].verdict == "skipped"
    assert holdout(make_exam({"challenger": 0.9}, rows=ROWS), CONFIG)[0].verdict == "skipped"
