"""The form of a figure, and the command line that all benchmarks share."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from rich.console import Console


@dataclass(frozen=True)
class Figure:
    """Something of ours, measured beside its peer.

    Attributes:
        figure: what was measured.
        ours: our value.
        peer: the value of what we compare with.
        ratio: ours by peer; None where the peer is nothing.
        goal: what should hold, in words.
        holds: whether it does.
    """

    figure: str
    ours: float
    peer: float
    ratio: float | None
    goal: str
    holds: bool


class Benchmark(Protocol):
    """A module that measures."""

    def measure(self, quick: bool) -> list[Figure]: ...

    def show(self, figures: Sequence[Figure]) -> None: ...


out = Console(highlight=False, emoji=False)


def run(
    measure: Callable[[bool], list[Figure]],
    show: Callable[[Sequence[Figure]], None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Measure and print; return 1 if a goal does not hold."""
    parser = argparse.ArgumentParser(description="Measure, beside a peer.")
    parser.add_argument("--quick", action="store_true", help="less data")
    parser.add_argument("--json", action="store_true", help="a list of figures")
    options = parser.parse_args(arguments)
    # As the runner sets them for its steps; OpenMP reads its own when torch is loaded.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    figures = measure(options.quick)
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    else:
        show(figures)
    return int(not all(figure.holds for figure in figures))
