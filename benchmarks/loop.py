"""What kfp costs: the time of each step through kfp, and as a call in one process.

The demonstration project trains on its first window and is watched on its second, twice:
through kfp, as ``tokiwa run`` and ``tokiwa monitor`` do it, with a process per step; and
by calling the same functions one after another in this process, which has imported all
libraries before. Data and configuration are the same, each way has an empty home of its
own, and what a process remembers of files is forgotten before each call. So the
difference holds the start of a process, the imports of the step, and kfp itself.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from inspect import signature
from pathlib import Path
from typing import Any, get_args

from kfp import dsl
from kfp.dsl.types.type_annotations import OutputAnnotation, OutputPath
from rich.table import Table

from benchmarks.figures import Figure, out, run
from components.collect.component import collect
from components.decline.component import decline
from components.deploy.component import deploy
from components.drift.component import drift
from components.evaluate.component import evaluate
from components.finetune.component import finetune
from components.ingest.component import ingest
from components.notify.component import notify
from components.prepare.component import prepare
from components.register.component import register
from components.resolve import core as resolve_core
from components.resolve.component import resolve
from components.sources import open_source
from components.trigger.component import trigger
from components.validate.component import validate
from pipelines.progress import watching
from pipelines.project import ProjectConfig
from pipelines.project_file import load
from pipelines.runners import Run, run_project

PROJECT = "sentiment"
# So few rows teach a head enough to win, the whole encoder in one epoch not.
QUICK = ("source.max_rows_per_window=400", "finetune.epochs=1", "finetune.method=head")
LIMIT_S = 10.0
# A fresh process imports torch, transformers and MLflow in about 6 s before it begins.
BETWEEN = "between the steps"

Outputs = dict[str, Any]


def measure(quick: bool) -> list[Figure]:
    """Return a figure per step of both graphs."""
    project = load(PROJECT, QUICK if quick else ())
    first, second = (
        window.name
        for window in resolve_core.windows_with_rows(
            project.resolve, open_source(project.source), datetime.now(UTC)
        )[:2]
    )
    _import_all()
    with _empty_home() as home:
        direct = Direct(project, home)
        called = {"training": direct.training(first), "monitoring": direct.monitoring(second)}
    with _empty_home():
        through = {
            "training": _through_kfp(project, "training", first),
            "monitoring": _through_kfp(project, "monitoring", second),
        }
    figures = []
    for graph, done in through.items():
        seconds = {name: step.seconds for name, step in done.steps.items()}
        if set(seconds) != set(called[graph]):
            raise RuntimeError(f"{graph}: kfp ran {set(seconds)}, we called {set(called[graph])}")
        figures += [
            _figure(f"{graph}/{name}", ours, called[graph][name]) for name, ours in seconds.items()
        ]
        figures.append(_figure(f"{graph}/{BETWEEN}", done.seconds - sum(seconds.values()), 0.0))
    return figures


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    table = Table(title="what kfp costs", title_justify="left", box=None, pad_edge=False)
    for column in ("graph", "step"):
        table.add_column(column)
    for column in ("core", "through kfp", "overhead", "ratio"):
        table.add_column(column, justify="right")
    for each in figures:
        graph, step = each.figure.split("/")
        table.add_row(
            graph,
            step,
            f"{each.peer:.2f} s",
            f"{each.ours:.2f} s",
            f"[{'green' if each.holds else 'red'}]{each.ours - each.peer:.2f} s[/]",
            f"{each.ratio:.1f}" if each.ratio else "",
        )
    out.print(table)
    out.print(f"goal: {figures[0].goal}", style="dim")


def _figure(name: str, ours: float, peer: float) -> Figure:
    return Figure(
        figure=name,
        ours=round(ours, 3),
        peer=round(peer, 3),
        ratio=round(ours / peer, 2) if peer else None,
        goal=f"less than {LIMIT_S:.0f} s more, with the start of a process and its imports",
        holds=ours - peer < LIMIT_S,
    )


def _through_kfp(project: ProjectConfig, graph: str, window: str) -> Run:
    with watching(f"{graph} of {window} through kfp", verbose=False) as watch:
        return run_project(project, graph, window=window, cause="manual", watch=watch)


class Direct:
    """Calls the steps of a graph in this process, in the order in which kfp runs them."""

    def __init__(self, project: ProjectConfig, home: Path) -> None:
        self._home = home
        self._ledger = project.ledger
        self._given = project.arguments(
            [
                *("project", "task", "source", "bases"),
                *(f"{name.rstrip('_')}_config" for name in ProjectConfig.model_fields),
            ]
        )
        self._run = ""
        self._seconds: dict[str, float] = {}

    def training(self, window: str) -> dict[str, float]:
        """Train on a window; return the seconds of each step."""
        self._begin("training")
        resolved = self._resolve(window, "training")
        self._body(resolved, "manual")
        return self._notify()

    def monitoring(self, window: str) -> dict[str, float]:
        """Watch a window; return the seconds of each step."""
        self._begin("monitoring")
        resolved = self._resolve(window, "monitoring")
        collected = self._call(collect, resolved)
        drifted = self._call(drift, resolved, collected)
        triggered = self._call(trigger, resolved, drift=drifted["report"])
        if triggered["Output"]:
            self._body(resolved, triggered["cause"])
        return self._notify()

    def _begin(self, run: str) -> None:
        self._run, self._seconds = run, {}

    def _resolve(self, window: str, purpose: str) -> Outputs:
        return self._call(resolve, window=window, purpose=purpose, job="", cause="manual")

    def _body(self, resolved: Outputs, cause: str) -> None:
        ingested = self._call(ingest, resolved)
        validated = self._call(validate, resolved, ingested)
        if not validated["Output"]:
            self._call(decline, validated)
            return
        good = {"good": validated["good"], "digest": validated["good_digest"]}
        prepared = self._call(prepare, resolved, good)
        trained = self._call(finetune, resolved, prepared)
        judged = self._call(evaluate, resolved, prepared, trained)
        registered = self._call(
            register, resolved, judged, trained, evaluation=judged["report"], cause=cause
        )
        if judged["Output"] == "promote":
            self._call(deploy, resolved, judged, trained, registered)

    def _notify(self) -> dict[str, float]:
        status = dsl.PipelineTaskFinalStatus("SUCCEEDED", "", "", 0, "")
        self._call(notify, status=status, job="", cause="manual")
        return self._seconds

    def _call(self, component: Any, *before: Outputs, **given: Any) -> Outputs:
        """Call the function of a step with what the steps before it left; time it."""
        name = component.name
        folder = self._home / "artifacts" / self._run / name
        folder.mkdir(parents=True)
        # What comes later wins: resolve's base is the project's, with its digest.
        known = self._given | {"run": self._run, "ledger": self._ledger}
        known["config"] = self._given.get(f"{name}_config", "")
        for outputs in before:
            known |= outputs
        known |= given
        arguments: dict[str, Any] = {}
        written: Outputs = {}
        for key, parameter in signature(component.python_func).parameters.items():
            if isinstance(parameter.annotation, OutputPath):
                written[key] = folder / key
                arguments[key] = str(folder / key)
            elif OutputAnnotation in get_args(parameter.annotation):
                kind = get_args(parameter.annotation)[0]
                arguments[key] = written[key] = kind(name=key, uri=str(folder / key), metadata={})
            else:
                arguments[key] = known[key]
        _forget()
        said = io.StringIO()
        with redirect_stdout(said):
            start_s = time.perf_counter()
            try:
                returned = component.python_func(**arguments)
            except SystemExit as error:
                raise RuntimeError(f"{name} failed: {said.getvalue()[-2000:]}") from error
            self._seconds[name] = time.perf_counter() - start_s
        names = [key for key in component.component_spec.outputs or {} if key not in written]
        values = returned if isinstance(returned, tuple) else (returned,)
        return {
            key: each.read_text() if isinstance(each, Path) else each
            for key, each in written.items()
        } | dict(zip(names, values, strict=False))


def _forget() -> None:
    """Drop what this process remembers of files, as a process of its own would not know it."""
    cached: list[Any] = [
        resolve_core.weights_digest,
        resolve_core.code_version,
    ]
    for each in cached:
        each.cache_clear()


def _import_all() -> None:
    """Import what the steps import, so that no call pays for it."""
    import mlflow
    import pandera.pandas
    import scipy.stats
    import sklearn.linear_model
    import sklearn.metrics
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    from components.serve.model import BundleModel

    # transformers imports a class when it is first asked for.
    assert all((mlflow, pandera, scipy, sklearn, torch, AutoModel, AutoTokenizer, BundleModel))
    logging.disable_progress_bar()


@contextmanager
def _empty_home() -> Iterator[Path]:
    """Let state live in a temporary folder that goes afterwards."""
    names = ("TOKIWA_HOME", "TOKIWA_STORE", "MLFLOW_TRACKING_URI")
    before = {name: os.environ.pop(name, None) for name in names}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TOKIWA_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


if __name__ == "__main__":
    sys.exit(run(measure, show))
