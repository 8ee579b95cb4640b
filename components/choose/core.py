"""Take the best trial of a study: ``finetune`` trains with its values."""

from __future__ import annotations

from typing import Any

import optuna

from components.errors import WorldError
from components.page import curve_plot, page, section, table, verdict
from components.settings import Section
from components.studies import CONFIG, METRIC, Trial, trials_of

__all__ = ["ChooseReport", "choose", "to_html"]


class ChooseReport(Section):
    """The trials of a search, the best first."""

    schema_version: int = 1
    study: str
    metric: str
    higher_is_better: bool
    trials: list[Trial]
    config: str
    """The section ``finetune`` with the best values, as JSON."""

    @property
    def best(self) -> Trial:
        """The trial that was chosen."""
        return self.trials[0]

    @property
    def headline(self) -> str:
        """The one thing to see."""
        values = ", ".join(f"{key}={shown(value)}" for key, value in self.best.values.items())
        name = self.metric.replace("_", " ")
        return (
            f"trial {self.best.number} of {len(self.trials)}: "
            f"valid {name} {self.best.score:.3f} with {values}"
        )


def choose(study: optuna.Study) -> ChooseReport:
    """Return the best trial of a study, and all others.

    Raises:
        WorldError: none came to an end.
    """
    trials = trials_of(study)
    if not trials or trials[0].state != "complete":
        raise WorldError(f"no trial of {len(trials)} in the study came to an end")
    best = study.get_trials(deepcopy=False)[trials[0].number]
    return ChooseReport(
        study=study.study_name,
        metric=study.user_attrs[METRIC],
        higher_is_better=study.direction == optuna.study.StudyDirection.MAXIMIZE,
        trials=trials,
        config=best.user_attrs[CONFIG],
    )


def to_html(report: ChooseReport) -> str:
    """Return the report as a page: the trials, and how the score rose."""
    name = report.metric.replace("_", " ")
    scored = sorted(
        (trial.number, trial.score) for trial in report.trials if trial.score is not None
    )
    scores = [score for _, score in scored]
    better = max if report.higher_is_better else min
    best = [better(scores[: count + 1]) for count in range(len(scores))]
    rows = [
        (
            str(trial.number),
            trial.state,
            "–" if trial.score is None else f"{trial.score:.4f}",
            "–" if trial.seconds is None else f"{trial.seconds:.1f}",
            *(shown(trial.values.get(key)) for key in report.best.values),
            trial.reason,
        )
        for trial in report.trials
    ]
    header = ("trial", "state", f"valid {name}", "seconds", *report.best.values, "why it failed")
    return page(
        "Search",
        verdict(report.headline, "good"),
        section(
            f"Validation {name} by trial",
            curve_plot({"best so far": best, "trial": scores}, across="trial"),
        ),
        section("Trials", table(header, rows)),
    )


def shown(value: Any) -> str:
    """Return a value with four digits at most."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
