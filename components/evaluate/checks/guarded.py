"""Is what the champion promised kept: other metrics now, and the primary one of before?"""

from __future__ import annotations

from components.evaluate.check import Check, of_difference, skipped, title_of
from components.evaluate.comparison import Difference, non_inferiority
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam


def guarded(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return a check for the earlier windows, and one for each guarded metric.

    Each must be shown not to be worse than the champion's by more than its margin.
    """
    if not exam.has_champion:
        return [skipped("guarded", "there is no champion")]
    checks = []
    earlier = exam.of("guard")
    if earlier.any():
        found = exam.differences("champion", earlier, [exam.metric], config)[exam.metric]
        checks.append(_guarded("guard", found, config.guard_margin, " on earlier windows", config))
    margins = config.margins(exam.kind, abstains=exam.abstains("champion"))
    if margins:
        test = exam.differences("champion", exam.of("test"), list(margins), config)
        checks += [
            _guarded("test", test[metric], margin, f" in {title_of(metric)}", config)
            for metric, margin in margins.items()
        ]
    return checks or [skipped("guarded", "no earlier rows and no guarded metric")]


def _guarded(
    rows: str, difference: Difference, margin: float, where: str, config: EvaluateConfig
) -> Check:
    words = {
        "passed": f"not worse than the champion{where}",
        "failed": f"worse than the champion{where}",
        "undecided": f"perhaps worse than the champion{where}",
    }
    name = f"{rows} {title_of(difference.metric)} against champion"
    outcome = non_inferiority(difference, margin)
    return of_difference(name, "guarded", difference, outcome, words, config, rows=rows)
