"""Questions about a project's past and present, answered from the ledger and the records."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from components import home
from components.errors import NoChampion
from components.ledger import Entry, Events, Ledger
from components.resolve.core import known_windows
from components.sources import open_source
from pipelines.project import ProjectConfig

if TYPE_CHECKING:
    from components.serve.model import BundleModel

SHOWN_RUNS = 10


def state_of(project: ProjectConfig) -> dict[str, Any]:
    """Return the champion, the last runs and the open events of a project."""
    store = home.store()
    head = Ledger(store, project.ledger).head()
    suffix = "/notify.json"
    outcomes = [key for key in store.list(f"{project.ledger}/runs/") if key.endswith(suffix)]
    runs = [json.loads(store.get(key)) for key in outcomes[-SHOWN_RUNS:]]
    events = Events(store, project.ledger).all().items()
    return {
        "project": project.name,
        "champion": head.model_dump(mode="json") if head else None,
        "runs": [{key: run[key] for key in ("run", "window", "result", "reason")} for run in runs],
        "events": [
            {"event": key, "owner": event.owner, "state": event.state, "detail": event.detail}
            for key, event in events
            if event.state != "done"
        ],
    }


def entries_of(project: ProjectConfig) -> list[dict[str, Any]]:
    """Return all promotions and rollbacks of a project, oldest first."""
    entries = Ledger(home.store(), project.ledger).entries()
    return [entry.model_dump(mode="json") for entry in entries]


def champion_of(project: ProjectConfig) -> tuple[BundleModel, Entry]:
    """Return the model in production and its ledger entry.

    Raises:
        NoChampion: there is none yet.
    """
    from components.serve.model import BundleModel

    store = home.store()
    head = Ledger(store, project.ledger).head()
    if head is None:
        raise NoChampion(
            f"{project.name} has no model in production yet; train one: tokiwa run {project.name}"
        )
    return BundleModel.load(store, head.bundle), head


def windows_of(project: ProjectConfig) -> list[dict[str, Any]]:
    """Return the rows and labels of each window up to now."""
    source = open_source(project.source)
    windows = []
    for window in known_windows(project.resolve, datetime.now(UTC)):
        frame = source.read(window).frame
        if len(frame):
            labels = frame["label"].value_counts()
            shown = ", ".join(f"{label} {count}" for label, count in labels.items())
            windows.append({"window": window.name, "rows": len(frame), "labels": shown})
    return windows
