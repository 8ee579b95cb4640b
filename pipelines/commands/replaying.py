"""The command that plays a project over its past: replay."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from components.errors import BadInput
from pipelines import progress
from pipelines.commands.options import AsJson, NoCache, Overrides, Project, Verbose, ready
from pipelines.commands.printing import out, print_json, print_table, quoted, relative
from pipelines.console import plain_table, show_table
from pipelines.project import ProjectConfig

if TYPE_CHECKING:
    from pipelines.histories import Shape

_SAMPLES = {"text": '"what a lovely day"', "image": "picture.png", "record": "'{…}'"}


def replay(
    project: Project,
    windows: Annotated[int | None, typer.Option(min=1, help="Play only the first N.")] = None,
    publish: Annotated[bool, typer.Option(help="Make the last champion the project's own.")] = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    no_cache: NoCache = False,
    policies: Annotated[
        list[Path] | None,
        typer.Option("--policy", help="Compare policies: YAML with the keys of trigger. Repeat."),
    ] = None,
    history: Annotated[
        Literal["abrupt", "gradual", "recurring", "none"] | None,
        typer.Option(help="Play a year resampled from the rows instead, which changes so."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the history; 0 by default.")] = None,
) -> None:
    """Play the project's windows in order: train, watch, retrain where the world moved."""
    from components import home
    from pipelines import replay as replays

    if seed is not None and not history:
        raise BadInput("--seed draws a history; name its shape with --history")
    config = ready(project, overrides)
    if policies or history:
        _compare_policies(
            config, policies or [], history, seed or 0, windows, not no_cache, verbose, as_json
        )
        return

    watching = partial(progress.watching, verbose=verbose, quiet=as_json)
    results = replays.replay(
        config, windows=windows, publish=publish, caching=not no_cache, watching=watching
    )
    page = home.home() / "reports" / f"{config.name}-replay.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(replays.to_html(config, results), encoding="utf-8")
    if as_json:
        print_json([result.model_dump(mode="json") for result in results])
        return
    _print_replay(config, results)
    _print_next_steps(config, project, page)


def _compare_policies(
    config: ProjectConfig,
    paths: Sequence[Path],
    history: Shape | None,
    seed: int,
    windows: int | None,
    caching: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Play policies, by default the project's own, and show how they compare."""
    from components import home
    from pipelines import replay as replays
    from pipelines.backtest import HEADER, rows_of, to_html
    from pipelines.project_file import load_policy
    from pipelines.simulation import backtest_of

    if len({path.stem for path in paths}) < len(paths):
        raise BadInput("policies are told apart by the names of their files; two are the same")
    policies = {path.stem: load_policy(path) for path in paths} or {"project": config.trigger}
    if history is None:
        watching = partial(progress.watching, verbose=verbose, quiet=as_json)
        found = replays.backtest(
            config, policies, windows=windows, caching=caching, watching=watching
        )
    else:
        with progress.working("drawing the history", quiet=as_json) as counted:
            found = backtest_of(config, policies, history, seed, windows, counted)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    page = home.home() / "reports" / f"{config.name}-policies.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    title = f"Policies of {config.name}"
    page.write_text(to_html(title, found, config.task.score_title), encoding="utf-8")
    if history:
        out.print(
            "resampled from the project's rows: dates are made up, and a retrain counts as one "
            "device-hour",
            style="dim",
            soft_wrap=True,
        )
    print_table(HEADER, rows_of(found))
    out.print(
        f"saved and regret: beside the oracle, which retrains on every window\n"
        f"the world changed in: {', '.join(found.windows[each] for each in found.changes) or '–'}\n"
        f"report: {relative(page)}",
        markup=False,
        soft_wrap=True,
    )


def _print_replay(config: ProjectConfig, results: Sequence[Any]) -> None:
    score = config.task.score_title
    header = ("window", "rows", "drift", "trained for", "decision", "version", score, "time")
    table = plain_table(*header)
    for column in table.columns:
        column.no_wrap = column.header in ("window", score)
    moods = {"promote": "green", "keep": "red", "inconclusive": "yellow"}
    for result in results:
        before, after = result.score_before, result.score_after
        scores = " → ".join(f"{value:.3f}" for value in (before, after) if value is not None)
        drift = {None: "–", True: "[yellow]drifted[/]", False: "quiet"}[result.drifted]
        mood = moods.get(result.decision)
        table.add_row(
            result.window,
            escape(result.rows),
            drift,
            result.trigger or "–",
            f"[{mood}]{result.decision}[/]" if mood else result.decision,
            result.champion,
            scores if before is not None and before != after else scores.split(" → ")[0],
            f"{result.seconds:.0f} s",
        )
    show_table(table)
    out.print(f"{score}: on the window's own test rows, before → after its run", style="dim")


def _print_next_steps(config: ProjectConfig, project: str, page: Path) -> None:
    from components import home
    from components.registry import without_password
    from pipelines.replay import LABELS_NOTE

    here = Path(sys.argv[0])
    tokiwa = "tokiwa" if shutil.which("tokiwa") else relative(here)
    mlflow = "mlflow" if shutil.which("mlflow") else relative(here.with_name("mlflow"))
    typed = quoted(project)
    out.print(LABELS_NOTE, style="dim")
    out.print("\n[bold]look further[/]")
    for what, command in (
        ("report", relative(page)),
        (
            "training curves",
            f"{mlflow} ui --backend-store-uri {without_password(home.tracking_uri())}",
        ),
        ("who served when", f"{tokiwa} history {typed}"),
        ("ask the champion", f"{tokiwa} predict {typed} {_SAMPLES[config.task.content]}"),
        ("serve it", f"{tokiwa} serve {typed}"),
    ):
        out.print(f"  {what:<17} {command}", markup=False, soft_wrap=True)
