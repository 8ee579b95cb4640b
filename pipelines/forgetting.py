"""A person's rows forgotten: left out of all that is read later, and taken out of what is kept.

What no erasure reaches is said: models that learnt from the rows, their examples, and the
artifacts that a cluster keeps in a bucket of its own.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from components import bundle, home
from components.erasures import By, Erasures, Forgotten, digest_of_name
from components.errors import BadInput
from components.ledger import Ledger
from components.online.kept import KeptHead, digests_of
from components.quarantine import UNREAD, Quarantine
from components.records import Records
from components.resolve.core import known_windows
from components.settings import Section
from components.sources import open_source
from components.split import is_test
from components.store import ObjectMissing, Store
from components.windows import ALL_TIME, Window
from pipelines.erasing import Traces, erase
from pipelines.online import BELOW
from pipelines.project import ProjectConfig


class Learnt(Section):
    """A model that may have learnt from the rows."""

    version: str
    bundle: str
    run: str
    windows: list[str]
    """Of the rows, among those that it was trained with."""
    shows: bool
    """Whether one of the rows is among the examples that the bundle carries."""


class Taught(Section):
    """An online head that learnt from the rows."""

    champion: str
    """Bundle that it is over."""
    rows: int
    """It learnt from, among those that are to be forgotten."""
    versions: list[str]
    """In which the head was published."""


class ForgetReport(Section):
    """What was forgotten, and what remains."""

    rows: int
    """Found in the source and in quarantine."""
    lines: int
    """That name them and could not be read as rows."""
    windows: list[str]
    unknown: list[str]
    """Names that no row has now; later rows with them will be left out, too."""
    recorded: int
    """Number of the record; 0 if nothing was done."""
    kept_rows: int
    """Taken out of tables in the store and among local artifacts."""
    embeddings: int
    labels: int
    """That came back for rows of the server's log."""
    deleted: list[str]
    """Local files that showed one of the rows."""
    learnt: list[Learnt]
    heads: list[Taught]
    unfinished: list[str]
    """Runs that read the rows and have not ended, or were killed."""


def forget(
    project: ProjectConfig, column: By, names: Sequence[str], reason: str, *, dry_run: bool = False
) -> ForgetReport:
    """Forget the rows of some ids or groups.

    Args:
        project: whose rows.
        column: what the names are of.
        names: ids or groups, as the rows have them.
        reason: for the record.
        dry_run: only say what would be done.

    Raises:
        BadInput: a name is empty, or the rows of the project have no groups.
    """
    if not all(name.strip() for name in names):
        raise BadInput(f"an empty {column} names nobody: it would be in every broken line")
    source = project.source
    if column == "group" and not (source.group_pattern or any(each.group for each in source.forms)):
        raise BadInput(
            f"{project.name} names no column of groups, so that no row has one; name it in "
            "source.columns.group, or forget rows by --id"
        )
    store = home.store()
    traces = _traces(project, store, column, names)
    frame = traces.frame
    windows = sorted(set(frame["window"]))
    report = ForgetReport(
        rows=len(frame),
        lines=len(traces.lines),
        windows=windows,
        unknown=sorted(set(names) - set(frame[column])),
        recorded=0,
        kept_rows=0,
        embeddings=0,
        labels=0,
        deleted=[],
        learnt=list(_learnt(project, store, frame)),
        heads=list(_heads(project, store, frame, names if column == "id" else ())),
        unfinished=list(_unfinished(project, store, set(windows))),
    )
    if dry_run:
        return report
    made = Erasures(store, project.ledger).add(
        column,
        names,
        getpass.getuser(),
        reason,
        datetime.now(UTC),
        traces.lines,
        _taught(frame)["window"],
    )
    for head in report.heads:
        KeptHead(store, project.ledger, head.champion).begin_anew()
    cleaned = erase(store, project, traces, home.home())
    return report.model_copy(
        update={
            "recorded": made.number,
            "kept_rows": cleaned.rows,
            "embeddings": cleaned.embeddings,
            "labels": cleaned.labels,
            "deleted": cleaned.deleted,
        }
    )


def _traces(project: ProjectConfig, store: Store, column: By, names: Sequence[str]) -> Traces:
    """Return what is to be forgotten, as the source and the quarantine hold it."""
    gone = Forgotten({column: frozenset(map(digest_of_name, names))})
    # What is forgotten already, and what a cap leaves out, may be kept somewhere all the same.
    source = open_source(
        project.source.model_copy(update={"labels_of": "", "max_rows_per_window": None})
    )
    waiting = Quarantine(store, project.ledger).rows()
    parts = [waiting[gone.rows(waiting)]]
    unread = waiting[waiting.get("source", waiting["text"]) == UNREAD]
    lines, named_lines = set(unread["text"]), set(unread["text"][gone.rows(unread)])
    for window in _all_windows(project, datetime.now(UTC)):
        rows = source.read(window).frame.assign(window=window.name)
        parts.append(rows[gone.rows(rows)])
        lines |= set(source.unreadable(window, with_undated=True)["raw"].to_pylist())
    frame = pd.concat(parts, ignore_index=True).astype(object)
    frame = frame.where(frame.notna(), None)
    # As a field of a line: between separators, quotes or brackets.
    named = "|".join(map(re.escape, names))
    field = re.compile(rf"""(?:^|[,;|\t"':\[{{])\s*(?:{named})\s*(?:$|[,;|\t"'}}\]])""")
    return Traces(
        named=gone,
        frame=frame.drop_duplicates(["id", "group", "text", "window"]),
        lines=frozenset(named_lines | {line for line in lines if field.search(line)}),
    )


def _all_windows(project: ProjectConfig, now: datetime) -> list[Window]:
    """Return the whole windows, and what has begun and is no window yet."""
    windows = known_windows(project.resolve, now)
    if not windows or windows == [ALL_TIME]:
        return windows
    return [*windows, Window(start=windows[-1].end, end=now.isoformat())]


def _learnt(project: ProjectConfig, store: Store, frame: pd.DataFrame) -> Iterator[Learnt]:
    """Yield the models of which a run says that it read windows with the rows."""
    windows = set(_taught(frame)["window"])
    contents = {each for each in frame["text"] if each}
    for run, common in _readers(project, store, windows):
        made = Records(store, project.ledger, run).of("register")
        if made:
            yield Learnt(
                version=made["version"],
                bundle=made["bundle"],
                run=run,
                windows=common,
                shows=_shows(store, made["bundle"], contents),
            )


def _taught(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that a model may have learnt from: test rows never were."""
    return frame[~is_test(frame["group"].fillna(""))] if len(frame) else frame


def _unfinished(project: ProjectConfig, store: Store, windows: set[str]) -> Iterator[str]:
    """Yield the runs that read some windows, and of which nobody knows how they ended."""
    for run, _ in _readers(project, store, windows):
        if not Records(store, project.ledger, run).of("notify"):
            yield run


def _readers(
    project: ProjectConfig, store: Store, windows: set[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield the runs that read some windows, with those of them that they read."""
    folder = f"{project.ledger}/runs/"
    runs = {key.removeprefix(folder).split("/")[0] for key in store.list(folder)}
    for run in sorted(runs):
        plan = Records(store, project.ledger, run).of("resolve").get("plan")
        seen = [_name_of(each["window"]) for each in plan["data"]["windows"]] if plan else []
        if common := [each for each in seen if each in windows]:
            yield run, common


def _heads(
    project: ProjectConfig, store: Store, frame: pd.DataFrame, names: Sequence[str]
) -> Iterator[Taught]:
    """Yield the online heads that have seen one of the rows, whatever its label was then.

    Args:
        project: whose heads.
        store: where they are kept.
        frame: the rows that are to be forgotten, as the source has them now.
        names: ids that are to be forgotten, of rows that the source may have no more.
    """
    tested = frame[is_test(frame["group"].fillna(""))] if len(frame) else frame
    rows = sorted({*frame["id"].dropna(), *names} - set(tested["id"]))
    labels = project.task.label_names
    digests = digests_of(np.repeat(rows, len(labels)).tolist(), [*labels] * len(rows))
    folder = f"{project.ledger}/online/"
    champions = {key.removeprefix(folder).split("/")[0] for key in store.list(folder)}
    for champion in sorted(champions):
        seen = np.isin(digests, KeptHead(store, project.ledger, champion).seen())
        if seen.any():
            yield Taught(
                champion=champion,
                rows=int(seen.reshape(len(rows), -1).any(1).sum()),
                versions=[
                    entry.version
                    for entry in Ledger(store, project.ledger).entries()
                    if entry.bundle != champion and _is_over(store, entry.bundle, champion)
                ],
            )


def _is_over(store: Store, digest: str, champion: str) -> bool:
    found = _description(store, digest)
    return found is not None and found.lineage.get(BELOW) == champion


def _name_of(window: dict[str, Any]) -> str:
    return Window.model_validate(window).name


def _shows(store: Store, digest: str, contents: set[str]) -> bool:
    found = _description(store, digest)
    shown = found.examples if found is not None else []
    return any(content.startswith(each) for each in shown if each for content in contents)


def _description(store: Store, digest: str) -> bundle.Description | None:
    try:
        raw = store.get(f"{bundle.key_of(digest)}/{bundle.DESCRIPTION}")
    except ObjectMissing:
        return None
    return bundle.Description.from_json(raw.decode())


def summary(report: ForgetReport) -> Iterator[str]:
    """Yield what was done and what remains, in sentences."""
    where = f" in windows {', '.join(report.windows)}" if report.windows else ""
    yield f"{report.rows} rows are to be forgotten{where}"
    if report.lines:
        yield f"{report.lines} lines name them, and could not be read as rows"
    if report.unknown:
        yield (f"no row has the name {', '.join(report.unknown)} now; later ones will be left out")
    if report.recorded:
        yield (
            f"record {report.recorded}: no later run reads them; taken out of what is kept: "
            f"{report.kept_rows} rows of tables, {report.embeddings} embeddings, "
            f"{report.labels} labels, {len(report.deleted)} files"
        )
    else:
        yield "nothing was done yet"
    for each in report.learnt:
        shows = "; its examples show one of the rows" if each.shows else ""
        yield (
            f"remains: version {each.version} (bundle {each.bundle[:12]}) may have learnt from "
            f"window {', '.join(each.windows)}{shows}"
        )
    for head in report.heads:
        versions = f"; version {', '.join(head.versions)} carries it" if head.versions else ""
        begins = "begins anew" if report.recorded else "would begin anew"
        yield (
            f"the online head over bundle {head.champion[:12]} learnt from {head.rows} of the "
            f"rows{versions}: it {begins}, and the next tokiwa online learns all others again"
        )
    for run in report.unfinished:
        yield (
            f"run {run} read them and has not ended, unless it was killed: it promotes nothing by "
            "itself any more, and what it still writes may hold them; forget them again when it "
            "has ended"
        )
    if report.learnt or any(head.versions for head in report.heads):
        yield "retrain, and delete these versions, if nothing of the rows may remain in a model"
    yield (
        "not reached: the source's own files, imported labels (which name rows by id), what "
        "tokiwa score wrote, earlier versions of objects in a bucket that keeps them, and the "
        "artifacts that Kubeflow keeps in its bucket; give buckets a lifecycle rule"
    )
