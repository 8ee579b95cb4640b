"""What a person sees while a run goes on: a table of steps, or plain lines."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipelines.console import open_console, plain_table
from pipelines.runners import Run, Step, Watch

_MARKS = {
    "running": "[yellow]●[/]",
    "done": "[green]✓[/]",
    "cached": "[cyan]↺[/]",
    "failed": "[red]✗[/]",
}
_REDRAWS_PER_S = 4
SILENT_S = 2.0
"""What takes longer says what it does."""
TELL_EVERY_S = 15.0
"""How often a step that goes on is told of where nothing can be drawn."""
Tell = Callable[[int, int, str], None]
"""Takes how much is done, of how much, and what that is."""


@contextmanager
def watching(title: str, *, verbose: bool, quiet: bool = False) -> Iterator[Watch]:
    """Show a run on standard error, so that standard output stays for results.

    Args:
        title: what runs.
        verbose: show every line as it comes, instead of the table.
        quiet: show nothing at all.
    """
    console = open_console(stderr=True)
    title = escape(title)
    if quiet:
        yield lambda run, step, line: None
    elif verbose:
        console.print(f"[bold]{title}[/]")
        yield lambda run, step, line: print(line, file=sys.stderr)
    elif console.is_terminal:
        with _live(title, console) as watch:
            yield watch
    else:
        console.print(title)
        yield _plain(console)


@contextmanager
def working(title: str, *, quiet: bool = False) -> Iterator[Tell]:
    """Show that one long task goes on, and how much of it is done if it tells.

    Args:
        title: what is done, for whoever waits.
        quiet: show nothing at all.

    Yields:
        What to tell ``(done, total, what)``; nobody has to.
    """
    console = open_console(stderr=True)
    if quiet:
        yield lambda done, total, what: None
    elif console.is_terminal:
        words = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), words, BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total, what: bar.update(
                task, completed=done, total=total, description=f"{what} {done}/{total}"
            )
    else:
        with _plain_words(title, console) as tell:
            yield tell


@contextmanager
def _plain_words(title: str, console: Console) -> Iterator[Tell]:
    """Say what goes on in a line, if it takes long, and then now and then how far it is."""
    told_s = time.monotonic()

    def say(words: str) -> None:
        console.print(f"  {words}", markup=False, soft_wrap=True)

    def tell(done: int, total: int, what: str) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= TELL_EVERY_S:
            told_s = time.monotonic()
            say(f"{what} {done}/{total}")

    # A thread, because what takes long may be a library that is being loaded.
    first = threading.Timer(SILENT_S, say, [f"{title} …"])
    first.start()
    try:
        yield tell
    finally:
        first.cancel()
        first.join()


@contextmanager
def _live(title: str, console: Console) -> Iterator[Watch]:
    shown: list[Run] = []

    def draw() -> Group:
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column("")
        table.add_column("step")
        table.add_column("time", justify="right")
        table.add_column("", overflow="fold")
        for step in shown[0].steps.values() if shown else ():
            if step.state == "running":
                step.seconds = time.monotonic() - step.started_s
            words = step.error or (step.progress if step.state == "running" else step.headline)
            took = "cached" if step.state == "cached" else f"{step.seconds:.1f} s"
            table.add_row(_MARKS[step.state], step.name, took, escape(words))
        steps = shown[0].steps.values() if shown else ()
        trials = [trial for step in steps for trial in step.trials.values()]
        trials.sort(key=lambda trial: trial["number"])
        return Group(table, *([trials_table(trials)] if trials else []))

    live = Live(get_renderable=draw, console=console, refresh_per_second=_REDRAWS_PER_S)

    def watch(run: Run, step: Step | None, line: str) -> None:
        shown[:] = [run]

    with live:
        yield watch


def _plain(console: Console) -> Watch:
    told: set[tuple[str, str]] = set()
    told_s: dict[str, float] = {}

    def watch(run: Run, step: Step | None, line: str) -> None:
        for each in run.steps.values():
            if each.state == "running":
                now_s = time.monotonic()
                if each.progress and now_s - told_s.get(each.name, each.started_s) >= TELL_EVERY_S:
                    told_s[each.name] = now_s
                    took = f"{now_s - each.started_s:.0f} s"
                    words = escape(each.progress)
                    mark = _MARKS[each.state]
                    console.print(f"  {mark} {each.name:<9} {took:>8}  {words}", soft_wrap=True)
                continue
            if (each.name, each.state) in told:
                continue
            told.add((each.name, each.state))
            took = "cached" if each.state == "cached" else f"{each.seconds:.1f} s"
            words = escape(each.error or each.headline)
            console.print(
                f"  {_MARKS[each.state]} {each.name:<9} {took:>8}  {words}", soft_wrap=True
            )
        for trial in [trial for each in run.steps.values() for trial in each.trials.values()]:
            name = f"trial {trial['number']}"
            if trial["state"] == "running" or (name, trial["state"]) in told:
                continue
            told.add((name, trial["state"]))
            words = escape(f"{trial['state']}: {', '.join(_trial_words(trial))}")
            console.print(f"    {name:<9} {words}", soft_wrap=True)

    return watch


def trials_table(trials: Sequence[dict[str, Any]]) -> Table:
    """Return the trials of a search as a table.

    Args:
        trials: one at least, each as ``components.studies.Trial`` with the metric.
    """
    metric = str(trials[0]["metric"]).replace("_", " ")
    table = plain_table("trial", "state", f"valid {metric}", "time", *trials[0]["values"], "")
    for trial in trials:
        score, seconds = trial["score"], trial["seconds"]
        table.add_row(
            str(trial["number"]),
            trial["state"],
            "–" if score is None else f"{score:.4f}",
            "–" if seconds is None else f"{seconds:.1f} s",
            *(escape(_shown(value)) for value in trial["values"].values()),
            escape(trial["reason"]),
        )
    return table


def _trial_words(trial: dict[str, Any]) -> Iterator[str]:
    if trial["score"] is not None:
        yield f"valid {trial['metric'].replace('_', ' ')} {trial['score']:.4f}"
    yield from (f"{key}={_shown(value)}" for key, value in trial["values"].items())
    if trial["seconds"] is not None:
        yield f"{trial['seconds']:.1f} s"
    if trial["reason"]:
        yield trial["reason"]


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
