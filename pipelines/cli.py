"""The command ``tokiwa``. Each command parses, calls one function, and shows the result."""

from __future__ import annotations

import getpass
import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from components.errors import BadInput, ConfigError, TokiwaError
from pipelines import runners
from pipelines.project import SUFFIXES, ProjectConfig, load, shipped_projects

if TYPE_CHECKING:
    from components.decisions import Decision
    from pipelines.histories import Shape

app = typer.Typer(
    name="tokiwa",
    help="Keeps fine-tuned models fresh on Kubeflow Pipelines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
SHOWN_CONFLICTS = 20
out = Console(highlight=False, emoji=False)

Project = Annotated[str, typer.Argument(help="A shipped name, or the path of a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: finetune.epochs=3. Repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show every line of the steps.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Do every step again.")]
Window = Annotated[
    str,
    typer.Option(help="First day of a window; latest: the last with rows; now: the last whole."),
]
Reason = Annotated[str, typer.Option(help="One sentence for those who read the history.")]


@app.command()
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


@app.command()
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


@app.command()
def why(
    project: Project,
    window: Annotated[
        str | None, typer.Argument(help="First day of a window; the last decided by default.")
    ] = None,
    played: Annotated[
        str | None, typer.Option("--replay", help="Id of a replay, to explain its decisions.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Explain why a window led to a retrain, or did not."""
    from pipelines.history import decisions_of

    decisions, made = decisions_of(load(project, overrides or ()), window or "", played or "")
    if as_json:
        _print_json([each.model_dump(mode="json") for each in decisions])
        return
    _print_decision(decisions[-1], made)
    if len(decisions) > 1:
        out.print(
            f"the last of {len(decisions)} looks at this window; --json shows all", style="dim"
        )


@app.command()
def freeze(
    project: Project,
    reason: Reason,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Stop all retrains and promotions of a project."""
    _set_frozen(project, reason, overrides, as_json, frozen=True)


@app.command()
def thaw(
    project: Project,
    reason: Reason,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Allow retrains and promotions again."""
    _set_frozen(project, reason, overrides, as_json, frozen=False)


@app.command()
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
    seed: Annotated[int, typer.Option(min=0, help="Of the history.")] = 0,
) -> None:
    """Play the project's windows in order: train, watch, retrain where the world moved."""
    from components import home
    from pipelines import replay as replays

    config = _ready(project, overrides)
    if policies or history:
        _compare_policies(
            config, policies or [], history, seed, windows, not no_cache, verbose, as_json
        )
        return

    def watching(title: str) -> AbstractContextManager[runners.Watch]:
        return _watching(title, verbose, as_json)

    results = replays.replay(
        config, windows=windows, publish=publish, caching=not no_cache, watching=watching
    )
    page = home.home() / "reports" / f"{config.name}-replay.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(replays.to_html(config, results), encoding="utf-8")
    if as_json:
        _print_json([result.model_dump(mode="json") for result in results])
        return
    _print_replay(config, results)
    _print_next_steps(config, project, page)


@app.command()
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
    config = _ready(project, [*(overrides or ()), *more], window)
    with _watching(f"search of {config.name}", verbose, as_json) as watch:
        done = runners.run_project(config, "tuning", window=window, cause="manual", watch=watch)
    if "choose" not in done.steps:
        reason = done.steps["decline"].content()["reason"]
        if as_json:
            _print_json({"result": "declined", "reason": reason})
        else:
            out.print(f"[bold]declined[/]: {escape(reason)}", soft_wrap=True)
        return
    _print_search(done.steps["choose"].content(), page_of(done, "choose", "trials"), as_json)


@app.command()
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
    from pipelines.progress import counting
    from pipelines.repeatability import repeatability, to_html

    config = _ready(project, overrides, window)
    with counting(quiet=as_json) as progress:
        report = repeatability(config, window, folds, seeds, by, progress)
    if as_json:
        _print_json(report.model_dump(mode="json"))
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
    _print_table(tuple(rows[0]), rows)
    out.print(escape(report.headline), soft_wrap=True)
    out.print(f"page: {_relative(place)}", markup=False, soft_wrap=True)


@app.command()
def status(project: Project, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show the champion, the last runs and open events."""
    from components import home
    from components.freeze import Freeze
    from components.registry import without_password
    from pipelines.history import replay_of, state_of

    state = state_of(load(project, overrides or ()))
    if as_json:
        _print_json(state)
        return
    champion = state["champion"]
    if champion is None:
        place = without_password(home.store_url())
        out.print(
            f"{state['project']} has no champion yet; train one: tokiwa run {_quoted(project)}\n"
            f"(looked in {place}; set TOKIWA_HOME or TOKIWA_STORE to look elsewhere)",
            markup=False,
            soft_wrap=True,
        )
    else:
        since = f"{champion['action']} at {_second(champion['at'])}"
        out.print(
            f"[bold]{state['project']}[/] serves version {champion['version'] or '–'} "
            f"(generation {champion['number']}, {since})\n"
            f"{escape(champion['reason'])}",
            soft_wrap=True,
        )
        _print_replays(project, [replay_of(champion)])
    if state["frozen"]:
        out.print(Freeze(**state["frozen"]).words, style="yellow", markup=False, soft_wrap=True)
    _print_table(("run", "window", "result", "reason"), state["runs"])
    _print_table(("event", "owner", "state", "detail"), state["events"])


@app.command()
def history(
    project: Project,
    played: Annotated[
        str | None, typer.Option("--replay", help="Id of a replay, to list its own promotions.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List all promotions and rollbacks, oldest first."""
    from pipelines.history import entries_of, replay_of

    entries = entries_of(load(project, overrides or ()), played or "")
    if as_json:
        _print_json(entries)
        return
    if not entries:
        out.print(
            f"the ledger is empty; train a first champion: tokiwa run {_quoted(project)}",
            markup=False,
            soft_wrap=True,
        )
    for entry in entries:
        # No table: on a narrow screen it would break the ids of runs, and the reasons.
        said = f"{entry['number']:<3} {_second(entry['at'])}  {entry['action']:<8} "
        said += f"version {entry['version'] or '–'} by {entry['by']}\n    {entry['reason']}"
        out.print(said, markup=False, soft_wrap=True)
    _print_replays(project, [replay_of(entry) for entry in entries])


@app.command()
def serve(
    project: Project,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    poll_s: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 1.0,
    overrides: Overrides = None,
) -> None:
    """Serve the champion over HTTP; a new champion is picked up without a restart."""
    from components import home
    from components.serve import serve as serve_until_stopped

    config = load(project, overrides or ())
    serve_until_stopped(home.store_url(), config.ledger, config.name, host, port, poll_s)


@app.command()
def predict(
    project: Project,
    contents: Annotated[
        list[str] | None,
        typer.Argument(help="Texts or image files; without any, lines of standard input."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Answer texts or images with the champion."""
    from pipelines.history import champion_of, predictions_of

    config = load(project, overrides or ())
    asked = contents or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not asked:
        raise BadInput(f"there is no {config.task.content} to answer; name some or pipe lines in")
    model, entry = champion_of(config, project)
    rows = predictions_of(model, asked)
    if as_json:
        _print_json({"version": entry.version, "generation": entry.number, "predictions": rows})
        return
    _print_table([*(name for name in rows[0] if name != model.content), model.content], rows)


@app.command(name="compile")
def compile_graphs(
    project: Annotated[str | None, typer.Argument(help="All shipped ones by default.")] = None,
    folder: Annotated[Path, typer.Option("--out", help="Where the YAML goes.")] = Path("build"),
    overrides: Overrides = None,
) -> None:
    """Compile both graphs to IR YAML, with the project's settings as defaults."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is no folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in [project] if project else shipped_projects():
        for path in runners.packages_of(load(name, overrides or ()), folder).values():
            out.print(str(path), markup=False, soft_wrap=True)


@app.command()
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
    backend = Backend.connect(config.cluster.namespace)
    with TemporaryDirectory() as folder:
        package = runners.packages_of(config, Path(folder))[graph]
        run, link = submission.submit(config, backend, graph, package, window)
    shown = {"run": run, "link": link}
    if not as_json:
        out.print(f"started {run}: {link}", markup=False, soft_wrap=True)
    if wait:
        quiet = Console(stderr=True, highlight=False, emoji=False)
        submission.wait(backend, run, lambda state: quiet.print(state.lower(), style="dim"))
        shown |= submission.verdict_of(config, run)
        if not as_json:
            reason = shown["reason"] or "its outcome is not in the store that TOKIWA_STORE names"
            out.print(f"{shown['verdict']}: {reason}", markup=False, soft_wrap=True)
    if as_json:
        _print_json(shown)


@app.command()
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
    backend = Backend.connect(config.cluster.namespace)
    with TemporaryDirectory() as folder:
        packages = runners.packages_of(config, Path(folder))
        wanted = schedules.wanted_of(config, packages, datetime.now(UTC))
        changes = schedules.difference(config, backend, wanted, prune=prune, force=force)
        if not as_json:
            for line in schedules.explained(config, wanted, changes):
                out.print(line, markup=False, soft_wrap=True)
        if not dry_run:
            schedules.apply(config, backend, wanted, prune=prune, force=force)
    if as_json:
        _print_json([asdict(change) for change in changes])
    schedules.refuse_drift(changes)


@app.command()
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
        _print_json(rows)
        return
    if not rows:
        typed = _quoted(project)
        out.print(f"there are no runs yet; start one: tokiwa submit {typed}", markup=False)
    _print_table(("run", "name", "started", "state", "verdict", "reason"), rows)


@app.command()
def check(project: Project, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a project file, its data and its base model; run nothing."""
    from pipelines.history import labels_of

    config = _ready(project, overrides)
    rows, warnings = labels_of(config)
    for warning in warnings:
        Console(stderr=True, highlight=False, emoji=False).print(
            f"warning: {warning}", style="yellow", markup=False, soft_wrap=True
        )
    if as_json:
        _print_json(rows)
        return
    out.print(f"{config.name}: the file, the data and the base model are there")
    if not rows:
        out.print("no whole window has rows yet; see resolve.start and resolve.window_days")
    _print_table(("window", "rows", "labelled", "unlabelled", "unknown", "labels"), rows)


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines or Parquet.")],
    output: Annotated[Path | None, typer.Option("--out", help="The project file.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    text: Annotated[str | None, typer.Option(help="Column of texts, instead of a guess.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of labels, instead of a guess.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Column that names each row.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of what must not be torn apart.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of when rows happened, ISO 8601.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between columns; told from the first rows by default.")
    ] = None,
) -> None:
    """Draft a commented project file from the columns of a table."""
    from pipelines.draft import draft

    if not data.is_file():
        raise BadInput(f"there is no file {data}")
    path = output or Path(f"{data.name.split('.')[0] or 'project'}.yaml")
    if path.suffix not in SUFFIXES:
        raise BadInput(f"a project file ends in .yaml, unlike {path}")
    if not path.parent.is_dir():
        raise BadInput(f"there is no folder {path.parent}")
    if path.exists() and not force:
        raise BadInput(f"{path} exists already; --force overwrites it")
    given = {"text": text, "label": label, "id": id_, "group": group, "time": time}
    named = {role: column for role, column in given.items() if column}
    content, columns, others = draft(data, path, named, separator or "")
    path.write_text(content, encoding="utf-8")
    load(str(path))
    found = f"text is {columns.text!r}, label is {columns.label!r}"
    out.print(f"wrote {path}: {found}", markup=False, soft_wrap=True)
    for role, candidates in others.items():
        could = f"{role} could also be: {', '.join(candidates)}; choose with --{role}"
        out.print(could, markup=False, soft_wrap=True)
    typed = shlex.quote(str(path))
    out.print(f"next: tokiwa run {typed}, then tokiwa serve {typed}", markup=False, soft_wrap=True)


@app.command()
def adopt(
    project: Project,
    model: Annotated[str, typer.Argument(help="A transformers folder, or models:/name/version.")],
    window: Window = "latest",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make an existing model the first champion."""
    from pipelines.adopt import adopt as adopt_model
    from pipelines.progress import counting

    config = _ready(project, overrides, window)
    with counting(quiet=as_json) as progress:
        entry = adopt_model(config, project, model, window, progress)
    if as_json:
        _print_json(entry.model_dump(mode="json"))
        return
    out.print(f"version {entry.version} is the champion, generation {entry.number}")


Version = Annotated[str, typer.Argument(help="Of a challenger, see `tokiwa candidates`.")]


@app.command()
def candidates(project: Project, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """List the challengers that reached a verdict, and what became of each."""
    from pipelines.promotion import standings

    config = load(project, overrides or ())
    rows = [
        {
            "version": each.candidate.version,
            "state": each.state,
            "run": each.candidate.run,
            "at": _second(each.candidate.at),
            "detail": each.detail,
        }
        for each in standings(config)
    ]
    if as_json:
        _print_json(rows)
        return
    if not rows:
        out.print(f"{config.name} has no candidates yet", markup=False)
    _print_table(("version", "state", "run", "at", "detail"), rows)


@app.command()
def promote(
    project: Project,
    version: Version,
    reason: Reason,
    force: Annotated[
        bool, typer.Option("--force", help="Promote in spite of the gate's verdict.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make a challenger champion, as a person decides."""
    from pipelines.promotion import promote as promote_version

    config = load(project, overrides or ())
    report = promote_version(config, project, version, reason, force)
    if as_json:
        _print_json(report.model_dump(mode="json"))
        return
    out.print(f"version {version} is the champion, generation {report.number}")


@app.command()
def reject(
    project: Project,
    version: Version,
    reason: Reason,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Turn a challenger down that waits for approval."""
    from pipelines.promotion import reject as reject_version

    said = reject_version(load(project, overrides or ()), version, reason)
    if as_json:
        _print_json(said.model_dump(mode="json"))
        return
    out.print(f"version {version} is turned down by {said.by}: {said.reason}", markup=False)


label = typer.Typer(
    name="label",
    help="Have rows labelled by people, and take their labels in.",
    no_args_is_help=True,
)
app.add_typer(label)


@label.command()
def export(
    project: Project,
    window: Window = "latest",
    rows: Annotated[int, typer.Option(min=1, help="How many rows at most.")] = 200,
    output: Annotated[Path | None, typer.Option("--out", help="The file of JSON lines.")] = None,
    form: Annotated[
        Literal["lines", "label-studio"],
        typer.Option(help="lines: for doccano, Prodigy and the like."),
    ] = "lines",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write the most telling rows of a window that have no label, for annotation tools."""
    from pipelines.labelling import export as export_rows
    from pipelines.progress import counting

    config = _ready(project, overrides, window)
    path = output or Path(f"{config.name}-{window}.jsonl")
    if not path.parent.is_dir():
        raise BadInput(f"there is no folder {path.parent}")
    with counting(quiet=as_json) as progress:
        done = export_rows(config, project, window, rows, path, form, progress)
    if as_json:
        _print_json({"file": str(path), **asdict(done)})
        return
    out.print(
        f"wrote {path}: the {done.rows} most telling of {done.unlabelled} rows without a label "
        f"in window {done.window}\nnext: label them, then "
        f"tokiwa label import {_quoted(project)} FILE",
        markup=False,
        soft_wrap=True,
    )


@label.command(name="import")
def import_labels(
    project: Project,
    files: Annotated[
        list[Path], typer.Argument(help="What annotation tools wrote; one each, or all in one.")
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Take labels in, and say where annotators disagree."""
    from pipelines.labelling import summary, take_in

    report = take_in(load(project, overrides or ()), files)
    if as_json:
        _print_json(report.model_dump(mode="json"))
        return
    for line in summary(report):
        out.print(line, markup=False, soft_wrap=True)
    agreed = [
        {
            "annotators": f"{each.first}, {each.second}",
            "rows": each.rows,
            "agreed": f"{each.agreed:.0%}",
            "Cohen's kappa": "–" if each.kappa is None else f"{each.kappa:.2f}",
        }
        for each in report.agreements
    ]
    _print_table(("annotators", "rows", "agreed", "Cohen's kappa"), agreed)
    conflicts = [*report.conflicts, *report.against_source]
    _print_table(
        ("row", "said"),
        [
            {
                "row": each.row,
                "said": ", ".join(f"{who}: {what}" for who, what in each.said.items()),
            }
            for each in conflicts[:SHOWN_CONFLICTS]
        ],
    )
    if len(conflicts) > SHOWN_CONFLICTS:
        out.print(f"and {len(conflicts) - SHOWN_CONFLICTS} more; --json shows all", style="dim")


@app.command()
def schema() -> None:
    """Print the JSON schema of project files, for editors to complete and check them."""
    _print_json(ProjectConfig.model_json_schema(by_alias=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 2 the user's mistakes, 1 the world's."""
    try:
        app(args=list(arguments) if arguments is not None else None, standalone_mode=True)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except TokiwaError as error:
        Console(stderr=True, highlight=False, emoji=False).print(
            f"error: {error}", style="red", markup=False, soft_wrap=True
        )
        return error.exit_code
    except (runners.Interrupted, KeyboardInterrupt):
        print("stopped; nothing was left half-written, run it again", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


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

    config = _ready(project, overrides, window)
    with _watching(f"{graph} of {config.name}", verbose, as_json) as watch:
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
        _print_json({key: value for key, value in outcome.items() if key != "records"})
        return
    out.print(f"[bold]{outcome['result']}[/]: {escape(outcome['reason'])}", soft_wrap=True)
    out.print(f"report: {page}", markup=False, soft_wrap=True)


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
    from pipelines.progress import counting
    from pipelines.project import load_policy
    from pipelines.simulation import backtest_of

    if len({path.stem for path in paths}) < len(paths):
        raise BadInput("policies are told apart by the names of their files; two are the same")
    policies = {path.stem: load_policy(path) for path in paths} or {"project": config.trigger}
    if history is None:

        def watching(title: str) -> AbstractContextManager[runners.Watch]:
            return _watching(title, verbose, as_json)

        found = replays.backtest(
            config, policies, windows=windows, caching=caching, watching=watching
        )
    else:
        with counting(quiet=as_json) as progress:
            found = backtest_of(config, policies, history, seed, windows, progress)
    if as_json:
        _print_json(found.model_dump(mode="json"))
        return
    page = home.home() / "reports" / f"{config.name}-policies.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    title = f"Policies of {config.name}"
    page.write_text(to_html(title, found, config.task.score_title), encoding="utf-8")
    _print_table(HEADER, rows_of(found))
    out.print(
        f"saved and regret: beside the oracle, which retrains on every window\n"
        f"the world changed in: {', '.join(found.windows[each] for each in found.changes) or '–'}\n"
        f"report: {_relative(page)}",
        markup=False,
        soft_wrap=True,
    )


def _set_frozen(
    project: str, reason: str, overrides: list[str] | None, as_json: bool, *, frozen: bool
) -> None:
    from pipelines.promotion import set_frozen

    config = load(project, overrides or ())
    held = set_frozen(config, reason, frozen=frozen)
    if as_json:
        _print_json(held.model_dump(mode="json"))
        return
    out.print(f"{config.name} is {held.words}", markup=False, soft_wrap=True)


def _print_decision(decision: Decision, played: str) -> None:
    """Explain a decision in plain words: every trigger, and every rule with its measure."""
    mood = {"retrain": "green", "label": "yellow", "wait": "bold"}[decision.action]
    where = f" in the replay {played}" if played else ""
    out.print(f"window {decision.window}: [{mood}]{escape(decision.headline)}[/]", soft_wrap=True)
    said = f"decided by run {decision.run} at {decision.at}{where}"
    out.print(f"{said}\ndrift found: {decision.finding}\n", markup=False, soft_wrap=True)
    _print_table(
        ("trigger", "says"),
        [
            {"trigger": name, "says": reason or "nothing"}
            for name, reason in decision.triggers.items()
        ],
    )
    if decision.rules:
        out.print()
    columns = ("rule", "verdict", "measured", "threshold")
    _print_table(columns, [each.model_dump() for each in decision.rules])


def _ready(project: str, overrides: list[str] | None, window: str = "latest") -> ProjectConfig:
    """Load a project and make sure, before anything runs, that it can.

    Args:
        project: as the user names it.
        overrides: of keys of its file.
        window: that must be one of the project's.
    """
    from components.evaluate.trusted import trusted_rows
    from components.packages import locate
    from components.resolve.core import MOVING, known, known_windows, window_called

    config = load(project, overrides or ())
    timed = config.source.columns.time or all(part.at for part in config.source.files)
    if config.resolve.start is not None and not timed:
        raise ConfigError(
            f"{config.name}: resolve.start cuts rows into windows, but they carry no time; "
            "set source.columns.time, or `at` of every file"
        )
    if window not in MOVING:
        window_called(window, known_windows(config.resolve, datetime.now(UTC)), config.name)
    for root, requirement in config.source.roots:
        locate(root, requirement)
    known(config.bases)
    if config.evaluate.holdout is not None:
        trusted_rows(config.evaluate.holdout, config.task)
    return config


def _watching(title: str, verbose: bool, quiet: bool) -> AbstractContextManager[runners.Watch]:
    from pipelines.progress import watching

    return watching(title, verbose=verbose, quiet=quiet)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _quoted(project: str) -> str:
    """Return a project as it would have to be typed again."""
    return shlex.quote(project)


def _second(moment: str) -> str:
    """Return ISO 8601 with an offset in UTC, to the second."""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _print_replays(project: str, played: Iterable[str]) -> None:
    """Say how to see the promotions within replays, of which an empty id is none."""
    for each in dict.fromkeys(filter(None, played)):
        hint = (
            f"the promotions within that replay: tokiwa history {_quoted(project)} --replay {each}"
        )
        out.print(hint, style="dim", markup=False, soft_wrap=True)


def _print_table(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in _NEVER_WRAPPED)
    for row in rows:
        # Text, because what users wrote may look like rich's markup.
        cells = ("–" if row[column] is None else str(row[column]) for column in columns)
        table.add_row(*map(Text, cells))
    out.print(table)


_NEVER_WRAPPED = ("run", "window", "owner")
_SAMPLES = {"text": '"what a lovely day"', "image": "picture.png"}


def _print_search(found: dict[str, Any], page: Path, as_json: bool) -> None:
    import yaml

    from pipelines.progress import trials_table

    best, metric = found["trials"][0], found["metric"]
    if as_json:
        named = ("study", "metric", "trials")
        _print_json({"best": best, **{name: found[name] for name in named}})
        return
    out.print(trials_table([{"metric": metric, **trial} for trial in found["trials"]]))
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


def _print_replay(config: ProjectConfig, results: Sequence[Any]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    score = config.task.score_title
    header = ("window", "rows", "drift", "trained for", "decision", "version", score, "time")
    for column in header:
        table.add_column(column, no_wrap=column in ("window", score))
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
    out.print(table)
    out.print(f"{score}: on the window's own test rows, before → after its run", style="dim")


def _print_next_steps(config: ProjectConfig, project: str, page: Path) -> None:
    from components import home
    from components.registry import without_password
    from pipelines.replay import LABELS_NOTE

    here = Path(sys.argv[0])
    tokiwa = "tokiwa" if shutil.which("tokiwa") else _relative(here)
    mlflow = "mlflow" if shutil.which("mlflow") else _relative(here.with_name("mlflow"))
    typed = _quoted(project)
    out.print(LABELS_NOTE, style="dim")
    out.print("\n[bold]look further[/]")
    for what, command in (
        ("report", _relative(page)),
        (
            "training curves",
            f"{mlflow} ui --backend-store-uri {without_password(home.tracking_uri())}",
        ),
        ("who served when", f"{tokiwa} history {typed}"),
        ("ask the champion", f"{tokiwa} predict {typed} {_SAMPLES[config.task.content]}"),
        ("serve it", f"{tokiwa} serve {typed}"),
    ):
        out.print(f"  {what:<17} {command}", markup=False, soft_wrap=True)


def _relative(path: Path) -> str:
    """Return a path as short as a person would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def entry() -> None:
    """Entry point of the command."""
    sys.exit(main())
