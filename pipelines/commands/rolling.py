"""Commands about what serves: rollout, rollback, score."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.errors import BadInput
from pipelines.commands.options import AsJson, Overrides, Project, Reason
from pipelines.commands.printing import out, print_json, print_table, quoted, to_the_second
from pipelines.progress import working
from pipelines.project_file import load

if TYPE_CHECKING:
    from pipelines.rollouts import Standing

LOOK_S = 1.0


def rollout(
    project: Project,
    version: Annotated[
        str | None, typer.Argument(help="Begin with this challenger; by default, only show.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show until it has ended.")] = False,
    stop: Annotated[
        bool, typer.Option("--stop", help="End the rollout; the champion stays.")
    ] = False,
    reason: Annotated[
        str, typer.Option(help="Why it begins or ends, for those who read the history.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Begin in spite of the gate's verdict.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show how a challenger proves itself on real requests; begin or stop that."""
    config = load(project, overrides or ())
    if (version or stop) and not reason:
        raise BadInput("say why, for those who read the history: --reason …")
    if version and stop:
        raise BadInput("a rollout either begins or is stopped")
    with working("loading what rollouts need", quiet=as_json):
        from pipelines import rollouts
    if version:
        with working(f"beginning the rollout of version {version}", quiet=as_json):
            rollouts.start(config, project, version, reason, force)
    if stop:
        rollouts.stop(config, reason)
    shown = 0
    while True:
        stands = rollouts.standing(config)
        if stands is None:
            stages = "say in deploy.rollout through which stages, then "
            first = "" if config.deploy.rollout else stages
            raise BadInput(
                f"{config.name} has had no rollout yet; {first}begin one: "
                f"tokiwa rollout {quoted(project)} VERSION --reason …"
            )
        if watch and not as_json:
            for move in stands.moves[shown:]:
                said = f"{to_the_second(move.at)}  {move.words}: {move.reason}"
                out.print(said, markup=False, soft_wrap=True)
            shown = len(stands.moves)
        if not watch or not stands.last.is_live:
            break
        time.sleep(LOOK_S)
    if as_json:
        print_json(_content(stands))
        return
    if not watch:
        _print(stands, quoted(project))


def rollback(
    project: Project,
    reason: Reason,
    version: Annotated[
        str, typer.Argument(help="A version that has served, or previous.")
    ] = "previous",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make a former champion champion again; servers follow within seconds."""
    config = load(project, overrides or ())
    with working("rolling back", quiet=as_json):
        from pipelines.rollouts import roll_back

        done = roll_back(config, version, reason)
    entry, errors = done.entry, (done.alias_error, done.service_error)
    if as_json:
        alias_error, service_error = errors
        said = entry.model_dump(mode="json")
        print_json({**said, "alias_error": alias_error, "service_error": service_error})
        return
    out.print(
        f"version {entry.version or entry.bundle[:12]} is the champion again, "
        f"generation {entry.number}",
        markup=False,
    )
    for what, error in zip(("MLflow's alias", "the rollout beside it"), errors, strict=True):
        if error:
            out.print(f"{what} could not follow: {error}", style="yellow", markup=False)


def score(
    project: Project,
    input_file: Annotated[Path, typer.Option("--input", help="Parquet file to answer.")],
    output_file: Annotated[Path, typer.Option("--output", help="Parquet file to write.")],
    column: Annotated[
        str | None,
        typer.Option(help="Of texts, or images as base64; else score.column, or the source's."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an output of another input, column or version."),
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Answer all rows of a Parquet file; a run that was killed carries on when run again."""
    from components import home
    from components.ledger import Ledger
    from components.score.core import ScoreConfig, column_names, first_column
    from components.score.core import score as score_rows
    from components.serve.model import BundleModel
    from pipelines.history import head_of

    def say(words: str) -> None:
        if not as_json:
            print(f"  {words}", file=sys.stderr, flush=True)

    config, store = load(project, overrides or ()), home.store()
    head_of(config, project)
    named = column or config.score.column
    if named == ScoreConfig().column and not column:
        texts = [each.text for each in config.source.forms if each.text]
        named = first_column(input_file, [named, *texts])
    if config.task.content == "record" and named not in column_names(input_file):
        raise BadInput(
            f"{input_file} has no column {named!r} of records, which are JSON objects of the "
            "columns of the task; make one, such as with pandas: table[[…]].apply(lambda row: "
            "row.to_json(), axis=1), and name it with --column"
        )
    asked = config.score.model_copy(update={"column": named})
    with working("opening the champion", quiet=as_json) as told:
        report = score_rows(
            input_file,
            output_file,
            Ledger(store, config.ledger),
            partial(BundleModel.load, store, trusted=asked.trusted_keys),
            asked,
            force=force,
            progress=told,
            say=say,
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    out.print(f"{report.headline}: {output_file}", markup=False, soft_wrap=True)


def _content(stands: Standing) -> dict[str, Any]:
    judgement = stands.judgement
    return {
        "rollout": stands.last.rollout,
        "version": stands.last.version,
        "state": stands.last.state,
        "stage": stands.last.words,
        "moves": [each.model_dump(mode="json", exclude={"config"}) for each in stands.moves],
        "judgement": judgement.model_dump(mode="json"),
        "seen": stands.seen.model_dump(mode="json"),
        "awaits_person": stands.awaits_person,
        "servers": stands.servers,
    }


def _print(stands: Standing, project: str) -> None:
    last = stands.last
    out.print(
        f"[bold]version {last.version}[/] beside generation {last.generation}: {last.words}",
        soft_wrap=True,
    )
    print_table(
        ("at", "stage", "by", "reason"),
        [
            {
                "at": to_the_second(move.at),
                "stage": move.words,
                "by": move.by,
                "reason": move.reason,
            }
            for move in stands.moves
        ],
    )
    when = "now" if last.is_live else "in its last stage"
    out.print(f"\n{when}: {stands.judgement.reason}", markup=False, soft_wrap=True)
    columns = ("name", "measured", "limit")
    print_table(columns, [each.model_dump() for each in stands.judgement.checks])
    arms = {"champion": stands.seen.champion, "challenger": stands.seen.challenger}
    print_table(
        ("side", "requests", "errors", "median ms", "95 % ms"),
        [
            {
                "side": side,
                "requests": arm.requests,
                "errors": arm.errors,
                "median ms": _ms(arm.quantile_ms(0.5)),
                "95 % ms": _ms(arm.quantile_ms(0.95)),
            }
            for side, arm in arms.items()
        ],
    )
    if stands.awaits_person:
        out.print(
            f"next: tokiwa promote {project} {last.version} --reason …, or nothing: "
            "the champion stays",
            markup=False,
            soft_wrap=True,
        )
    if last.is_live and not stands.servers:
        out.print("no server follows: nothing moves it on", style="yellow")


def _ms(latency: float | None) -> str | None:
    return None if latency is None else f"{latency:.1f}"
