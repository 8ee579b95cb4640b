from __future__ import annotations

from pathlib import Path
from typing import get_args

from components.evaluate import checks
from components.evaluate.checks import CHECKS, run_checks
from components.evaluate.config import BLOCKING, CheckName, EvaluateConfig

BETTER = {"champion": 0.8, "challenger": 0.9}


def test_every_check_has_a_name_a_file_and_a_function():
    assert set(CHECKS) == set(get_args(CheckName))
    files = {path.stem for path in Path(checks.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(CHECKS)
    assert {name: check.__name__ for name, check in CHECKS.items()} == {
        name: name for name in CHECKS
    }


def test_what_blocks_can_be_moved(make_exam):
    exam = make_exam(BETTER)
    usual = {each.check: each.required for each in run_checks(exam, EvaluateConfig())}
    assert {name for name, required in usual.items() if required} == BLOCKING
    config = EvaluateConfig(required=("calibration",), warn=("slices", "serving"))
    moved = {each.check: each.required for each in run_checks(exam, config)}
    assert {name for name in moved if moved[name] != usual[name]} == {
        "calibration",
        "slices",
        "serving",
    }


def test_of_a_broken_challenger_nothing_else_is_asked(make_exam):
    exam = make_exam({"champion": 0.8}, broken="the challenger does not load: oh")
    found = run_checks(exam, EvaluateConfig())
    assert {each.check: each.verdict for each in found} == {
        name: "failed" if name == "loads" else "skipped" for name in CHECKS
    }


def test_names_of_checks_are_unique(make_exam):
    config = EvaluateConfig(
        floors={"accuracy": 0.5, "macro_f1": 0.5}, guarded={"log_loss": 0.1, "brier": 0.1}
    )
    found = run_checks(make_exam(BETTER), config)
    assert len({each.name for each in found}) == len(found)
