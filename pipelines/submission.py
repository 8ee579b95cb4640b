"""Start a project's graphs on Kubeflow, and see what became of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components import home
from components.errors import StepFailed, StoreError
from components.store import ObjectMissing
from pipelines.backend import Away, Backend
from pipelines.project import ProjectConfig

FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
"""kfp's own waiting knows nothing of the last one, and would wait for ever."""
POLLS_S = (1.0, 2.0, 5.0, 10.0)
"""Seconds between looks at a run, the last again and again."""
AWAY_S = 600.0
"""So long Kubeflow may be away before waiting for a run is given up; the run itself goes on."""


def pipeline_name(project: ProjectConfig, graph: str) -> str:
    """Return what a project's graph is called on Kubeflow."""
    return f"{project.name}-{graph}"


def run_name(project: ProjectConfig, graph: str, window: str, cause: str) -> str:
    """Return what the UI shows of a run: whose it is, of which window, and why.

    The runs of a schedule carry its name with a number behind it.
    """
    return f"{project.name} {graph} {window} {cause}"


def submit(
    project: ProjectConfig, backend: Backend, graph: str, package: Path, window: str
) -> tuple[str, str]:
    """Upload a compiled graph unless it is there, and start it.

    Args:
        project: whose graph.
        backend: where to run it.
        graph: ``training`` or ``monitoring``.
        package: the compiled graph.
        window: see ``components.resolve.core.resolve``.

    Returns:
        The id of the run, and where the UI shows it.
    """
    uploaded = backend.upload(pipeline_name(project, graph), package)
    experiment = backend.experiment(project.name)
    run = backend.start(
        run_name(project, graph, window, "manual"),
        experiment,
        uploaded,
        {"window": window, "cause": "manual"},
        project.cluster.service_account,
    )
    return run, backend.link("runs", run)


def wait(
    backend: Backend,
    run: str,
    watch: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """Wait for the end of a run and return it, kfp's ``V2beta1Run``.

    Args:
        backend: where it runs.
        run: its id.
        watch: told of every new state.
        sleep: waits so many seconds.

    Raises:
        StepFailed: it failed or was stopped.
        BackendError: it is not there any more, or Kubeflow was away for too long.
    """
    seen, looks, away_s = "", 0, 0.0
    while True:
        pause_s = POLLS_S[min(looks, len(POLLS_S) - 1)]
        looks += 1
        try:
            found = backend.run(run)
        except Away:
            if away_s >= AWAY_S:
                raise
            away_s += pause_s
            sleep(pause_s)
            continue
        away_s = 0.0
        state = str(found.state or "PENDING")
        if state != seen:
            watch(state)
            seen = state
        if state in FINISHED:
            break
        sleep(pause_s)
    if state != "SUCCEEDED":
        why = f": {found.error.message}" if found.error and found.error.message else ""
        raise StepFailed(f"run {run} ended as {state}{why}; see {backend.link('runs', run)}")
    return found


def listed(project: ProjectConfig, backend: Backend, most: int) -> list[dict[str, str]]:
    """Return the newest runs of a project, each with its verdict where the store tells one."""
    experiment = backend.experiment(project.name, make=False)
    if not experiment:
        return []
    runs = backend.runs(experiment, most)
    verdicts = verdicts_of(project, [str(run.run_id) for run in runs])
    return [
        {
            "run": str(run.run_id),
            "name": str(run.display_name),
            "started": f"{run.created_at:%Y-%m-%dT%H:%M:%SZ}" if run.created_at else "–",
            "by": "schedule" if run.recurring_run_id else "hand",
            "state": str(run.state or "PENDING").lower(),
            **verdict,
            "link": backend.link("runs", str(run.run_id)),
        }
        for run, verdict in zip(runs, verdicts, strict=True)
    ]


def verdicts_of(project: ProjectConfig, runs: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield ``verdict`` and ``reason`` of each run; – where this machine's store knows of none.

    A challenger that the gate turned down is a verdict, and no failure of the run.
    """
    is_away = False
    for run in runs:
        outcome: Mapping[str, Any] = {}
        try:
            if not is_away:
                outcome = json.loads(home.store().get(f"{project.ledger}/runs/{run}/notify.json"))
        except ObjectMissing:
            pass  # it is not over yet, or did not get so far
        except StoreError:
            is_away = True  # else it would be waited for at every run
        yield {
            "verdict": str(outcome.get("result", "–")),
            "reason": str(outcome.get("reason", "")),
        }
