from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from components.choose.core import choose, to_html
from components.errors import WorldError
from components.store import LocalStore
from components.studies import CONFIG, REASON, Studies

SPACE = {
    "learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
    "schedule.shape": optuna.distributions.CategoricalDistribution(["cosine", "linear"]),
}


@pytest.fixture(params=[True, False], ids=["higher", "lower"])
def study(request, tmp_path):
    """A study without trials, by a score that is good when it is high, or low."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies = Studies(LocalStore(tmp_path))
    return studies.open("a", "macro_f1", higher_is_better=request.param)


def add(study, score, **values):
    study.enqueue_trial({"schedule.shape": "linear", **values})
    trial = study.ask(SPACE)
    trial.set_user_attr(CONFIG, f'{{"number":{trial.number}}}')
    study.tell(trial, score)


def test_the_best_trial_is_chosen_and_all_are_shown(study):
    add(study, 0.7, learning_rate=1e-4)
    add(study, 0.9, learning_rate=2.123456e-4)
    add(study, 0.5, learning_rate=3e-4)
    failed = study.ask(SPACE)
    failed.set_user_attr(REASON, "out of <memory>")
    study.tell(failed, state=TrialState.FAIL)
    report = choose(study)
    best = 1 if report.higher_is_better else 2
    assert report.best.number == best
    assert report.config == f'{{"number":{best}}}'
    assert [each.state for each in report.trials] == ["complete"] * 3 + ["failed"]
    assert report.headline == (
        "trial 1 of 4: valid macro f1 0.900 with learning_rate=0.0002123, schedule.shape=linear"
        if report.higher_is_better
        else "trial 2 of 4: valid macro f1 0.500 with learning_rate=0.0003, schedule.shape=linear"
    )
    page = to_html(report)
    assert "Validation macro f1 by trial" in page and "best so far" in page and "trial 1" in page
    assert "out of &lt;memory&gt;" in page
    for trial in report.trials:
        assert f"{trial.values['learning_rate']:.4g}" in page


def test_one_trial_is_enough_for_a_page(study):
    add(study, 0.7, learning_rate=1e-4)
    assert "<svg" in to_html(choose(study))


def test_a_study_in_which_none_came_to_an_end_has_no_best(study):
    with pytest.raises(WorldError, match="no trial of 0 in the study came to an end"):
        choose(study)
    study.tell(study.ask(SPACE), state=TrialState.FAIL)
    with pytest.raises(WorldError, match="no trial of 1 in the study came to an end"):
        choose(study)
