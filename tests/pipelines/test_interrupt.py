"""A run that is stopped leaves no process, nothing half-written, and no claimed event."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest

PATIENCE_S = 90


def _below(home: Path) -> list[int]:
    """Return the processes that name a home folder on their command line or as their own."""
    needle = str(home).encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                if needle in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _until(true, what: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up, f"waited in vain: {what}"
        time.sleep(0.05)


def _is_training(home: Path) -> bool:
    logs = list(home.glob("runs/*/finetune.jsonl"))
    return bool(logs) and '"progress"' in logs[-1].read_text()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc to see processes")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_retrain_leaves_nothing_behind_and_is_done_by_the_next_run(toy_desk, number):
    toy_desk.tokiwa("run", "toy.yaml", "--window", "2026-01-05")
    (before,) = toy_desk.json("history", "toy.yaml")
    slow = ("--set", "finetune.epochs=1000", "--set", "finetune.patience_epochs=1000")
    watched = subprocess.Popen(
        [
            str(Path(sysconfig.get_path("scripts")) / "tokiwa"),
            *("monitor", "toy.yaml", "--window", "2026-01-19", *slow),
        ],
        cwd=toy_desk.folder,
        env=toy_desk.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _until(lambda: toy_desk.trained() > 1 or watched.poll() is not None, "the retrain to begin")
        assert watched.poll() is None, watched.communicate()[0]
        _until(lambda: _is_training(toy_desk.home), "a first step of training")
        assert watched.poll() is None
        assert _below(toy_desk.home)
        watched.send_signal(number)
        said, _ = watched.communicate(timeout=PATIENCE_S)
    finally:
        watched.kill()
        watched.wait(PATIENCE_S)

    _until(lambda: not _below(toy_desk.home), "the children to end")
    assert "Traceback" not in said
    assert toy_desk.json("history", "toy.yaml") == [before]
    assert not list(toy_desk.home.glob("objects/.drafts/*"))

    again = toy_desk.json("monitor", "toy.yaml", "--window", "2026-01-19")
    if number == signal.SIGINT:
        assert watched.returncode == 130
        assert "stopped" in said
        assert again["result"] == "promoted"
    else:
        # Nobody could say that the run died: its claim stands until its lease runs out.
        assert again["result"] == "quiet"
        assert "already being handled" in again["reason"]
