"""Runs whose steps are containers of their images: the same result as in processes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import containers


def test_a_container_sees_what_the_arguments_name(tmp_path):
    rows, base = tmp_path / "rows.csv", tmp_path / "base"
    rows.touch()
    base.mkdir()
    arguments = {
        "source": json.dumps({"root": "", "files": [{"path": str(rows)}]}),
        "bases": json.dumps({"models": [{"place": str(base)}, {"place": "package:model"}]}),
        "project": "toy",
        "window": "{not json",
        "ledger": f"{tmp_path}/nothing-here",
    }
    assert containers._paths_in(arguments) == {str(rows), str(base)}


# docker's client leaves a socket open when nobody answers.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_an_engine_a_run_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-such-socket")
    with (
        pytest.raises(RuntimeError, match="no Docker engine"),
        containers.in_containers({}, "run"),
    ):
        pass
    gc.collect()


@pytest.fixture
def contained(engine: Any, image_of: Any, toy_desk: Any) -> Iterator[Any]:
    """The toy project in a folder of its own, whose steps run in containers."""
    for kind in ("base", "train"):
        image_of(kind)
    of_runs = {"all": True, "filters": {"label": containers.RUN_LABEL}}
    before = engine.containers.list(**of_runs)  # of a run whose machine died, say
    yield toy_desk
    assert set(engine.containers.list(**of_runs)) <= set(before)


def reports(home: Path, step: str) -> list[Path]:
    return sorted(home.glob(f"artifacts/*/{step}/report"))


@pytest.mark.slow
@pytest.mark.containers
@pytest.mark.timeout(1800)
def test_containers_decide_as_processes_do(contained, monkeypatch):
    desk, outcomes = contained, {}
    for runner in ("docker", "subprocess"):
        monkeypatch.setenv("TOKIWA_RUNNER", runner)
        desk.tokiwa("run", "toy.yaml", "--window", "2026-01-05", "--json", limit_s=800)
        (evaluation,), (snapshot,) = reports(desk.home, "evaluate"), reports(desk.home, "ingest")
        decided = json.loads(evaluation.read_text())
        outcomes[runner] = {
            "verdict": decided["verdict"],
            "code": json.loads(reports(desk.home, "resolve")[0].read_text())["plan"]["code"],
            "snapshot": json.loads(snapshot.read_text())["digest"],
            "bundle": json.loads(reports(desk.home, "finetune")[0].read_text())["bundle"],
        }
        desk.home.rename(desk.folder / f"home-of-{runner}")
    assert outcomes["docker"] == outcomes["subprocess"]
    assert outcomes["docker"]["verdict"] == "promote"


@pytest.mark.slow
@pytest.mark.containers
def test_a_failing_step_is_reported_as_failing(contained, monkeypatch):
    monkeypatch.setenv("TOKIWA_RUNNER", "docker")
    rows = contained.folder / "rows.csv"
    rows.write_text(rows.read_text().replace("label", "other", 1))
    done = contained.tokiwa("run", "toy.yaml", "--window", "2026-01-05", expect=2)
    assert "label" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.containers
def test_a_container_that_ends_at_once_keeps_its_exit_code(engine, image_of, tmp_path):
    image = image_of("base").tags[0]
    run_container = containers._container_of({}, "race")
    for code in (0, 3) * 10:
        assert run_container(engine, image, ["sh", "-c", f"exit {code}"], {}) == code


@pytest.mark.slow
@pytest.mark.containers
def test_a_stopped_run_leaves_no_container(engine, image_of, tmp_path):
    program = (
        "import docker, sys\n"
        "from pipelines.containers import in_containers\n"
        "from kfp.local import docker_task_handler as handler\n"
        "with in_containers({}, 'stopped'):\n"
        "    print('ready', flush=True)\n"
        "    handler.run_docker_container(docker.from_env(), sys.argv[1], ['sleep', '60'], {})\n"
    )
    image = image_of("base").tags[0]
    environment = os.environ | {"TOKIWA_HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, image], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        label = {"label": f"{containers.RUN_LABEL}=stopped"}
        while not engine.containers.list(filters=label):
            assert process.poll() is None
        process.terminate()
        assert process.wait(60) == 143
    assert engine.containers.list(all=True, filters=label) == []
