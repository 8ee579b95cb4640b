"""The rows of a window as a training sees them, made in this process for a command."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from components import home
from components.embeddings import KeptEmbeddings
from components.errors import BadInput
from components.ingest import core as ingest
from components.ledger import Entry
from components.plan import Plan
from components.prepare import core as prepare
from components.quarantine import taken_in
from components.resolve import core as resolve
from components.validate import core as validate
from components.validate.served import contents_asked
from pipelines.project import ProjectConfig


def prepared_rows(
    project: ProjectConfig,
    window: str,
    head: Entry | None,
    folder: Path,
    progress: Callable[[int, int, str], None],
) -> tuple[Plan, prepare.PrepareReport]:
    """Run the steps from ``resolve`` to ``prepare``; leave what they make in ``folder/prepared``.

    Args:
        project: whose rows.
        window: see ``resolve``.
        head: the ledger's last entry, or None.
        folder: where to write.
        progress: told how many rows are embedded, out of how many.

    Raises:
        BadInput: there is too little to learn in the window.
    """
    store = home.store()
    plan = resolve.resolve(
        project=project.name,
        source=project.source,
        bases=project.bases,
        config=project.resolve,
        window=window,
        purpose="training",
        head=head,
        store=store,
        now=datetime.now(UTC),
    )
    current = plan.live.current
    ingest.ingest(plan.data, folder / "snapshot", project.ingest)
    checked = validate.validate(
        folder / "snapshot",
        current.window.name,
        folder / "good",
        folder / "quarantine.parquet",
        project.task,
        project.validate_,
        window_end=current.window.end,
        horizon=plan.admission.horizon,
        served=contents_asked(store, plan.admission),
        readmitted=taken_in(store, plan.admission),
    )
    if not checked.trainable:
        raise BadInput(f"there is too little to learn: {checked.refusal}")
    embeddings = KeptEmbeddings(store, plan.bases.models[0], project.task, plan.code)
    report = prepare.prepare(
        folder / "good",
        current.window.name,
        current.window.end,
        folder / "prepared",
        project.task,
        project.prepare,
        lambda contents: embeddings.vectors(current.kept_as, contents, progress),
        confirmed=taken_in(store, plan.admission),
    )
    return plan, report
