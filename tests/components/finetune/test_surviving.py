from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
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


@pytest.mark.parametrize("method", ["full", "gradual"])
def test_a_killed_training_resumes_and_ends_with_the_same_weights(killed, method):
    whole, expected = killed("whole", method, [])
    total = whole[0][-1]
    assert whole == [list(range(1, total + 1))]
    deaths = [2, INTERVAL + 1, 2 * INTERVAL, total - 1]
    taken, weights = killed("killed", method, deaths)
    check(taken, deaths)
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


def test_the_last_whole_checkpoint_is_taken_when_the_newest_is_damaged(tmp_path):
    store = LocalStore(tmp_path)
    kept = Checkpoints(store, "training")
    assert kept.load() is None
    for step in (1, 2, 3):
        kept.save(State(step, {"losses": [0.1] * step}, {"weight": torch.full((2,), float(step))}))
    newest = Checkpoints(store, "training").load()
    assert newest is not None
    assert (newest.step, newest.facts) == (3, {"losses": [0.1] * 3})
    assert newest.tensors["weight"].tolist() == [3.0, 3.0]
    key = f"checkpoints/training/{PLACES[0]}"
    store.put(key, store.get(key)[:-3])
    older = Checkpoints(store, "training")
    found = older.load()
    assert found is not None
    assert found.step == 2
    older.save(State(4, {}, {"weight": torch.zeros(1)}))
    again = Checkpoints(store, "training").load()
    assert again is not None
    assert again.step == 4, "the damaged one was written over, not the good one"


def test_nothing_is_left_of_a_finished_training(tmp_path):
    store = LocalStore(tmp_path)
    kept = Checkpoints(store, "training")
    kept.save(State(1, {}, {"weight": torch.zeros(1000)}))
    kept.clear()
    assert kept.load() is None
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0


def test_training_works_outside_of_the_main_thread(finetuned):
    reports = []
    thread = threading.Thread(target=lambda: reports.append(finetuned("threaded")))
    thread.start()
    thread.join()
    assert len(reports) == 1
