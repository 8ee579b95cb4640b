"""Rows that people are to label: chosen and written for their tools, and read back."""

from __future__ import annotations

import getpass
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from components import bundle, home
from components.embeddings import KeptEmbeddings
from components.errors import BadInput, NoChampion
from components.label_files import Asked, Form, Word, read, written
from components.labels import Agreement, Annotation, Conflict, Labels, agreements
from components.ledger import Ledger
from components.resolve import core as resolve
from components.settings import Section
from components.sources import open_source
from components.split import content_digest
from components.tasks import TASKS
from components.telling_rows import telling_rows
from pipelines.project import ProjectConfig


class ImportReport(Section):
    """What became of the labels in some files. Each word ended in one of the counts.

    ``words = annotations + unknown rows + unknown labels + against_source + known_to_source``
    """

    files: int
    lines_without_label: int
    words: int
    annotations: int
    """Kept."""
    unknown_rows: list[str]
    unknown_labels: dict[str, int]
    known_to_source: int
    """Words on rows whose label the source carries, and is the same."""
    against_source: list[Conflict]
    """Words on rows whose label the source carries, and is another: the source counts."""
    repeated: int
    changed: int
    outvoted: int
    labelled_rows: int
    """Rows that have a label by people now, from all imports."""
    conflicts: list[Conflict]
    agreements: list[Agreement]


@dataclass(frozen=True)
class Exported:
    """What was written for annotators."""

    window: str
    rows: int
    unlabelled: int
    """Rows of the window that had no label."""


def export(
    project: ProjectConfig,
    typed: str,
    window: str,
    count: int,
    path: Path,
    form: Form,
    progress: Callable[[int, int, str], None],
) -> Exported:
    """Write the most telling rows of a window that have no label yet.

    Args:
        project: whose rows.
        typed: how the user names the project, for messages.
        window: see ``resolve``.
        count: how many rows at most.
        path: the file to write.
        form: for which tool.
        progress: told how many rows are embedded, out of how many.

    Raises:
        NoChampion: nothing tells which rows are uncertain.
        BadInput: every row of the window has a label.
    """
    store = home.store()
    head = Ledger(store, project.ledger).head()
    if head is None:
        raise NoChampion(
            f"{project.name} has no model in production yet, which would say what it is unsure "
            f"of; train one: tokiwa run {shlex.quote(typed)}"
        )
    plan = resolve.resolve(
        project=project.name,
        source=project.source,
        bases=project.bases,
        config=project.resolve,
        window=window,
        purpose="tuning",
        head=head,
        store=store,
        now=datetime.now(UTC),
    )
    current, task = plan.live.current, project.task
    frame = open_source(project.source).read(current.window).frame
    odd = int((frame["label"].notna() & ~task.known(frame["label"])).sum())
    # A label of the source that the task does not know counts all the same: see `quarantine`.
    frame = frame[(frame["label"].isna() & frame["text"].notna()).to_numpy(bool)]
    frame = frame[task.readable(frame["text"])]
    frame = frame[~pd.Series(map(content_digest, frame["text"]), index=frame.index).duplicated()]
    if frame.empty:
        unknown = f"; {odd:,} have one that the task does not know, see: tokiwa quarantine list"
        raise BadInput(
            f"{project.name}: every row of window {current.window.name} has a label"
            f"{unknown if odd else ''}"
        )
    model = TASKS[task.kind].load(bundle.fetch(store, head.bundle))
    contents = frame["text"].tolist()
    answers = model.predict(contents)
    embeddings = KeptEmbeddings(store, plan.bases.models[0], task, plan.code)
    vectors = embeddings.vectors(current.kept_as, contents, progress)
    chosen = telling_rows(vectors, answers, count)
    decisions = model.decisions(answers)
    asked = [
        Asked(
            row=frame["id"].iloc[index],
            window=current.window.name,
            content=contents[index],
            kind=task.content,
            answer=decisions[index],
            confidence=float(answers[index].max()) if task.label_names else None,
            bundle=head.bundle,
        )
        for index in chosen
    ]
    lines = written(asked, form, numbers=not task.label_names)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return Exported(window=current.window.name, rows=len(asked), unlabelled=len(frame))


def take_in(project: ProjectConfig, paths: Sequence[Path]) -> ImportReport:
    """Read labels from the files of annotation tools, and keep those of the project's rows.

    Raises:
        BadInput: a file cannot be read, has lines that no tool writes, or none of the labels
            is one of this project's rows.
    """
    words: list[Word] = []
    silent = 0
    for path in paths:
        said, without = read(path)
        words += said
        silent += without
    carried = _rows_of(project)
    good = project.task.known(pd.Series([each.label for each in words], dtype=object))
    kept: list[Annotation] = []
    unknown_rows: list[str] = []
    unknown_labels: Counter[str] = Counter()
    against: list[Conflict] = []
    same = 0
    for word, is_known in zip(words, good, strict=True):
        if word.row not in carried:
            unknown_rows.append(word.row)
            continue
        window, label = carried[word.row]
        if not is_known:
            unknown_labels[word.label] += 1
        elif label is None:
            kept.append(
                Annotation(row=word.row, window=window, annotator=word.annotator, label=word.label)
            )
        elif label == word.label:
            same += 1
        else:
            said_of = {"the source": label, word.annotator: word.label}
            against.append(Conflict(row=word.row, said=said_of))
    if not (kept or same or against):
        raise BadInput(_why_useless(paths, silent, unknown_rows, unknown_labels, project))
    labels = Labels(home.store(), project.ledger)
    before = labels.resolved()
    if kept:
        labels.add(kept, getpass.getuser(), datetime.now(UTC))
    after = labels.resolved()
    return ImportReport(
        files=len(paths),
        lines_without_label=silent,
        words=len(words),
        annotations=len(kept),
        unknown_rows=unknown_rows,
        unknown_labels=dict(unknown_labels),
        known_to_source=same,
        against_source=against,
        repeated=after.repeated - before.repeated,
        changed=after.changed - before.changed,
        outvoted=after.outvoted,
        labelled_rows=len(after.labels),
        conflicts=after.conflicts,
        agreements=agreements(labels.all()),
    )


def _why_useless(
    paths: Sequence[Path],
    silent: int,
    unknown_rows: Sequence[str],
    unknown_labels: Counter[str],
    project: ProjectConfig,
) -> str:
    """Say why none of the labels in some files can be kept, and what to do."""
    said = []
    if unknown_rows:
        said.append(
            f"{len(unknown_rows)} are about rows that are in no window of {project.name}, such as "
            f"{unknown_rows[0]!r}: ids must be those that tokiwa label export writes"
        )
    if unknown_labels:
        known = ", ".join(project.task.label_names) or "numbers"
        said.append(
            f"{unknown_labels.total()} are labels that the task does not know, such as "
            f"{min(unknown_labels)!r}: it knows {known}"
        )
    if not said:
        said.append(f"there is none on any of {silent} lines")
    return f"no label of {', '.join(map(str, paths))} can be kept: {'; '.join(said)}"


def _rows_of(project: ProjectConfig) -> dict[str, tuple[str, str | None]]:
    """Return the window of each row by its id, and the label that the source itself carries."""
    source = open_source(project.source.model_copy(update={"labels_of": ""}))
    found: dict[str, tuple[str, str | None]] = {}
    for window in resolve.known_windows(project.resolve, datetime.now(UTC)):
        frame = source.read(window).frame
        for row, label in zip(frame["id"], frame["label"], strict=True):
            found[row] = (window.name, label)
    return found


def summary(report: ImportReport) -> Iterable[str]:
    """Yield what an import did, in sentences."""
    yield (
        f"{report.words} labels in {report.files} file{'s' * (report.files > 1)}: "
        f"{report.annotations} kept, {report.repeated} of them said before, "
        f"{report.changed} took an earlier word back"
    )
    if report.lines_without_label:
        yield f"{report.lines_without_label} lines had no label"
    if report.unknown_rows:
        shown = ", ".join(report.unknown_rows[:5])
        yield f"{len(report.unknown_rows)} are about rows that are in no window: {shown}"
    if report.unknown_labels:
        counts = (f"{label!r} {count}" for label, count in report.unknown_labels.items())
        yield f"labels that the task does not know: {', '.join(counts)}"
    if report.known_to_source or report.against_source:
        yield (
            f"the source carries labels of its own, which count: {report.known_to_source} are "
            f"the same, {len(report.against_source)} contradict"
        )
    yield (
        f"{report.labelled_rows} rows have a label by people now, {report.outvoted} of them by a "
        f"majority; {len(report.conflicts)} have none, because their annotators disagree"
    )
