"""What the detectors of drift cost, beside scipy, Evidently and river on the same arrays."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.figures import Figure
from components.distribution import distributions_of
from components.drift.detectors.detector import Comparison
from components.drift.detectors.kolmogorov_smirnov import kolmogorov_smirnov, ks_distance
from components.drift.detectors.page_hinkley import PageHinkley

Floats = NDArray[np.float64]

KS_ROWS, QUICK_KS_ROWS, KS_COLUMNS = 200_000, 50_000, 20
STREAMED_ROWS, QUICK_STREAMED_ROWS, FILE_ROWS, STREAMED_COLUMNS = 100_000_000, 2_000_000, 10**6, 10
STREAMS, STREAM_VALUES, QUICK_STREAM_VALUES = 1000, 2000, 400
ROUNDS = 3


def costs(quick: bool) -> list[Figure]:
    """Return what detectors and profiles cost."""
    return [
        *_ks_speed(QUICK_KS_ROWS if quick else KS_ROWS),
        *_streamed(QUICK_STREAMED_ROWS if quick else STREAMED_ROWS),
        *_page_hinkley_speed(QUICK_STREAM_VALUES if quick else STREAM_VALUES),
    ]


def _ks_speed(rows: int) -> Iterator[Figure]:
    from scipy.stats import ks_2samp

    generator = np.random.default_rng(0)
    reference = np.sort(generator.normal(size=(KS_COLUMNS, rows)), axis=1)
    current = generator.normal(0.01, size=(KS_COLUMNS, rows))
    current[: KS_COLUMNS // 2] = np.round(current[: KS_COLUMNS // 2], 2)  # half are ties

    def ours_of() -> list[Comparison]:
        return [kolmogorov_smirnov(*pair) for pair in zip(reference, current, strict=True)]

    def scipy_of() -> list[Any]:
        return [ks_2samp(*pair) for pair in zip(reference, current, strict=True)]

    ours, ours_s = _timed(ours_of, ROUNDS)
    peers, scipy_s = _timed(scipy_of, ROUNDS)
    with ThreadPoolExecutor(2) as pool:

        def together() -> list[Comparison]:
            return list(pool.map(kolmogorov_smirnov, reference, current))

        _, two_s = _timed(together, ROUNDS, time.perf_counter)
    pairs = list(zip(ours, peers, strict=True))
    away = max(abs(float(mine.statistic - theirs.statistic)) for mine, theirs in pairs)
    off = max(abs(float(mine.p_value / theirs.pvalue) - 1) for mine, theirs in pairs)
    evidently_s = _evidently_s(reference, current)
    size = f"{rows:,} x {KS_COLUMNS}"
    yield Figure(f"ks/statistic, from scipy's/{size}", away, 1e-12, None, "1e-12", away <= 1e-12)
    yield Figure(f"ks/p-value, relative/{size}", off, 1e-9, None, "1e-9", off <= 1e-9)
    yield _times(f"ks/seconds, beside scipy/{size}", ours_s, scipy_s, 2)
    yield _times(f"ks/seconds, 2 threads, beside scipy/{size}", two_s, scipy_s, 2)
    yield _times(f"ks/seconds, beside Evidently/{size}", ours_s, evidently_s, 15)


def _evidently_s(reference: Floats, current: Floats) -> float:
    """Return the seconds of Evidently's preset with the same test."""
    from evidently import Dataset, Report
    from evidently.presets import DataDriftPreset

    sides = [
        Dataset.from_pandas(pd.DataFrame({f"c{i}": each for i, each in enumerate(side)}))
        for side in (current, reference)
    ]
    report = Report([DataDriftPreset(num_method="ks")])
    return _timed(lambda: report.run(*sides))[1]


def _streamed(rows: int) -> Iterator[Figure]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        seconds, before, peak, error = pool.submit(_stream_in, rows).result()
    size = f"{rows:,} x {STREAMED_COLUMNS}"
    yield Figure(
        f"profile/megabytes at the peak/{size}",
        round(peak),
        1000,
        None,
        f"under 1,000 with the interpreter, which takes {before:.0f}",
        peak < 1000,
    )
    yield Figure(
        f"profile/million values a second/{size}",
        rows * STREAMED_COLUMNS / seconds / 1e6,
        0,
        None,
        "none",
        True,
    )
    yield Figure(
        f"profile/error of a rank/{size}", error, 0.002, None, "under 0.002", error < 0.002
    )


def _stream_in(rows: int) -> tuple[float, float, float, float]:
    """Return seconds, megabytes before and at the peak, and the largest error of a rank."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def megabytes() -> float:
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    status = Path("/proc/self/status")
    # A new process inherits the peak of the one that started it, which is not its own.
    Path("/proc/self/clear_refs").write_text("5")
    names = [f"c{index}" for index in range(STREAMED_COLUMNS)]
    before = megabytes()
    with tempfile.TemporaryDirectory() as scratch:
        generator = np.random.default_rng(0)
        file = Path(scratch) / "rows.parquet"
        with pq.ParquetWriter(file, pa.schema([(name, pa.float32()) for name in names])) as writer:
            for _ in range(10):
                part = generator.normal(size=(STREAMED_COLUMNS, FILE_ROWS // 10))
                writer.write_table(pa.table(dict(zip(names, part.astype(np.float32), strict=True))))
        # One file read again and again has as many rows as many files, and fits on a disk.
        files = [file] * (rows // FILE_ROWS)
        found, seconds = _timed(lambda: distributions_of(files, names))
        peak = megabytes()
        truth = np.sort(pq.read_table(file, columns=["c0"])["c0"].to_numpy().astype(np.float64))
    assert found["c0"].rows == rows
    return seconds, before, peak, ks_distance(truth, found["c0"].values)


def _page_hinkley_speed(length: int) -> Iterator[Figure]:
    from river.drift import PageHinkley as Peer

    generator = np.random.default_rng(0)
    values = generator.normal(size=(STREAMS, length))
    values[:, length // 2 :] += generator.choice([0.0, 0.5, -1.0], size=(STREAMS, 1))
    ours, ours_s = _timed(
        lambda: PageHinkley(alpha=1 - 0.0001, direction="both", streams=STREAMS).update_many(values)
    )

    def peers() -> list[list[int]]:
        found = []
        for stream in values.tolist():
            peer, alarms = Peer(), []
            for index, value in enumerate(stream):
                peer.update(value)
                if peer.drift_detected:
                    alarms.append(index)
            found.append(alarms)
        return found

    expected, peer_s = _timed(peers)
    size = f"{STREAMS:,} streams of {length:,}"
    same = sum(a == b for a, b in zip(ours, expected, strict=True))
    alarms = sum(map(len, expected))
    yield Figure(
        f"page-hinkley/streams with river's alarms/{size}",
        same,
        STREAMS,
        same / STREAMS,
        f"all of them, {alarms:,} alarms",
        same == STREAMS,
    )
    yield _times(f"page-hinkley/seconds, beside river/{size}", ours_s, peer_s, 15)


def _times(name: str, ours_s: float, peer_s: float, goal: float) -> Figure:
    ratio = peer_s / ours_s
    goal_text = f"the peer takes at least {goal:g} times as long"
    return Figure(name, ours_s, peer_s, round(ratio, 1), goal_text, ratio >= goal)


def _timed(
    work: Callable[[], Any], rounds: int = 1, clock: Callable[[], float] = time.process_time
) -> tuple[Any, float]:
    """Return what work gives, and the least seconds of some rounds.

    Seconds of the processor, so that what else the machine does counts for little; work of
    several threads needs another clock.
    """
    seconds = []
    for _ in range(rounds):
        started = clock()
        found = work()
        seconds.append(clock() - started)
    return found, min(seconds)
