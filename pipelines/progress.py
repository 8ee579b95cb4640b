"""What a person sees while a run goes on: a table of steps, or plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from pipelines.runners import Run, Step, Watch

_MARKS = {
    "running": "[yellow]●[/]",
    "done": "[green]✓[/]",
    "cached": "[cyan]↺[/]",
    "failed": "[red]✗[/]",
}
_REDRAWS_PER_S = 4


@contextmanager
def watching(title: str, *, verbose: bool, quiet: bool = False) -> Iterator[Watch]:
    """Show a run on standard error, so that standard output stays for results.

    Args:
        title: what runs.
        verbose: show every line as it comes, instead of the table.
        quiet: show nothing at all.
    """
    console = Console(stderr=True, highlight=False, emoji=False)
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
def counting(*, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Show how much of one long task is done; yields ``(done, total, what)`` to be told."""
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal  # else it leaves an empty line
    with Progress(console=console, disable=hidden, transient=True) as bar:
        task = bar.add_task("", total=None)

        def tell(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield tell


@contextmanager
def _live(title: str, console: Console) -> Iterator[Watch]:
    shown: list[Run] = []

    def draw() -> Table:
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
        return table

    live = Live(get_renderable=draw, console=console, refresh_per_second=_REDRAWS_PER_S)

    def watch(run: Run, step: Step | None, line: str) -> None:
        shown[:] = [run]

    with live:
        yield watch


def _plain(console: Console) -> Watch:
    told: set[tuple[str, str]] = set()

    def watch(run: Run, step: Step | None, line: str) -> None:
        for each in run.steps.values():
            if each.state == "running" or (each.name, each.state) in told:
                continue
            told.add((each.name, each.state))
            took = "cached" if each.state == "cached" else f"{each.seconds:.1f} s"
            words = escape(each.error or each.headline)
            console.print(
                f"  {_MARKS[each.state]} {each.name:<9} {took:>8}  {words}", soft_wrap=True
            )

    return watch
