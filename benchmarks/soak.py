"""One server under a steady load for an hour: does it answer, and does its memory stay flat?

The load is modest and fixed, so that what the machine does besides does not decide the result.
Clients behave as ``429`` asks them to: they come again after ``Retry-After``, ``RETRIES`` times
at most. A request is available if it was answered in the end; how many had to come again is
told beside it. The server keeps a tenth of the requests in its store, as one in use would. ::

    python -m benchmarks.soak --minutes 60 --rate 40
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.export import movie_rows
from benchmarks.figures import Figure, run
from benchmarks.load import Outcome
from benchmarks.rollout import show
from benchmarks.serve import Server, our_server, write_bundle
from components.serve.challenger import resident_bytes

MINUTES, QUICK_MINUTES, RATE = 60.0, 1.0, 40.0
PIECE_S = 30.0
"""The load is sent in pieces of so long; memory is looked at after each."""
RETRIES = 5
CONFIG = '{"requests": {"sample": 0.1}}'
MIN_AVAILABLE, MAX_ERRORS, MAX_GROWTH, MAX_P95_MS = 0.999, 0.001, 0.05, 200.0

_progress = Console(stderr=True, highlight=False)


def measure(minutes: float, rate: float, quick: bool) -> list[Figure]:
    """Load our server for so many minutes, with ``rate`` requests a second."""
    texts = movie_rows(0)["text"].tolist()
    outcomes: list[Outcome] = []
    resident_mb: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_bundle(folder / "bundle")
        ours = stack.enter_context(our_server(folder, CONFIG))
        until_s = time.monotonic() + 60 * (min(minutes, QUICK_MINUTES) if quick else minutes)
        while (left_s := until_s - time.monotonic()) > 0:
            seconds = min(PIECE_S, max(1.0, left_s))
            outcomes.append(ours.ask(texts, seconds, rate=rate, retries=RETRIES))
            resident_mb.append(_resident_mb(ours))
            _tell(outcomes[-1], resident_mb[-1])
    return _figures(outcomes, resident_mb)


def _figures(outcomes: Sequence[Outcome], resident_mb: Sequence[float]) -> list[Figure]:
    asked = sum(sum(each.statuses.values()) + each.skipped for each in outcomes)
    good = sum(each.statuses.get("200", 0) for each in outcomes)
    errors = sum(each.errors for each in outcomes)
    again = sum(each.retried for each in outcomes)
    latencies_ms = np.concatenate([each.latencies_ms for each in outcomes])
    p95_ms = float(np.percentile(latencies_ms, 95))
    warm_mb, end_mb = resident_mb[len(resident_mb) // 4], resident_mb[-1]
    growth = end_mb / warm_mb - 1
    return [
        Figure(
            figure=f"available of {asked:,}, after {again:,} retries",
            ours=round(good / asked, 6),
            peer=MIN_AVAILABLE,
            ratio=None,
            goal=f"at least {MIN_AVAILABLE:.1%} answered",
            holds=good / asked >= MIN_AVAILABLE,
        ),
        Figure(
            figure="neither answered nor refused",
            ours=round(errors / asked, 6),
            peer=MAX_ERRORS,
            ratio=None,
            goal=f"fewer than {MAX_ERRORS:.1%}",
            holds=errors / asked < MAX_ERRORS,
        ),
        Figure(
            figure="p95, ms",
            ours=round(p95_ms, 1),
            peer=MAX_P95_MS,
            ratio=round(p95_ms / MAX_P95_MS, 2),
            goal=f"under {MAX_P95_MS:g} ms, retries included",
            holds=p95_ms < MAX_P95_MS,
        ),
        Figure(
            figure="memory at the end, MB, beside the first quarter's",
            ours=round(end_mb, 1),
            peer=round(warm_mb, 1),
            ratio=round(end_mb / warm_mb, 3),
            goal=f"at most {MAX_GROWTH:.0%} more",
            holds=growth <= MAX_GROWTH,
        ),
    ]


def _tell(outcome: Outcome, resident_mb: float) -> None:
    _progress.print(
        f"{time.strftime('%H:%M:%S')}  {outcome.per_second:5.1f} answers/s  "
        f"p95 {outcome.percentile_ms(95):6.1f} ms  {resident_mb:6.1f} MB  "
        f"{outcome.statuses}  {outcome.retried} retries  machine's load {os.getloadavg()[0]:.1f}"
    )


def _resident_mb(server: Server) -> float:
    """Return the memory of a server; nothing where there is no /proc."""
    return (resident_bytes(server.pid) or 0) / 1e6


def main() -> int:
    """Read the command line, and soak."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--rate", type=float, default=RATE)
    options, rest = parser.parse_known_args()
    return run(partial(measure, options.minutes, options.rate), show, rest)


if __name__ == "__main__":
    sys.exit(main())
