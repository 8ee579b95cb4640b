"""Is a first champion worth having?

It must beat the naive answer (the majority class, the mean), and must not be shown to be
worse than the simplest model on the untouched base's embeddings: a base that was not
fine-tuned answers nothing by itself, so that linear probe stands for it.
"""

from __future__ import annotations

from components.evaluate.check import Check, of_difference, skipped, title_of
from components.evaluate.checks.primary import better
from components.evaluate.comparison import superiority
from components.evaluate.config import EvaluateConfig
from components.evaluate.exam import Exam


def baselines(exam: Exam, config: EvaluateConfig) -> list[Check]:
    """Return one check for each baseline."""
    if exam.has_champion:
        return [skipped("baselines", "there is a champion to compare with")]
    return [
        better(exam, config, "naive", exam.opponents["naive"], "baselines"),
        _not_worse(exam, config, "probe"),
    ]


def _not_worse(exam: Exam, config: EvaluateConfig, model: str) -> Check:
    opponent = exam.opponents[model]
    difference = exam.differences(model, exam.of("test"), [exam.metric], config)[exam.metric]
    outcome = superiority(difference)
    words = {
        "passed": f"not worse than {opponent}",
        "failed": f"worse than {opponent}",
        "undecided": f"not worse than {opponent}",
    }
    name = f"test {title_of(exam.metric)} against {opponent}"
    found = of_difference(name, "baselines", difference, outcome, words, config)
    enough = difference.groups >= config.min_groups
    if enough and found.verdict == "undecided":
        return found.model_copy(update={"verdict": "passed", "more_rows": None})
    return found
