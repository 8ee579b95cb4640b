"""A mistake ends all attempts at a step; what the world did wrong is tried again."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from components import home, step
from components.attempts import NODE, Attempt
from components.errors import ConfigError, Evicted, SourceError, StoreError

FIRST, SECOND = (f"run-x.root.exit-handler-1.body.finetune.executor({n})" for n in (0, 1))


@pytest.fixture(autouse=True)
def cluster(tmp_path, monkeypatch):
    """A pod of a run."""
    monkeypatch.setenv("TOKIWA_STORE", str(tmp_path / "objects"))
    monkeypatch.setenv("TOKIWA_RUN", "run-7")


def attempted(monkeypatch, node, error=None):
    """Attempt a step; return its exit code and whether its body ran."""
    monkeypatch.setenv(NODE, node)
    ran = False
    try:
        with step.running("finetune"):
            ran = True
            if error is not None:
                raise error
    except SystemExit as ended:
        return ended.code, ran
    return 0, ran


def attempt_at(monkeypatch, node, run="run-7") -> Attempt:
    monkeypatch.setenv(NODE, node)
    found = Attempt.current(run)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("mistake", "code"),
    [
        (ConfigError("no such column: label"), 2),
        (ValueError("a bug"), 1),
        (KeyError("a bug"), 1),
        (AssertionError("a bug"), 1),
    ],
)
def test_a_mistake_is_made_once(monkeypatch, capsys, mistake, code):
    assert attempted(monkeypatch, FIRST, mistake) == (code, True)
    assert attempted(monkeypatch, SECOND) == (code, False)
    *_, said = (json.loads(line) for line in capsys.readouterr().out.splitlines() if "{" in line)
    assert said["event"] == "failed" and said["exit_code"] == code
    assert said["error"].startswith("not tried again: ") and str(mistake) in said["error"]
    assert attempted(monkeypatch, FIRST.replace("(0)", "(2)")) == (code, False)


@pytest.mark.parametrize(
    "error",
    [
        Evicted("the machine is taken away"),
        SourceError("the database is away"),
        OSError("no space left"),
        MemoryError(),
        RuntimeError("CUDA out of memory"),
    ],
)
def test_what_another_attempt_may_better_is_tried_again(monkeypatch, error):
    code, _ = attempted(monkeypatch, FIRST, error)
    assert code == getattr(error, "exit_code", 1)
    assert attempted(monkeypatch, SECOND) == (0, True)


def test_a_pod_that_was_killed_is_tried_again(monkeypatch):
    monkeypatch.setenv(NODE, FIRST)
    with pytest.raises(KeyboardInterrupt), step.running("finetune"):
        raise KeyboardInterrupt
    assert attempted(monkeypatch, SECOND) == (0, True)


def test_a_run_that_somebody_retries_forgets_the_mistake(monkeypatch):
    attempted(monkeypatch, FIRST, ConfigError("mended meanwhile"))
    assert attempted(monkeypatch, FIRST, Evicted("and then evicted")) == (75, True)
    assert attempted(monkeypatch, SECOND) == (0, True)


def test_other_runs_steps_and_rounds_of_a_loop_have_notes_of_their_own(monkeypatch):
    nodes = [
        ("run-7", "x.root.body.search.executor(0)"),
        ("run-8", "x.root.body.search.executor(0)"),
        ("run-7", "x.root.body.finetune.executor(0)"),
        ("run-7", "x.root.for-loop-1.iteration(0:1).search.executor(0)"),
        ("run-7", "x.root.for-loop-1.iteration(1:2).search.executor(0)"),
    ]
    keys = {attempt_at(monkeypatch, node, run).key for run, node in nodes}
    assert len(keys) == len(nodes)


def test_a_round_of_a_loop_that_is_begun_anew_is_the_same_step(monkeypatch):
    # Newer servers retry the round of a loop, and count attempts at the step within it anew.
    nodes = [
        "x.root.for-loop-1.iteration(0:1)(0).search.executor(0)",
        "x.root.for-loop-1.iteration(0:1)(0).search.executor(1)",
        "x.root.for-loop-1.iteration(0:1)(1).search.executor(0)",
    ]
    found = [attempt_at(monkeypatch, node) for node in nodes]
    assert all(one.key == other.key for one, other in pairwise(found))
    assert [each.number for each in found] == [0, 1, 1]


@pytest.mark.parametrize("node", ["", "x.root.body.finetune.executor"])
def test_a_step_that_is_never_tried_again_writes_nothing(monkeypatch, node):
    assert attempted(monkeypatch, node, ConfigError("no")) == (2, True)
    assert home.store().list("attempts/") == []


def test_a_store_that_is_away_costs_an_attempt_and_hides_nothing(monkeypatch, capsys):
    class Away:
        def get(self, key):
            raise StoreError("away")

        put = get

    monkeypatch.setattr(home, "store", Away)
    monkeypatch.setattr(Away, "put", lambda self, key, data: self.get(key))
    assert attempted(monkeypatch, FIRST, ConfigError("no such column")) == (2, True)
    assert "no such column" in capsys.readouterr().out
    assert attempted(monkeypatch, SECOND) == (0, True)
