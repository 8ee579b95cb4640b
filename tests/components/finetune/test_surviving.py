from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.errors import Evicted
from components.finetune.checkpoint import PLACES, Checkpoints, State
from components.store import LocalStore

SCRIPT = Path(__file__).with_name("killed_training.py")
INTERVAL = 4


@pytest.fixture
def killed(toy, tmp_path):
    """Train in children killed at these steps; return their steps and the weights' bytes."""

    def run(name, method, deaths):
        place = tmp_path / name
        place.mkdir()
        steps = ",".join(map(str, deaths))
        done = subprocess.run(
            [sys.executable, SCRIPT, toy.base, toy.first, place, method, str(INTERVAL), steps],
            capture_output=True,
            text=True,
            timeout=280,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        taken = json.loads(done.stdout.splitlines()[-1])
        return taken, (place / "bundle" / "model.safetensors").read_bytes()

    return run


def check(taken, deaths):
    """Each child goes on at the last checkpoint before its predecessor's death.

    Death comes when a step is done, before its checkpoint would be written.
    """
    for child, death in zip(taken[1:], deaths, strict=True):
        assert child[0] == (death - 1) // INTERVAL * INTERVAL + 1


@pytest.mark.parametrize(
    ("method", "deaths"),
    [
        pytest.param("full", [2, INTERVAL + 1, 2 * INTERVAL, -1], marks=pytest.mark.slow),
        ("gradual", [INTERVAL + 1, -1]),
    ],
    ids=["full", "gradual"],
)
def test_a_killed_training_resumes_and_ends_with_the_same_weights(killed, method, deaths):
    whole, expected = killed("whole", method, [])
    total = whole[0][-1]
    assert whole == [list(range(1, total + 1))]
    deaths = [total + death if death < 0 else death for death in deaths]
    taken, weights = killed("killed", method, deaths)
    check(taken, deaths)
    assert weights == expected


@pytest.mark.slow
def test_a_teacher_that_is_done_is_not_trained_again(killed):
    """Steps of the teacher come first, and then those of the student, all counted through."""
    whole, expected = killed("whole", "distill", [])
    total = len(whole[0]) // 2
    steps = list(range(1, total + 1))
    assert whole == [steps + [total + step for step in steps]]
    # While the teacher learns; before the student's first checkpoint; and after it.
    deaths = [INTERVAL + 1, total + 2, total + INTERVAL + 1]
    taken, weights = killed("killed", "distill", deaths)
    assert [child[0] for child in taken] == [1, INTERVAL + 1, total + 1, total + INTERVAL + 1]
    assert weights == expected


@pytest.mark.slow
@pytest.mark.parametrize("method", ["top", "lora", "full"])
def test_twenty_deaths_at_random_steps_change_nothing(killed, method):
    whole, expected = killed("whole", method, [])
    chance = np.random.default_rng(7)
    deaths, least = [], 1
    for _ in range(20):
        death = int(chance.integers(least, whole[0][-1] + 1))
        deaths.append(death)
        least = (death - 1) // INTERVAL * INTERVAL + 1
    taken, weights = killed("killed", method, deaths)
    check(taken, deaths)
    assert weights == expected


def test_sigterm_keeps_the_state_and_asks_for_a_retry(toy, finetuned, tmp_path):
    kept = Checkpoints(LocalStore(tmp_path / "store"), "training")

    class Terminal:
        def metrics(self, values, step):
            pass

        def progress(self, done, total, what):
            if done == 3 and what.startswith("loss"):
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Evicted, match=r"stop at step 3 of \d+, and its state is kept") as caught:
        finetuned("first", watcher=Terminal(), checkpoints=lambda name: kept)
    assert caught.value.exit_code == 75
    state = kept.load()
    assert state is not None
    assert state.step == 3
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    resumed = finetuned("second", checkpoints=lambda name: kept)
    assert resumed.bundle == finetuned("undisturbed").bundle


def test_the_last_whole_checkpoint_is_taken_when_the_newest_is_damaged(store):
    kept = Checkpoints(store, "training")
    assert kept.load() is None
    for step in (1, 2, 3):
        kept.save(State(step, {"losses": [0.1] * step}, {"weight": torch.full((2,), float(step))}))
    newest = Checkpoints(store, "training").load()
    assert newest is not None
    assert (newest.step, newest.facts) == (3, {"losses": [0.1] * 3})
    assert newest.tensors["weight"].tolist() == [3.0, 3.0]
    key = f"checkpoints/training/{PLACES[0]}.safetensors"
    store.put(key, store.get(key)[:-3])
    older = Checkpoints(store, "training")
    found = older.load()
    assert found is not None
    assert found.step == 2
    older.save(State(4, {}, {"weight": torch.zeros(1)}))
    again = Checkpoints(store, "training").load()
    assert again is not None
    assert again.step == 4, "the damaged one was written over, not the good one"


def test_a_checkpoint_counts_once_its_record_is_there(tmp_path):
    class Dying(LocalStore):
        def put(self, key, data):
            raise KeyboardInterrupt

    for step in (1, 2):
        Checkpoints(LocalStore(tmp_path), "training").load()
        kept = Checkpoints(LocalStore(tmp_path), "training")
        kept.load()
        kept.save(State(step, {}, {"weight": torch.full((2,), float(step))}))
    dying = Checkpoints(Dying(tmp_path), "training")
    dying.load()
    with pytest.raises(KeyboardInterrupt):
        dying.save(State(3, {}, {"weight": torch.full((2,), 3.0)}))
    found = Checkpoints(LocalStore(tmp_path), "training").load()
    assert found is not None
    assert (found.step, found.tensors["weight"].tolist()) == (2, [2.0, 2.0])


def test_of_two_checkpoints_at_one_step_the_later_is_taken(tmp_path):
    kept = Checkpoints(LocalStore(tmp_path), "training")
    for epoch in (1, 2):
        kept.save(State(7, {"epoch": epoch}, {}))
    found = Checkpoints(LocalStore(tmp_path), "training").load()
    assert found is not None
    assert found.facts == {"epoch": 2}


def test_a_checkpoint_goes_through_a_file_not_through_memory(tmp_path):
    """S3 takes no more than 5 GiB at once; an upload is cut into pieces."""
    sizes = []

    class Weighing(LocalStore):
        def put(self, key, data):
            sizes.append(len(data))
            super().put(key, data)

    Checkpoints(Weighing(tmp_path), "training").save(State(1, {}, {"weight": torch.zeros(100_000)}))
    assert sum(sizes) < 1000


def test_nothing_is_left_of_a_finished_training(tmp_path):
    store = LocalStore(tmp_path)
    kept = Checkpoints(store, "training")
    kept.save(State(1, {}, {"weight": torch.zeros(1000)}))
    kept.clear()
    assert kept.load() is None
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0


def test_a_checkpoint_holds_the_best_only_where_it_is_not_the_start(toy, finetuned, tmp_path):
    """Every process of a training starts from the same weights."""
    prefixes = {}

    class Watching(Checkpoints):
        def save(self, state):
            prefixes[state.step] = {name.split(".")[0] for name in state.tensors}
            super().save(state)

    kept = Watching(LocalStore(tmp_path / "store"), "training")
    report = finetuned(checkpoints=lambda name: kept, epochs=2, checkpoint_steps=1)
    assert report.best_epoch > 0
    epoch = report.steps // 2
    assert all("best" not in prefixes[step] for step in range(1, epoch + 1))
    assert all("best" in prefixes[step] for step in range(epoch + 1, 2 * epoch + 1))


def test_what_an_evicted_process_took_is_counted(toy, finetuned, tmp_path):
    kept = Checkpoints(LocalStore(tmp_path / "store"), "training")

    class Evicting:
        def metrics(self, values, step):
            pass

        def progress(self, done, total, what):
            if done == 3 and what.startswith("loss"):
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Evicted):
        finetuned("first", watcher=Evicting(), checkpoints=lambda name: kept)
    state = kept.load()
    assert state is not None
    assert state.facts["seconds"] > 0
    kept.save(replace(state, facts=state.facts | {"seconds": 7200.0}))
    hours = []

    class Told:
        def metrics(self, values, step):
            hours.append(values["device_hours"])

        def progress(self, done, total, what):
            pass

    report = finetuned("second", watcher=Told(), checkpoints=lambda name: kept)
    assert 7200 < report.seconds < 7200 + 600
    assert report.device_hours > 2 and min(hours) > 2
    assert report.rows_per_second < report.train_rows * len(report.epochs) / 7200


def test_training_works_outside_of_the_main_thread(finetuned):
    reports = []
    thread = threading.Thread(target=lambda: reports.append(finetuned("threaded")))
    thread.start()
    thread.join()
    assert len(reports) == 1
