from __future__ import annotations

import pytest

from components.evaluate.checks.holdout import holdout
from components.evaluate.config import EvaluateConfig, HoldoutConfig

CONFIG = EvaluateConfig(holdout=HoldoutConfig(path="trusted.csv", sha256="0" * 64))
ROWS = {"test": 100, "holdout": 500}


@pytest.mark.parametrize(("challenger", "verdict"), [(0.85, "passed"), (0.7, "failed")])
def test_poisoned_labels_show_on_trusted_rows(make_exam, challenger, verdict):
    right = {"champion": 0.8, "challenger": {"test": 1.0, "holdout": challenger}}
    (found,) = holdout(make_exam(right, rows=ROWS), CONFIG)
    assert found.verdict == verdict
    assert found.name == "hold-out F1 against champion"


def test_without_a_file_or_a_champion_nothing_is_asked(make_exam):
    exam = make_exam({"challenger": 0.9, "champion": 0.8}, rows=ROWS)
    assert holdout(exam, EvaluateConfig())[0].verdict == "skipped"
    assert holdout(make_exam({"challenger": 0.9}, rows=ROWS), CONFIG)[0].verdict == "skipped"
