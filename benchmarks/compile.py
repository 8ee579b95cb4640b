"""How long the default project takes to compile, beside kfp without the pods' settings.

Both graphs, in a process that has imported everything, and by the command from its start;
the fastest of a few rounds counts, because whatever else the machine does only adds.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table

from benchmarks.figures import Figure, out, run

PROJECT = "sentiment"
ROUNDS, QUICK_ROUNDS = 5, 2
LIMIT_S = 3.0
GRAPHS, COMMAND = "both graphs", "tokiwa compile"


def measure(quick: bool) -> list[Figure]:
    """Compile with and without section ``cluster``, and by the command."""
    from pipelines import runners
    from pipelines.project_file import load

    project, rounds = load(PROJECT), QUICK_ROUNDS if quick else ROUNDS
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)

        def local() -> None:
            for graph in runners.GRAPHS:
                runners.compiled(graph, folder)

        def command() -> None:
            words = [sys.executable, "-c", "from pipelines.cli import entry; entry()"]
            subprocess.run(
                [*words, "compile", PROJECT, "--out", str(folder)], check=True, capture_output=True
            )

        ours = _fastest_s(lambda: runners.packages_of(project, folder), rounds)
        peer, whole = _fastest_s(local, rounds), _fastest_s(command, rounds)
    return [_figure(GRAPHS, ours, peer), _figure(COMMAND, whole, peer)]


def _figure(name: str, ours_s: float, peer_s: float) -> Figure:
    return Figure(
        figure=name,
        ours=round(ours_s, 2),
        peer=round(peer_s, 2),
        ratio=round(ours_s / peer_s, 2),
        goal=f"under {LIMIT_S:g} s",
        holds=ours_s < LIMIT_S,
    )


def _fastest_s(does: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        does()
        seconds.append(time.perf_counter() - started_s)
    return min(seconds)


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    table = Table(title="compiling", title_justify="left", box=None, pad_edge=False)
    table.add_column("what")
    for column in ("with pods", "kfp alone", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("goal")
    for each in figures:
        table.add_row(
            each.figure,
            f"[{'green' if each.holds else 'red'}]{each.ours:.2f} s[/]",
            f"{each.peer:.2f} s",
            f"{each.ratio:.2f}",
            each.goal,
        )
    out.print(table)


if __name__ == "__main__":
    sys.exit(run(measure, show))
