"""Is a forked step what a started one is: its output, its exit code, its end?"""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.nursery import Nursery, forked_steps

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere steps are started")
SCRIPT = 'python3 -m kfp.dsl.executor_main --component_module_path "$0/ephemeral_component.py"'


def _command(body: str, folder) -> list[str]:
    source = f"import os, sys, time, signal\ndef step():\n    {body}\n"
    asked = {"inputs": {}, "outputs": {"outputFile": str(folder / "out.json")}}
    arguments = ["--executor_input", json.dumps(asked), "--function_to_execute", "step"]
    return ["sh", "-c", SCRIPT, source, *arguments]


@pytest.fixture(scope="module")
def run():
    with Nursery() as nursery:
        yield nursery.run_or(lambda command, variables: -99)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("pass", 0),
        ("sys.exit(2)", 2),
        ("raise ValueError('a bug')", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_a_step_ends_as_it_would_in_an_interpreter_of_its_own(run, tmp_path, body, code):
    assert run(_command(body, tmp_path)) == code


def test_a_step_prints_and_sees_its_own_variables(run, tmp_path, capfd):
    body = "print('said', os.environ['MINE'], os.environ['_KFP_RUNTIME']); os.system('echo more')"
    assert run(_command(body, tmp_path), {"MINE": "日本"}) == 0
    said = capfd.readouterr().out
    assert "said 日本 true" in said
    assert "more" in said
    assert "MINE" not in os.environ
    assert run(_command("assert 'MINE' not in os.environ", tmp_path)) == 0


def test_steps_run_side_by_side(run, tmp_path):
    # Each waits for the other, so that one after the other they would never end.
    bodies = [
        f"open({str(tmp_path / mine)!r}, 'w').close()\n"
        f"    while not os.path.exists({str(tmp_path / other)!r}): time.sleep(0.01)"
        for mine, other in (("a", "b"), ("b", "a"))
    ]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda body: run(_command(body, tmp_path)), bodies)) == [0, 0]


def test_any_other_command_is_kfps_own_business(run):
    assert run(["sh", "-c", "true"]) == -99


def test_a_step_fails_if_the_nursery_is_gone(tmp_path):
    with Nursery() as nursery:
        run = nursery.run_or(lambda command, variables: -99)
        assert run(_command("os.kill(os.getppid(), signal.SIGKILL)", tmp_path)) == 1


def test_afterwards_kfp_starts_its_steps_again():
    from kfp.local import subprocess_task_handler

    before = subprocess_task_handler.run_local_subprocess
    with forked_steps():
        assert subprocess_task_handler.run_local_subprocess is not before
    assert subprocess_task_handler.run_local_subprocess is before
