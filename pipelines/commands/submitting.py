"""Commands for Kubeflow Pipelines: compile, submit, apply, runs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from components.errors import BadInput
from pipelines import runners
from pipelines.commands.options import AsJson, Overrides, Project, Window, refuse_unknown
from pipelines.commands.printing import out, print_json, print_table, quoted
from pipelines.console import err
from pipelines.project import ProjectConfig
from pipelines.project_file import load, shipped_projects


def compile(
    project: Annotated[str | None, typer.Argument(help="All shipped ones by default.")] = None,
    folder: Annotated[Path, typer.Option("--out", help="Where the YAML goes.")] = Path("build"),
    overrides: Overrides = None,
) -> None:
    """Compile the graphs of a project to IR YAML, with its settings as their defaults."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is no folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in [project] if project else shipped_projects():
        for path in _compiled(load(name, overrides or ()), folder).values():
            out.print(str(path), markup=False, soft_wrap=True)


def _compiled(config: ProjectConfig, folder: Path) -> dict[str, Path]:
    """Compile the graphs of a project, and tell of what its pods may not see."""
    for place in config.places_here:
        err.print(
            f"{place} lies on this machine: a pod sees it only where its image, or the claim of "
            "cluster.default.scratch, has it under the same path; else name a source that pods "
            "can reach, such as s3, sql or http",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
    return runners.packages_of(config, folder)


def submit(
    project: Project,
    graph: Annotated[
        Literal["training", "monitoring"], typer.Option(help="Which of the two to start.")
    ] = "training",
    window: Window = "latest",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of the run.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Start a graph on Kubeflow Pipelines; its compiled form is uploaded as a version."""
    from pipelines import submission
    from pipelines.backend import Backend

    config = load(project, overrides or ())
    refuse_unknown(window, config)
    with TemporaryDirectory() as folder:
        # First, because a mistake of the file needs no server to be told.
        package = _compiled(config, Path(folder))[graph]
        backend = Backend.connect(config.cluster.namespace)
        run, link = submission.submit(config, backend, graph, package, window)
    shown = {"run": run, "link": link}
    if not as_json:
        out.print(f"started {run}: {link}", markup=False, soft_wrap=True)
    try:
        if wait:
            submission.wait(backend, run, lambda state: err.print(state.lower(), style="dim"))
            shown |= next(submission.verdicts_of(config, [run]))
    finally:  # the run goes on, however the waiting ends
        if as_json:
            print_json(shown)
    if wait and not as_json:
        reason = shown["reason"] or "its outcome is not in the store that TOKIWA_STORE names"
        out.print(f"{shown['verdict']}: {reason}", markup=False, soft_wrap=True)


def apply(
    project: Project,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference only.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what is not in the file any more.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what was edited by hand.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make the recurring runs on Kubeflow Pipelines what section schedules says."""
    from pipelines import schedules
    from pipelines.backend import Backend

    config = load(project, overrides or ())
    with TemporaryDirectory() as folder:
        # First, because a mistake of the file needs no server to be told.
        packages = _compiled(config, Path(folder))
        wanted = schedules.wanted_of(config, packages, datetime.now(UTC))
        backend = Backend.connect(config.cluster.namespace)
        changes = schedules.difference(config, backend, wanted, prune=prune, force=force)
        if not as_json:
            for line in schedules.explained(config, wanted, changes):
                out.print(line, markup=False, soft_wrap=True)
        if not dry_run:
            schedules.apply(config, backend, wanted, prune=prune, force=force)
    if as_json:
        print_json([asdict(change) for change in changes])
    schedules.refuse_drift(changes)


def runs(
    project: Project,
    most: Annotated[int, typer.Option(min=1, max=200, help="Newest to show.")] = 20,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List the runs on Kubeflow Pipelines with their verdicts."""
    from pipelines import submission
    from pipelines.backend import Backend

    config = load(project, overrides or ())
    rows = submission.listed(config, Backend.connect(config.cluster.namespace), most)
    if as_json:
        print_json(rows)
        return
    if not rows:
        typed = quoted(project)
        out.print(f"there are no runs yet; start one: tokiwa submit {typed}", markup=False)
    print_table(("run", "name", "started", "state", "verdict", "reason"), rows)
