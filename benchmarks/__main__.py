"""Run all benchmarks: ``python -m benchmarks [--quick] [--json]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import groupby

from benchmarks import loop
from benchmarks.figures import Benchmark, Figure, run

BENCHMARKS: dict[str, Benchmark] = {"loop": loop}


def measure(quick: bool) -> list[Figure]:
    """Return the figures of all benchmarks, each under the name of its module."""
    return [
        Figure(f"{name}: {each.figure}", each.ours, each.peer, each.ratio, each.goal, each.holds)
        for name, benchmark in BENCHMARKS.items()
        for each in benchmark.measure(quick)
    ]


def show(figures: Sequence[Figure]) -> None:
    """Let each benchmark show its own figures."""
    for name, own in groupby(figures, lambda each: each.figure.split(": ")[0]):
        BENCHMARKS[name].show(
            [Figure(each.figure.split(": ", 1)[1], *list(vars(each).values())[1:]) for each in own]
        )


if __name__ == "__main__":
    sys.exit(run(measure, show))
