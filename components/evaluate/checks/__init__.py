"""One file per check: from the exam and the config to what it found.

A check is a pure function, so that a verdict can be reached again from a recorded exam.
"""

from __future__ import annotations

from collections.abc import Callable

from components.evaluate.check import Check, skipped
from components.evaluate.checks.baselines import baselines
from components.evaluate.checks.calibration import calibration
from components.evaluate.checks.fairness import fairness
from components.evaluate.checks.floors import floors
from components.evaluate.checks.guarded import guarded
from components.evaluate.checks.holdout import holdout
from components.evaluate.checks.leak import leak
from components.evaluate.checks.loads import loads
from components.evaluate.checks.operating_point import operating_point
from components.evaluate.checks.overfitting import overfitting
from components.evaluate.checks.primary import primary
from components.evaluate.checks.robustness import robustness
from components.evaluate.checks.serving import serving
from components.evaluate.checks.slices import slices
from components.evaluate.checks.suspicious import suspicious
from components.evaluate.config import CheckName, EvaluateConfig
from components.evaluate.exam import Exam

CHECKS: dict[CheckName, Callable[[Exam, EvaluateConfig], list[Check]]] = {
    "primary": primary,
    "baselines": baselines,
    "guarded": guarded,
    "floors": floors,
    "slices": slices,
    "serving": serving,
    "leak": leak,
    "loads": loads,
    "calibration": calibration,
    "operating_point": operating_point,
    "robustness": robustness,
    "fairness": fairness,
    "holdout": holdout,
    "overfitting": overfitting,
    "suspicious": suspicious,
}
"""Name to check, in the order of a report. To add one: a file here, its line, its name in
``CheckName``, and its settings in ``EvaluateConfig``."""


def run_checks(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return what every check found; of a challenger without answers only ``loads`` is asked."""
    found = []
    for name, check in CHECKS.items():
        if exam.broken and name != "loads":
            results = [skipped(name, "the challenger gives no answers")]
        else:
            results = check(exam, config)
        required = name in config.blocking
        found += [each.model_copy(update={"required": required}) for each in results]
    return found
