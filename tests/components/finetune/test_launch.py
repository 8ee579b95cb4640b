from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from components import bundle
from components.errors import ConfigError, Evicted, UserError, WorldError
from components.finetune.config import LoraConfig
from components.finetune.fulfil import fulfil
from components.finetune.launch import Order, processes_of
from components.finetune.start import Start
from components.plan import Base

pytestmark = pytest.mark.slow

PATIENCE_S = 50


class Watching:
    """Writes down the losses by step, and calls back after each step."""

    def __init__(self, after_step=lambda step: None):
        self.losses: dict[int, float] = {}
        self.after_step = after_step

    def metrics(self, values, step):
        pass

    def progress(self, done, total, what):
        if what.startswith("loss"):
            self.losses[done] = float(what.split()[1])
            self.after_step(done)


@pytest.fixture
def base(toy, tmp_path):
    """The toy's encoder without any dropout, which would differ between the processes."""
    folder = tmp_path / "base"
    shutil.copytree(toy.base, folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def order(toy, base, tmp_path):
    """Make an order to fine-tune on the first week, on two processes."""

    def make(name="bundle", **config):
        settings = {
            "device": "cpu",
            "precision": "float32",
            "processes": 2,
            "epochs": 2,
            "batch_rows": 16,
            "threads": 2,
            **config,
        }
        return Order(
            prepared=toy.first,
            start=Start(name="base", base=Base(place=str(base)), reason=""),
            champion=None,
            folder=tmp_path / name,
            task=toy.task,
            config=toy.training.model_copy(update=settings),
            lineage={"window_end": toy.weeks[0].window.end},
            store=str(tmp_path / "store"),
            training=name,
        )

    return make


def children(pid):
    """Return the living processes below a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def workers():
    """Return this test's processes that train, by rank."""
    ranks = {}
    for pid in children(os.getpid()):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        environment = dict(
            each.partition(b"=")[::2]
            for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        )
        if b"components.finetune.launch" in command and b"RANK" in environment:
            ranks[int(environment[b"RANK"])] = pid
    return ranks


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_alike(one, other):
    """Two trainings took the same way, up to the order of summation."""
    assert one.steps == other.steps
    for mine, yours in zip(one.epochs, other.epochs, strict=True):
        assert mine.train_loss == pytest.approx(yours.train_loss, abs=1e-4)
        assert mine.scores == pytest.approx(yours.scores, abs=1e-3)


def assert_weights_alike(one, other):
    mine, yours = weights(one), weights(other)
    assert mine.keys() == yours.keys()
    for name, weight in mine.items():
        np.testing.assert_allclose(weight, yours[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_follow_the_single_one(order, sharded):
    alone, together = Watching(), Watching()
    single = order("single", processes=1)
    double = order("double", sharded=sharded)
    one, other = fulfil(single, alone), fulfil(double, together)
    assert_alike(one, other)
    assert alone.losses.keys() == together.losses.keys()
    assert list(alone.losses.values()) == pytest.approx(list(together.losses.values()), abs=2e-3)
    assert_weights_alike(single.folder, double.folder)
    bundle.verify(double.folder, other.bundle)
    assert children(os.getpid()) == []


@pytest.mark.parametrize(
    ("method", "sharded"),
    [
        ("top", False),
        ("head", False),
        ("gradual", False),
        ("lora", False),
        ("distill", False),
        ("top", True),
        ("lora", True),
    ],
)
def test_every_method_trains_in_two_processes(order, method, sharded):
    config = {"method": method, "head_epochs": 3, "lora": LoraConfig(dropout=0.0)}
    single = fulfil(order("single", processes=1, **config), Watching())
    assert_alike(single, fulfil(order("double", sharded=sharded, **config), Watching()))


def test_accumulation_makes_no_difference_to_two_processes(order):
    whole = fulfil(order("whole", epochs=1, processes=1), Watching())
    assert_alike(whole, fulfil(order("parts", epochs=1, accumulation=3), Watching()))


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_sigterm_keeps_the_state_and_a_second_start_goes_on(order, sharded):
    through = fulfil(order("through", sharded=sharded), Watching())
    stopped = order("stopped", sharded=sharded)

    def stop(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    first, second = Watching(stop), Watching()
    with pytest.raises(Evicted, match="told to stop at step"):
        fulfil(stopped, first)
    assert children(os.getpid()) == []
    resumed = fulfil(stopped, second)
    assert 5 <= max(first.losses) < min(second.losses)
    assert min(second.losses) == max(first.losses) + 1
    assert_alike(through, resumed)
    assert_weights_alike(stopped.folder.with_name("through"), stopped.folder)


def test_answers_that_are_not_finite_come_back_as_the_one_error(order, base, capfd):
    tensors = load_file(base / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"] *= 1e38
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(WorldError, match=r"answers .* are not finite before the first step; start"):
        fulfil(order(), Watching())
    assert "Traceback" not in capfd.readouterr().out
    assert children(os.getpid()) == []


def test_a_wrong_configuration_comes_back_as_the_users_error(order, capfd):
    with pytest.raises(UserError, match=r"finetune\.sharded") as raised:
        fulfil(order(sharded=True, method="gradual"), Watching())
    assert raised.value.exit_code == 2
    assert "Traceback" not in capfd.readouterr().out


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_named_and_takes_the_others_with_it(order, rank):
    def kill(step):
        if step == 2:
            os.kill(workers()[rank], signal.SIGKILL)

    with pytest.raises(WorldError, match=f"process {rank} .* was killed by SIGKILL; if memory"):
        fulfil(order(epochs=50, patience_epochs=50), Watching(kill))
    assert children(os.getpid()) == []


def test_a_watcher_that_fails_leaves_no_process_behind(order):
    def fail(step):
        raise ConnectionError("the tracking server is gone")

    with pytest.raises(ConnectionError):
        fulfil(order(epochs=50, patience_epochs=50), Watching(fail))
    assert children(os.getpid()) == []


def test_a_killed_parent_leaves_no_process_behind(order, tmp_path):
    (tmp_path / "order.json").write_text(order(epochs=500, patience_epochs=500).to_json())
    script = (
        "import sys; from pathlib import Path\n"
        "from components.finetune.launch import Order, fulfil\n"
        "from components.finetune.history import Silent\n"
        "class Told(Silent):\n"
        "    def progress(self, done, total, what): print('step', done, flush=True)\n"
        "fulfil(Order.from_json(Path(sys.argv[1]).read_text()), Told())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "order.json")],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        watchdog = threading.Timer(PATIENCE_S, parent.kill)
        watchdog.start()
        assert parent.stdout is not None
        assert any(line.startswith("step 3") for line in parent.stdout)
        below = children(parent.pid)
        parent.kill()
        watchdog.cancel()
    assert len(below) >= 3  # torchrun and two processes
    deadline = time.monotonic() + PATIENCE_S
    while any(map(alive, below)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, below))


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_more_processes_than_gpus_are_refused(toy):
    import torch

    gpus = torch.cuda.device_count()
    config = toy.training.model_copy(update={"device": "cuda", "processes": gpus + 4})
    with pytest.raises(ConfigError, match=rf"processes is {gpus + 4}, but torch sees {gpus} GPUs"):
        processes_of(config)


def test_processes_by_default_are_one_for_each_gpu(toy):
    import torch

    config = toy.training.model_copy(update={"processes": "auto"})
    assert processes_of(config) == max(1, torch.cuda.device_count())
    assert processes_of(config.model_copy(update={"device": "cpu"})) == 1
    assert json.loads(config.to_json())["processes"] == "auto"
