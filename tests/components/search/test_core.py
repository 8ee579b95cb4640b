from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import TrialState

from components.errors import WorldError
from components.search.core import name_of, score_of
from components.store import LocalStore
from components.studies import CONFIG, Studies, counted, trials_of
from components.tasks.text_classification import TextClassification

RATES = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "epochs": {"choices": [1, 2]}}


@pytest.mark.parametrize(("sampler", "pruner"), [("tpe", "median"), ("random", "hyperband")])
def test_a_search_tries_values_and_carries_on(sampler, pruner, settings, look, study_of, log):
    config = settings(RATES, sampler=sampler, pruner=pruner, trials=3)
    first = look(config, log=log)
    assert (first.trials, first.trained) == (3, 3)
    assert log.finished[-1] == (3, 3)
    assert first.best.state == "complete"
    assert first.headline.startswith("3 trials, 3 of them now; best valid macro f1 ")
    trials = trials_of(study_of(config))
    assert first.best == trials[0]
    scores = [each.score for each in trials if each.score is not None]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert {each.values["epochs"] for each in trials} <= {1, 2}
    rates = {each.values["learning_rate"] for each in trials}
    assert len(rates) == 3
    assert all(isinstance(rate, float) and 1e-4 <= rate <= 1e-2 for rate in rates)

    more = settings(RATES, sampler=sampler, pruner=pruner, trials=4)
    second = look(more)
    assert (second.study, second.trials, second.trained) == (first.study, 4, 1)
    assert look(more).trained == 0


def test_a_search_alone_is_the_same_each_time(settings, look, tmp_path):
    config = settings(RATES, trials=3)
    found = [look(config, place=Studies(LocalStore(tmp_path / name))).best for name in "ab"]
    assert found[0].model_copy(update={"seconds": 0}) == found[1].model_copy(update={"seconds": 0})


def test_the_best_trial_is_what_finetune_makes_of_its_settings(
    toy, settings, look, study_of, tmp_path
):
    from components.finetune.core import FinetuneConfig, finetune
    from components.finetune.history import Silent

    config = settings(RATES, trials=2)
    best = look(config).best
    kept = study_of(config).get_trials()[best.number].user_attrs[CONFIG]
    chosen = FinetuneConfig.from_json(kept)
    assert chosen.search is None
    assert {key: chosen.value_at(key) for key in best.values} == best.values
    report = finetune(
        toy.first, toy.start, None, tmp_path / "bundle", toy.task, chosen, {}, Silent()
    )
    by_epoch = [report.start_scores, *(epoch.scores for epoch in report.epochs)]
    assert by_epoch[report.best_epoch]["macro_f1"] == best.score


def test_a_training_that_only_spoils_scores_as_its_start(toy, toy_champion, settings):
    from components.finetune.core import choose, train
    from components.finetune.history import Silent

    config = settings(
        RATES, training={"learning_rate": 0.5, "head_learning_rate": 0.5, "epochs": 1}
    )
    bases = [toy.start.base]
    start = choose(toy.second, bases, toy_champion, toy.task, config, Silent())
    trained = train(toy.second, start, toy_champion, toy.task, config, Silent(), lambda name: None)
    history = trained.outcome.history
    assert history.best_epoch == 0
    assert history.valid[-1]["macro_f1"] < history.start["macro_f1"]
    assert score_of(trained, "macro_f1") == history.start["macro_f1"]


def test_a_grid_tries_every_combination_once(settings, look, study_of):
    space = {"learning_rate": {"choices": ["1e-4", 2e-3]}, "epochs": {"choices": [1, 2]}}
    config = settings(space, sampler="grid", trials=9)
    report = look(config)
    assert (report.trials, report.trained) == (4, 4)
    tried = [tuple(each.values.values()) for each in trials_of(study_of(config))]
    assert sorted(tried) == [(1e-4, 1), (1e-4, 2), (2e-3, 1), (2e-3, 2)]


def test_values_that_were_tried_are_not_trained_again(settings, look, study_of):
    config = settings({"epochs": {"choices": [1]}}, sampler="random", trials=3)
    report = look(config)
    assert (report.trials, report.trained) == (3, 1)
    assert len({each.score for each in trials_of(study_of(config))}) == 1


def test_a_trial_that_promises_nothing_is_pruned(settings, look, studies, study_of, toy):
    rates = [2e-3, 2.1e-3, 2.2e-3, 2.3e-3, 1e-9]
    config = settings(
        {"learning_rate": {"choices": rates}, "head_learning_rate": {"choices": [2e-2, 1e-9]}},
        sampler="random",
        trials=5,
        training={"patience_epochs": 9},
    )
    study = studies.open(
        name_of("d" * 64, "", "", "", toy.task, config), "macro_f1", higher_is_better=True
    )
    for rate in rates:
        study.enqueue_trial(
            {"learning_rate": rate, "head_learning_rate": 2e-2 if rate > 1e-9 else 1e-9}
        )
    look(config)
    trials = counted(study_of(config))
    assert [each.state for each in trials] == [TrialState.COMPLETE] * 4 + [TrialState.PRUNED]
    assert len(trials[0].intermediate_values) == config.epochs
    assert len(trials[-1].intermediate_values) < config.epochs


def test_a_failed_trial_is_recorded_and_ends_nothing(settings, look, study_of):
    space = {"distill.teacher": {"choices": ["champion", "/nowhere/at/all"]}}
    config = settings(space, sampler="grid", trials=2, training={"method": "distill"})
    report = look(config)
    assert (report.trials, report.best.values) == (2, {"distill.teacher": "champion"})
    failed = trials_of(study_of(config))[-1]
    assert failed.state == "failed"
    assert "there is nothing at /nowhere/at/all" in failed.reason


def test_a_search_in_which_all_fail_says_why(settings, look):
    space = {"distill.teacher": {"choices": ["/nowhere/at/all"]}}
    config = settings(space, sampler="grid", training={"method": "distill"})
    with pytest.raises(WorldError, match=r"no trial of 1 came to an end.*nothing at /nowhere"):
        look(config)
    with pytest.raises(WorldError, match="no trial of 1 came to an end"):
        look(config)


def test_a_study_is_named_by_all_that_its_scores_depend_on(settings, toy):
    def named(changed: str = "", task: TextClassification = toy.task, **more: Any) -> str:
        known = {part: part for part in ("data", "bases", "champion", "code")}
        given = known | ({changed: "other"} if changed else {})
        return name_of(**given, task=task, config=settings(RATES, **{"trials": 3, **more}))

    assert named() == named(trials=30, parallel=4)
    others = [
        named(pruner="none"),
        named(training={"dropout": 0.2}),
        named(task=toy.task.model_copy(update={"max_tokens": 12})),
        *map(named, ("data", "bases", "champion", "code")),
    ]
    assert len({named(), *others}) == 8
