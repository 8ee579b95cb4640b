"""Commands that train on this machine: run, monitor, tune, evaluate, online, adopt."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from components.errors import ConfigError
from pipelines import progress, runners
from pipelines.commands.options import AsJson, NoCache, Overrides, Project, Verbose, Window, ready
from pipelines.commands.printing import out, print_json, print_table, quoted, relative
from pipelines.console import show_table
from pipelines.project import ProjectConfig
from pipelines.project_file import load


def run(
    project: Project,
    window: Window = "latest",
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    no_cache: NoCache = False,
) -> None:
    """Train a challenger on a window, and promote it if it wins."""
    _run_graph("training", project, window, overrides, as_json, verbose, no_cache)


def monitor(
    project: Project,
    window: Window = "latest",
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    no_cache: NoCache = False,
    retrain: Annotated[
        str | None, typer.Option(metavar="REASON", help="Ask for a retrain, and say why.")
    ] = None,
) -> None:
    """Look for drift in a window, and retrain if need be."""
    request = f"{getpass.getuser()}: {retrain}" if retrain else ""
    _run_graph("monitoring", project, window, overrides, as_json, verbose, no_cache, request)


def tune(
    project: Project,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all, instead of finetune.search.trials.")
    ] = None,
    window: Window = "latest",
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Search for good hyperparameters, or carry a search on; train and promote nothing."""
    from pipelines.history import page_of

    if load(project, overrides or ()).finetune.search is None:
        raise ConfigError(f"{project} has no finetune.search, which says what to try")
    more = [f"finetune.search.trials={trials}"] if trials else []
    config = ready(project, [*(overrides or ()), *more], window)
    with progress.watching(f"search of {config.name}", verbose=verbose, quiet=as_json) as watch:
        done = runners.run_project(config, "tuning", window=window, cause="manual", watch=watch)
    if "choose" not in done.steps:
        reason = done.steps["decline"].content()["reason"]
        if as_json:
            print_json({"result": "declined", "reason": reason})
        else:
            out.print(f"[bold]declined[/]: {escape(reason)}", soft_wrap=True)
        return
    _print_search(done.steps["choose"].content(), page_of(done, "choose", "trials"), as_json)


def evaluate(
    project: Project,
    folds: Annotated[int, typer.Option(min=2, help="Parts that the rows are cut into.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each fold.")] = 5,
    by: Annotated[
        Literal["stratified", "grouped", "time"],
        typer.Option(help="How to cut; time learns from the past alone."),
    ] = "stratified",
    window: Window = "latest",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train with several seeds on several folds, to see how much a score owes to chance."""
    from components import home
    from pipelines.repeatability import repeatability, to_html

    config = ready(project, overrides, window)
    with progress.working("preparing the rows", quiet=as_json) as counted:
        report = repeatability(config, window, folds, seeds, by, counted)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    place = home.home() / "repeatability" / f"{config.name}.html"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(to_html(report), encoding="utf-8")
    rows = [
        {
            "score": name.replace("_", " "),
            "mean": f"{each.mean:.3f}",
            "deviation": f"{each.deviation:.3f}",
            "by seed alone": "–" if each.seed_deviation is None else f"{each.seed_deviation:.3f}",
            "95 % interval": f"{each.low:.3f} … {each.high:.3f}",
        }
        for name, each in report.summaries.items()
    ]
    print_table(tuple(rows[0]), rows)
    out.print(escape(report.headline), soft_wrap=True)
    out.print(f"page: {relative(place)}", markup=False, soft_wrap=True)


def online(
    project: Project,
    follow_s: Annotated[
        float | None, typer.Option("--follow", min=1, help="Look again every so many seconds.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Learn the labels that came since the last training, and let the better model serve."""
    from pipelines.online import learn

    config = ready(project, overrides)
    while True:
        with progress.working("looking for new labels", quiet=as_json) as counted:
            report = learn(config, project, counted)
        if as_json:
            print_json(report.model_dump(mode="json"))
        else:
            for line in report.lines:
                out.print(line, markup=False, soft_wrap=True)
        if follow_s is None:
            return
        time.sleep(follow_s)


def adopt(
    project: Project,
    model: Annotated[str, typer.Argument(help="A transformers folder, or models:/name/version.")],
    window: Window = "latest",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make an existing model the first champion."""
    from pipelines.adopt import adopt as adopt_model

    config = ready(project, overrides, window)
    with progress.working("reading the model", quiet=as_json) as counted:
        entry = adopt_model(config, project, model, window, counted)
    if as_json:
        print_json(entry.model_dump(mode="json"))
        return
    out.print(f"version {entry.version} is the champion, generation {entry.number}")


def _run_graph(
    graph: str,
    project: str,
    window: str,
    overrides: list[str] | None,
    as_json: bool,
    verbose: bool,
    no_cache: bool,
    request: str = "",
) -> None:
    from pipelines.history import page_of

    config = ready(project, overrides, window)
    with progress.watching(f"{graph} of {config.name}", verbose=verbose, quiet=as_json) as watch:
        done = runners.run_project(
            config,
            graph,
            window=window,
            cause="manual",
            caching=not no_cache,
            request=request,
            watch=watch,
        )
    outcome, page = done.outcome, page_of(done, "notify", "page")
    if as_json:
        print_json({key: value for key, value in outcome.items() if key != "records"})
        return
    out.print(f"[bold]{outcome['result']}[/]: {escape(outcome['reason'])}", soft_wrap=True)
    for line in _ways_on(config, project, done):
        out.print(line, markup=False, soft_wrap=True)
    out.print(f"report: {page}", markup=False, soft_wrap=True)


def _ways_on(config: ProjectConfig, project: str, done: runners.Run) -> Iterator[str]:
    """Say what a person can do about a challenger that was not promoted."""
    from components.split import TEST_SHARE

    outcome = done.outcome
    registered = outcome["records"].get("register")
    if registered is None or outcome["result"] not in ("kept", "inconclusive"):
        return
    evaluated = done.steps.get("evaluate")
    more = evaluated.content()["more_rows"] if evaluated and evaluated.report else None
    if outcome["result"] == "inconclusive" and more is not None:
        in_all = f"{round(more / TEST_SHARE):,} more rows in all, of which {TEST_SHARE:.0%} test"
        yield (
            f"next: more rows, and run again: about {more:,} more test rows would decide, so about "
            f"{in_all}"
        )
    elif outcome["result"] == "inconclusive":
        yield "next: more rows, and run again; how many would decide cannot be told from these"
    if "evaluate.min_groups" in outcome["reason"]:
        yield "or be content with less: lower evaluate.min_groups in the project file"
    yield (
        f"or promote it in spite of that: tokiwa promote {quoted(project)} "
        f"{registered['version']} --force --reason …"
    )


def _print_search(found: dict[str, Any], page: Path, as_json: bool) -> None:
    import yaml

    best, metric = found["trials"][0], found["metric"]
    if as_json:
        named = ("study", "metric", "trials")
        print_json({"best": best, **{name: found[name] for name in named}})
        return
    show_table(progress.trials_table([{"metric": metric, **trial} for trial in found["trials"]]))
    tree: dict[str, Any] = {}
    for key, value in best["values"].items():
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    shown = f"valid {metric.replace('_', ' ')} {best['score']:.4f}"
    out.print(f"\n[bold]trial {best['number']}[/] is the best, {shown}; for the project file:\n")
    text = yaml.safe_dump({"finetune": tree}, sort_keys=False, allow_unicode=True)
    out.print(text, markup=False, soft_wrap=True)
    out.print(f"report: {page}", markup=False, soft_wrap=True)
