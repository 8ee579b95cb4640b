"""What a run would make of a project's rows, told before anything runs: ``tokiwa check``."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from components import home
from components.errors import ConfigError
from components.ingest import core as ingest
from components.plan import Plan
from components.quarantine import REASONS, UNREAD, Readmissions
from components.resolve import core as resolve
from components.settings import Section
from components.sources import Source, open_source
from components.store import LocalStore
from components.validate import core as validate
from components.validate.reasons import explained
from components.windows import ALL_TIME, Window
from pipelines.project import ProjectConfig

JUDGED_ROWS = 20_000
"""So many rows are judged one by one; of a larger source a share of each window."""
MIN_ROWS_OF_A_WINDOW = 200
EXAMPLE_CHARACTERS = 60
_REMEDIES = {
    "bad-encoding": "name what the file is written in: source.encoding, such as cp1252",
    "wrong-column-count": "mend the line; or see source.separator and source.quoted",
    "unclosed-quote": "close the quote; or set source.quoted: false if quotes are plain signs",
    "bad-json": "mend the line",
    "unreadable-time": "say how times are written: source.columns.time_format",
    "missing-label": "rows without a label can be labelled: tokiwa label export",
    "unknown-label": "mend the labels; or name them in task.labels",
    "label-not-a-number": "mend the labels, or source.columns.label",
    "label-out-of-range": "mend the labels, or task.low and task.high",
    "missing-text": "mend the rows, or source.columns.text",
    "duplicate-id": "give each row an id of its own, or leave source.columns.id out",
    "conflicting-labels": "decide which label is right",
}
"""What to do about a reason, where that is more than to mend the rows."""


class Reason(Section):
    """Why rows would go into quarantine."""

    reason: str
    rows: int
    example: str
    """What one of the rows holds, and what tells it; as much of it as fits a line."""
    meaning: str
    remedy: str


class Foresight(Section):
    """What a run would do with the rows that it would read."""

    window: str
    rows: int
    """That the run would read."""
    judged: int
    """Of these, how many were looked at one by one."""
    kept: int
    duplicates: int
    quarantined: int
    reasons: list[Reason]
    odd: dict[str, int]
    """Rows that would be kept and are odd, by reason code."""
    refusal: str
    """Why there would be nothing to train on; empty if there is, or only some were judged."""

    @property
    def headline(self) -> str:
        """What would become of the rows, in one sentence."""
        fates = [f"{self.kept:,} good"]
        fates += [f"{self.duplicates:,} dropped as duplicates"] if self.duplicates else []
        fates += [f"{self.quarantined:,} in quarantine"] if self.quarantined else []
        looked = "" if self.judged >= self.rows else f" of {self.judged:,} that were looked at"
        said = f"a run on window {self.window} would read {self.rows:,} rows"
        return f"{said};{looked} {', '.join(fates)}"


@dataclass(frozen=True)
class Inspection:
    """What is in a project's source.

    Attributes:
        windows: rows and labels of each window that has some.
        warnings: what is odd about them.
        foresight: None if no window has rows.
    """

    windows: list[dict[str, Any]]
    warnings: list[str]
    foresight: Foresight | None


def inspect(project: ProjectConfig) -> Inspection:
    """Look at the rows of a project as a run would; nothing is kept.

    Tables are read once, an API for each look at it; a window at most is in memory.

    Raises:
        ConfigError: there are rows, but none has a label that the task knows.
        SourceError: a table cannot be read.
    """
    # Where rows may be kept is no question of a folder that goes with the command.
    source = project.source.model_copy(update={"stores": []})
    project = project.model_copy(update={"source": source})
    with tempfile.TemporaryDirectory(prefix="tokiwa-check-") as folder:
        scratch = LocalStore(Path(folder) / "objects")
        windows, warnings = _counts(project, scratch)
        foresight = _foresee(project, Path(folder), scratch, len(windows)) if windows else None
    return Inspection(windows, warnings, foresight)


def _foresee(project: ProjectConfig, folder: Path, scratch: LocalStore, windows: int) -> Foresight:
    """Run the steps from ``resolve`` to ``validate`` on rows that are few enough."""
    most = max(MIN_ROWS_OF_A_WINDOW, JUDGED_ROWS // windows)
    cap = project.source.max_rows_per_window
    whole = _plan(project, scratch)
    rows = sum(each.rows for each in whole.data.windows)
    plan = whole
    if rows > JUDGED_ROWS and (cap is None or cap > most):
        fewer = project.source.model_copy(update={"max_rows_per_window": most})
        plan = _plan(project.model_copy(update={"source": fewer}), scratch)
    current = plan.live.current.window
    read = ingest.ingest(plan.data, folder / "snapshot", project.ingest, store=scratch)
    readmissions = Readmissions(home.store(), project.ledger)
    left_out = folder / "quarantine.parquet"
    found = validate.validate(
        folder / "snapshot",
        current.name,
        folder / "good",
        left_out,
        project.task,
        project.validate_,
        window_end=current.end,
        horizon=plan.admission.horizon,
        readmitted=readmissions.until(readmissions.last),
    )
    unreadable, has_ids = read.unreadable, all(each.id for each in project.source.forms)
    return Foresight(
        window=current.name,
        rows=rows + unreadable,
        judged=sum(each.rows for each in plan.data.windows) + unreadable,
        kept=found.rows,
        duplicates=read.duplicates + read.near_duplicates,
        quarantined=found.quarantined,
        reasons=list(_reasons(found.reasons, pd.read_parquet(left_out), has_ids)),
        odd={each.code: each.rows for each in found.warnings},
        refusal=found.refusal if plan is whole else "",
    )


def _plan(project: ProjectConfig, store: LocalStore) -> Plan:
    return resolve.resolve(
        project=project.name,
        source=project.source,
        bases=project.bases,
        config=project.resolve,
        window="latest",
        purpose="training",
        head=None,
        store=store,
        now=datetime.now(UTC),
    )


def _reasons(counts: dict[str, int], rows: pd.DataFrame, has_ids: bool) -> Iterator[Reason]:
    for code, count in counts.items():
        row = rows[[code in each.split(",") for each in rows[REASONS]]].iloc[0]
        yield Reason(
            reason=code,
            rows=count,
            example=_example(code, row, has_ids),
            meaning=explained(code),
            remedy=_REMEDIES.get(code, "mend the rows where they lie"),
        )


def _example(code: str, row: pd.Series[Any], has_ids: bool) -> str:
    """Return what a row holds that is wrong, and what tells the row: its id, place or text."""
    if row["source"] == UNREAD:
        return f"{str(row['id']).rpartition('/')[2]}: {_shown(row['text'])}"
    about = next((name for name in row.index if code.endswith(f"-{name}")), "text")
    about = "label" if "label" in code else about
    if has_ids:
        return f"{str(row['id']).rpartition('/')[2]}: {_shown(row[about])}"
    return _shown(row["text"]) + (f" with {_shown(row[about])}" if about != "text" else "")


def _shown(value: object) -> str:
    if value is None or value != value:
        return "nothing"
    text = str(value)
    return repr(text if len(text) <= EXAMPLE_CHARACTERS else f"{text[: EXAMPLE_CHARACTERS - 1]}…")


def _counts(project: ProjectConfig, scratch: LocalStore) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows and labels of each window up to now, and what is odd about them.

    Raises:
        ConfigError: there are rows, but none has a label that the task knows.
    """
    source, task = open_source(project.source, scratch), project.task
    windows: list[dict[str, Any]] = []
    known_labels: set[str] = set()
    unknown: Counter[str] = Counter()
    values: dict[str, set[str]] = {name: set() for name in project.source.metadata}
    labelled = 0
    now = datetime.now(UTC)
    known_windows = resolve.known_windows(project.resolve, now)
    for window in known_windows:
        table, _ = source.table(window)
        if not table.num_rows:
            continue
        for name, seen in values.items():
            if len(seen) < 2:
                seen.update(table[name].unique().slice(0, 2).to_pylist())
        labels = table["label"].to_pandas().astype(object)
        labels = labels.where(labels.notna(), None)
        known = task.known(labels)
        labelled += int(known.sum())
        known_labels.update(labels[known] if task.label_names else ())
        wrong = labels[labels.notna() & ~known]
        unknown.update(wrong)
        counts = task.label_counts(labels[known])
        windows.append(
            {
                "window": window.name,
                "rows": len(labels),
                "labelled": int(known.sum()),
                "unlabelled": int(labels.isna().sum()),
                "unknown": len(wrong),
                "labels": ", ".join(f"{label} {count}" for label, count in counts.items()),
            }
        )
    if not windows:
        return [], []
    odd = _oddities(project, labelled, known_labels, pd.Series(list(unknown.elements())))
    same = [name for name, seen in values.items() if len(seen) < 2]
    odd += [f"all rows have the same in {name}: it tells nothing apart" for name in same]
    return windows, [*odd, *_outside(source, known_windows, now)]


def _outside(source: Source, windows: list[Window], now: datetime) -> Iterator[str]:
    """Say how many rows are in no window yet, or in none ever."""
    if windows == [ALL_TIME]:
        return
    counts = source.counts_between([windows[0].begins, windows[-1].ends, now])
    if counts is None:
        return
    before, _, waiting, future = counts
    if before:
        yield f"{before:,} rows are of before resolve.start, {windows[0].name}: no run reads them"
    if waiting:
        yield f"{waiting:,} rows are of a window that is not whole yet, and wait for its end"
    if future:
        last = (source.span() or ("", ""))[1]
        yield f"{future:,} rows are of the future, up to {last}: no run reads them before"


def _oddities(
    project: ProjectConfig, labelled: int, known_labels: set[str], unknown: pd.Series[str]
) -> list[str]:
    """Say what is odd about labels, see ``_counts``."""
    names = ", ".join(project.task.label_names)
    known = f"task.labels has {names}" if names else "the task learns numbers within its range"
    if not labelled and unknown.empty:
        raise ConfigError(
            f"{project.name}: no row has a label; name the column of labels in source.columns.label"
        )
    if not labelled:
        raise ConfigError(
            f"{project.name}: no row has a label that the task knows: {known}, but the rows have "
            f"{validate.examples(unknown)}. Mend section task, or source.columns.label"
        )
    odd = []
    if len(unknown):
        odd.append(
            f"{len(unknown):,} rows have labels that the task does not know, such as "
            f"{validate.examples(unknown)}, and would be quarantined; {known}"
        )
    absent = [name for name in project.task.label_names if name not in known_labels]
    if absent:
        odd.append(f"no row has the label {' or '.join(map(repr, absent))} of the task")
    return odd
