"""Run all benchmarks: ``python -m benchmarks [--quick] [--json]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from benchmarks import compile as compiling
from benchmarks import (
    drift,
    export,
    finetune,
    gate,
    ingest,
    loop,
    partitions,
    policies,
    quality,
    rollout,
    serve,
)
from benchmarks.figures import Benchmark, Figure, run

BENCHMARKS: dict[str, Benchmark] = {
    "compile": compiling,
    "loop": loop,
    "finetune": finetune,
    "export": export,
    "gate": gate,
    "drift": drift,
    "ingest": ingest,
    "partitions": partitions,
    "policies": policies,
    "quality": quality,
    "rollout": rollout,
    "serve": serve,
}


def measure(quick: bool) -> list[Figure]:
    """Return the figures of all benchmarks, each under the name of its module."""
    return [
        replace(each, figure=f"{name}: {each.figure}")
        for name, benchmark in BENCHMARKS.items()
        for each in benchmark.measure(quick)
    ]


def show(figures: Sequence[Figure]) -> None:
    """Let each benchmark show its own figures."""
    for name, own in groupby(figures, lambda each: each.figure.split(": ")[0]):
        BENCHMARKS[name].show(
            [replace(each, figure=each.figure.removeprefix(f"{name}: ")) for each in own]
        )


if __name__ == "__main__":
    sys.exit(run(measure, show))
