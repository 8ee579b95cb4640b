"""Workers that share a study, and die."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState

from components.errors import Evicted, StoreError
from components.search.core import ATTEMPT, MOST_ATTEMPTS, name_of
from components.search.samplers import distributions_of
from components.studies import GIVEN_BACK, REASON, counted

WORKER = Path(__file__).with_name("searching_worker.py")
PATIENCE_S = 120
DATA = "d" * 64
SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


@pytest.fixture
def start_worker(toy, tmp_path):
    """Start a worker in a process of its own."""
    started = []

    def start(config, number="1") -> subprocess.Popen[str]:
        told = tmp_path / "config.json"
        told.write_text(config.to_json())
        process = subprocess.Popen(
            [sys.executable, WORKER, tmp_path / "objects", toy.base, toy.first, told, number],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def running_trial(study_of):
    """Wait until a trial of a study is in its second epoch."""

    def wait(config, process):
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            assert process.poll() is None, "it ended before it could be stopped"
            with suppress(StoreError, KeyError):
                for trial in counted(study_of(config)):
                    if trial.state == TrialState.RUNNING and trial.intermediate_values:
                        return trial
            time.sleep(0.05)
        pytest.fail("no trial began")

    return wait


@pytest.fixture
def endless(settings):
    """A search whose trials never end by themselves."""
    training = {"epochs": 1000, "patience_epochs": 1000}
    return settings(SPACE, trials=3, pruner="none", training=training)


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_tried_again(
    endless, look, study_of, start_worker, running_trial
):
    process = start_worker(endless)
    killed = running_trial(endless, process)
    process.kill()
    process.wait(PATIENCE_S)
    study = study_of(endless)
    assert [each.state for each in counted(study)] == [TrialState.RUNNING]

    # Carried on in the same study, but with trainings that come to an end.
    short = endless.model_copy(update={"epochs": 1})
    report = look(short, name=study.study_name, dead_after_s=0.5)
    assert (report.trials, report.trained) == (3, 3)
    trials = study_of(endless).get_trials()
    assert trials[killed.number].user_attrs[GIVEN_BACK]
    (again,) = [each for each in trials[1:] if each.params == killed.params]
    assert again.state == TrialState.COMPLETE


@pytest.mark.slow
def test_an_evicted_worker_gives_its_trial_back_at_once(
    endless, study_of, start_worker, running_trial
):
    process = start_worker(endless)
    stopped = running_trial(endless, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == Evicted.exit_code
    (waiting,) = counted(study_of(endless))
    assert waiting.state == TrialState.WAITING
    assert waiting.system_attrs["fixed_params"] == stopped.params


def test_values_whose_workers_die_each_time_are_given_up(settings, study_of, look, studies, toy):
    config = settings(SPACE, trials=2, training={"epochs": 1})
    assert config.search is not None
    name = name_of(DATA, "", "", "", toy.task, config)
    study = studies.open(name, "macro_f1", higher_is_better=True)
    space = distributions_of(config, config.search)
    study.enqueue_trial({"learning_rate": 1e-3}, {ATTEMPT: MOST_ATTEMPTS})
    study.ask(space)  # and nobody trains it
    report = look(config, dead_after_s=0.2)
    assert (report.trials, report.trained) == (2, 1)
    died, trained = counted(study_of(config))
    assert (died.state, trained.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert died.user_attrs[REASON] == f"its workers died, {MOST_ATTEMPTS} of {MOST_ATTEMPTS}"


@pytest.mark.slow
def test_workers_share_a_study(settings, study_of, start_worker):
    config = settings(SPACE, trials=8, training={"epochs": 2})
    workers = [start_worker(config, str(number)) for number in (1, 2)]
    shares = [int(worker.communicate(timeout=PATIENCE_S)[0]) for worker in workers]
    assert sum(shares) == 8 and min(shares) >= 1
    trials = counted(study_of(config))
    assert len(trials) == 8
    assert len({each.params["learning_rate"] for each in trials}) == 8
