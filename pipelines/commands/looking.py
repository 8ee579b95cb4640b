"""Commands that show what happened and change nothing: status, history, why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from components.errors import BadInput
from pipelines.commands.options import AsJson, Overrides, Project
from pipelines.commands.printing import (
    out,
    print_json,
    print_replays,
    print_table,
    print_warning,
    to_the_second,
)
from pipelines.project_file import load

if TYPE_CHECKING:
    from components.decisions import Decision


def status(project: Project, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show the champion, a candidate that waits, open alerts, the last runs and open events."""
    from components.alerts import Alert
    from components.freeze import Freeze
    from pipelines.history import awaiting, first_step, replay_of, state_of

    config = load(project, overrides or ())
    state = state_of(config)
    if as_json:
        print_json(state)
        return
    champion = state["champion"]
    if champion is None:
        out.print(
            f"{state['project']} has no champion yet; {first_step(config, project)}",
            markup=False,
            soft_wrap=True,
        )
    else:
        since = f"{champion['action']} at {to_the_second(champion['at'])}"
        out.print(
            f"[bold]{state['project']}[/] serves version {champion['version'] or '–'} "
            f"(generation {champion['number']}, {since})\n"
            f"{escape(champion['reason'])}",
            soft_wrap=True,
        )
        print_replays(project, [replay_of(champion)])
        if waiting := awaiting(config):
            out.print(
                f"version {waiting.candidate.version} waits for approval: "
                f"{waiting.way_to_promote(project)}",
                markup=False,
                soft_wrap=True,
            )
    if state["frozen"]:
        out.print(Freeze(**state["frozen"]).words, style="yellow", markup=False, soft_wrap=True)
    for alert in state["alerts"]:
        out.print(f"alert, {Alert(**alert).words}", style="yellow", markup=False, soft_wrap=True)
    print_table(("run", "window", "result", "reason"), state["runs"])
    print_table(("event", "owner", "state", "detail"), state["events"])


def history(
    project: Project,
    played: Annotated[
        str | None, typer.Option("--replay", help="Id of a replay, to list its own promotions.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Only who served then: 2026-11-01, or with a time.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List all promotions and rollbacks, oldest first."""
    from pipelines.history import costs_of, entries_of, first_step, replay_of
    from pipelines.rollouts import moment_of, served_at

    config = load(project, overrides or ())
    if at and played:
        raise BadInput("--at asks the project's own ledger; leave out --replay")
    if at:
        if moment_of(config, at) > datetime.now(UTC):
            print_warning(f"{at} has not come yet; this is who serves now")
        entries = [each.model_dump(mode="json") for each in served_at(config, at)]
    else:
        entries = entries_of(config, played or "")
    costs = {} if played else costs_of(config)
    # What a version cost is of all the times that it served, and is told at the last of them.
    last_of = {each["version"] or each["bundle"][:12]: each for each in entries}
    for version, entry in last_of.items():
        if cost := costs.get(version):
            entry["cost"] = cost
    if as_json:
        print_json(entries)
        return
    if not entries and at:
        first = next(iter(entries_of(config)), None)
        if first:
            since = f"the first champion serves since {to_the_second(first['at'])}"
        else:
            since = f"there was no champion ever; {first_step(config, project)}"
        out.print(f"nobody served at {at}: {since}", markup=False, soft_wrap=True)
    elif not entries:
        empty = f"the ledger is empty; {first_step(config, project)}"
        out.print(empty, markup=False, soft_wrap=True)
    for entry in entries:
        # No table: on a narrow screen it would break the ids of runs, and the reasons.
        said = f"{entry['number']:<3} {to_the_second(entry['at'])}  {entry['action']:<8} "
        said += f"version {entry['version'] or '–'} by {entry['by']}\n    {entry['reason']}"
        if "cost" in entry:
            said += f"\n    {_cost_words(**entry['cost'])}"
        out.print(said, markup=False, soft_wrap=True)
    print_replays(project, [replay_of(entry) for entry in entries])


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
        print_json([each.model_dump(mode="json") for each in decisions])
        return
    _print_decision(decisions[-1], made)
    if len(decisions) > 1:
        out.print(
            f"the last of {len(decisions)} looks at this window; --json shows all", style="dim"
        )


def _cost_words(
    predictions: int, device_seconds_per_1000: float, money_per_1000: float | None
) -> str:
    """Say what answers of a version cost."""
    price = "" if money_per_1000 is None else f", at a price of {money_per_1000:.3g},"
    spent = f"{device_seconds_per_1000:.3g} device-seconds"
    return f"{spent}{price} per 1,000 of {predictions:,} predictions"


def _print_decision(decision: Decision, played: str) -> None:
    """Explain a decision in plain words: every trigger, and every rule with its measure."""
    mood = {"retrain": "green", "label": "yellow", "wait": "bold"}[decision.action]
    where = f" in the replay {played}" if played else ""
    out.print(f"window {decision.window}: [{mood}]{escape(decision.headline)}[/]", soft_wrap=True)
    said = f"decided by run {decision.run} at {to_the_second(decision.at)}{where}"
    out.print(f"{said}\ndrift found: {decision.finding}\n", markup=False, soft_wrap=True)
    print_table(
        ("trigger", "says"),
        [
            {"trigger": name, "says": reason or "nothing"}
            for name, reason in decision.triggers.items()
        ],
    )
    if decision.rules:
        out.print()
    columns = ("rule", "verdict", "measured", "threshold")
    print_table(columns, [each.model_dump() for each in decision.rules])
