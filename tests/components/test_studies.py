from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.trial import TrialState

from components.errors import ConfigError, StoreError
from components.store import LocalStore
from components.studies import (
    GIVEN_BACK,
    METRIC,
    REASON,
    StoreJournal,
    Studies,
    counted,
    trials_of,
)


def test_entries_of_a_journal_are_in_one_order_for_all(store):
    mine, yours = StoreJournal(store, "studies/x"), StoreJournal(store, "studies/x")
    assert list(mine.read_logs(0)) == []
    mine.append_logs([{"n": 0}, {"n": 1}])
    yours.append_logs([{"n": 2}])
    mine.append_logs([{"n": 3}])
    entries = [{"n": number} for number in range(4)]
    assert list(mine.read_logs(0)) == list(yours.read_logs(0)) == entries
    assert list(yours.read_logs(3)) == entries[3:]
    assert len(store.list("studies/x/")) == 4


def test_no_entry_is_lost_when_many_write_at_once(store):
    def write(worker: int) -> None:
        journal = StoreJournal(store, "studies/x")
        for number in range(10):
            journal.append_logs([{"worker": worker, "number": number}])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    entries = list(StoreJournal(store, "studies/x").read_logs(0))
    assert sorted((each["worker"], each["number"]) for each in entries) == [
        (worker, number) for worker in range(4) for number in range(10)
    ]


@pytest.fixture(params=["store", "database"])
def studies(request, tmp_path):
    """An empty place of studies, of each kind."""
    url = f"sqlite:///{tmp_path}/studies.db" if request.param == "database" else ""
    return Studies(LocalStore(tmp_path / "objects"), url)


def test_a_study_is_found_again_by_its_name(studies):
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study = studies.open("a", "accuracy", higher_is_better=True)
    trial = study.ask(space)
    study.tell(trial, 0.5)
    again = studies.open("a", "accuracy", higher_is_better=True)
    assert again.user_attrs[METRIC] == "accuracy"
    assert [each.value for each in again.get_trials()] == [0.5]
    assert [each.params for each in studies.load("a").get_trials()] == [trial.params]
    assert studies.open("b", "accuracy", higher_is_better=True).get_trials() == []


def test_a_study_that_is_not_there_is_an_error_of_the_world(studies):
    with pytest.raises(StoreError, match=r"there is no study nothing; .*TOKIWA_STUDIES"):
        studies.load("nothing")


@pytest.mark.parametrize("url", ["nonsense", "nosuch://host/x", "postgresql+nosuch://host/x"])
def test_an_address_of_no_database_is_the_users_mistake(url, tmp_path):
    with pytest.raises(ConfigError, match="TOKIWA_STUDIES should be the address of a database"):
        Studies(LocalStore(tmp_path), url).load("a")


def test_a_database_out_of_reach_is_an_error_of_the_world(tmp_path):
    url = f"sqlite:///{tmp_path}/no/such/folder/studies.db"
    with pytest.raises(StoreError, match="cannot open the studies at sqlite:"):
        Studies(LocalStore(tmp_path), url).load("a")


def test_trials_come_best_first(studies):
    study = studies.open("a", "log_loss", higher_is_better=False)
    scores = [0.5, 0.2, 0.9]
    for score in scores:
        study.tell(study.ask(), score)
    pruned, failed, lost, _running = (study.ask() for _ in range(4))
    pruned.report(0.1, 1)
    study.tell(pruned, state=TrialState.PRUNED)
    failed.set_user_attr(REASON, "out of memory")
    study.tell(failed, state=TrialState.FAIL)
    lost.set_user_attr(GIVEN_BACK, True)
    study.tell(lost, state=TrialState.FAIL)
    study.enqueue_trial({})
    shown = trials_of(study)
    assert [each.state for each in shown] == ["complete"] * 3 + ["pruned", "failed", "running"]
    assert [each.score for each in shown] == [0.2, 0.5, 0.9, 0.1, None, None]
    assert [each.number for each in shown] == [1, 0, 2, 3, 4, 6]
    assert shown[4].reason == "out of memory"
    assert json.loads(shown[0].to_json())["values"] == {}
    assert len(counted(study)) == 7, "a waiting one counts, one that was given back does not"


def test_signs_of_life_grow_over_each_other(studies):
    study = studies.open("a", "accuracy", higher_is_better=True)
    trial = study.ask()
    frozen = study.get_trials()[0]
    assert studies.beats(study, frozen) == 0
    before = set(studies.store.list("studies/"))
    for beats in (1, 2, 3):
        studies.beat(study, trial, beats)
    assert studies.beats(study, study.get_trials()[0]) == 3
    more = set(studies.store.list("studies/")) - before
    assert len(more) == (0 if studies.url else 1), "no entry of the journal for each"
