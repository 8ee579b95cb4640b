"""Questions about a project's past and present, answered from the ledger and the records."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from components import home
from components.alerts import alerts_of
from components.decisions import Decision, Decisions
from components.declared_columns import numbers_in
from components.errors import BadInput, ConfigError, NoChampion, SourceError
from components.freeze import Freezes
from components.ledger import Entry, Events, Ledger
from components.resolve.core import known_windows
from components.serving_costs import ServingCosts
from components.sources import open_source
from components.validate.core import examples
from pipelines.project import ProjectConfig

if TYPE_CHECKING:
    from components.serve.model import BundleModel
    from pipelines.runners import Run

SHOWN_RUNS = 10
ROWS_AT_ONCE = 256


def state_of(project: ProjectConfig) -> dict[str, Any]:
    """Return the champion, a freeze, open alerts, the last runs and open events of a project."""
    store = home.store()
    head = Ledger(store, project.ledger).head()
    frozen = Freezes(store, project.ledger).state()
    suffix = "/notify.json"
    outcomes = [key for key in store.list(f"{project.ledger}/runs/") if key.endswith(suffix)]
    runs = [json.loads(store.get(key)) for key in outcomes[-SHOWN_RUNS:]]
    events = Events(store, project.ledger).all().items()
    alerts = alerts_of(Decisions(store, project.ledger).recent())
    return {
        "project": project.name,
        "champion": head.model_dump(mode="json") if head else None,
        "frozen": frozen.model_dump(mode="json") if frozen else None,
        "alerts": [each.model_dump(mode="json") for each in alerts if each.is_open],
        "runs": [{key: run[key] for key in ("run", "window", "result", "reason")} for run in runs],
        "events": [
            {"event": key, "owner": event.owner, "state": event.state, "detail": event.detail}
            for key, event in events
            if event.state != "done"
        ],
    }


def entries_of(project: ProjectConfig, played: str = "") -> list[dict[str, Any]]:
    """Return all promotions and rollbacks of a project, or of a replay of it, oldest first.

    Args:
        project: whose ledger to read.
        played: id of a replay, to read the ledger that it kept for itself.

    Raises:
        BadInput: there is no such replay.
    """
    store = home.store()
    prefix = project.replay_ledger(played) if played else project.ledger
    entries = Ledger(store, prefix).entries()
    if played and not entries:
        above = project.replay_ledger("")
        known = {key.removeprefix(above).partition("/")[0] for key in store.list(above)}
        there = f"there are {', '.join(sorted(known))}" if known else "none was played"
        raise BadInput(f"{project.name} has no replay {played!r}; {there}")
    return [entry.model_dump(mode="json") for entry in entries]


def costs_of(project: ProjectConfig) -> dict[str, dict[str, float | None]]:
    """Return what 1,000 predictions of each version have cost so far, as servers measured it.

    Returns:
        By version, as answers and metrics name it: ``predictions`` so far, and of 1,000 of them
        the device-seconds, and the money, None without a price.
    """
    costs = ServingCosts(home.store(), project.ledger).by_version()
    return {
        version: {
            "predictions": spent.predictions,
            "device_seconds_per_1000": spent.device_seconds_per_1000,
            "money_per_1000": spent.money_per_1000,
        }
        for version, spent in costs.items()
    }


def replay_of(entry: Mapping[str, Any]) -> str:
    """Return the id of the replay that published a ledger entry, empty for none."""
    return str(entry["by"]).removeprefix("replay ") if entry["action"] == "publish" else ""


def decisions_of(
    project: ProjectConfig, window: str = "", played: str = ""
) -> tuple[list[Decision], str]:
    """Return what was decided about retraining in one window, the last decision last.

    Args:
        project: whose decisions.
        window: its first day; the last window that was looked at by default.
        played: id of a replay. By default the project's own decisions, or if it has none,
            those of the replay that made its champion.

    Returns:
        The decisions, and the id of the replay in which they were made, empty for none.

    Raises:
        BadInput: nothing was decided yet, or not about this window.
    """
    store = home.store()
    decided = Decisions(store, project.replay_ledger(played) if played else project.ledger)
    every = decided.recent(window)
    if not every and not played:
        head = Ledger(store, project.ledger).head()
        made = replay_of(head.model_dump(mode="json")) if head else ""
        if made:
            return decisions_of(project, window, made)
    if not every:
        known = sorted({each.window for each in decided.recent()})
        there = f"there are decisions on {', '.join(known)}" if known else "none was looked at"
        asked = f"window {window}" if window else "any window"
        raise BadInput(f"{project.name}: nothing was decided about {asked}; {there}")
    return [each for each in every if each.window == every[-1].window], played


def page_of(run: Run, step: str, name: str) -> Path:
    """Copy a step's page to where browsers know it for one, and return that file.

    kfp names artifacts without a suffix.
    """
    path = run.folder / f"{step}.html"
    shutil.copyfile(run.steps[step].artifact(name), path)
    return path


def champion_of(project: ProjectConfig, typed: str) -> tuple[BundleModel, Entry]:
    """Return the model in production and its ledger entry.

    Args:
        project: whose model.
        typed: how the user names the project, for messages.

    Raises:
        NoChampion: there is none yet.
    """
    from components.serve.model import BundleModel

    head = head_of(project, typed)
    return BundleModel.load(home.store(), head.bundle, trusted=project.serve.trusted_keys), head


def head_of(project: ProjectConfig, typed: str) -> Entry:
    """Return the ledger's entry of the champion.

    Args:
        project: whose champion.
        typed: how the user names the project, for messages.

    Raises:
        NoChampion: there is none yet.
    """
    head = Ledger(home.store(), project.ledger).head()
    if head is None:
        raise NoChampion(
            f"{project.name} has no model in production yet; "
            f"train one: tokiwa run {shlex.quote(typed)}"
        )
    return head


def predictions_of(model: BundleModel, asked: Sequence[str]) -> list[dict[str, Any]]:
    """Return what a model answers to texts or image files, each with what was asked.

    Raises:
        BadInput: one is no text or image that the model can answer.
    """
    rows = []
    for start in range(0, len(asked), ROWS_AT_ONCE):
        part = asked[start : start + ROWS_AT_ONCE]
        try:
            contents = [_READERS[model.content](each) for each in part]
            for content in contents:
                model.checked([content])
            answers = model.predict(contents)
        except (ValueError, SourceError, OSError) as error:
            raise BadInput(str(error)) from error
        for each, answer in zip(part, answers, strict=True):
            # Numbers by label are many; the server gives them.
            flat = {key: value for key, value in answer.items() if not isinstance(value, dict)}
            rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in flat.items()}
            rows.append({model.content: each, **rounded})
    return rows


def _image(path: str) -> str:
    return base64.b64encode(Path(path).expanduser().read_bytes()).decode("ascii")


_READERS: dict[str, Callable[[str], str]] = {"text": str, "image": _image, "record": str}
"""How a command's argument becomes a content."""


def labels_of(project: ProjectConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows and labels of each window up to now, and what is odd about the rows.

    Raises:
        ConfigError: there are rows, but none has a label that the task knows.
    """
    source, task = open_source(project.source), project.task
    windows = []
    good, unknown, frames = [], [], []
    for window in known_windows(project.resolve, datetime.now(UTC)):
        frame = source.read(window).frame
        labels = frame["label"]
        if labels.empty:
            continue
        frames.append(frame)
        known = task.known(labels)
        good.append(labels[known])
        unknown.append(labels[labels.notna() & ~known])
        counts = task.label_counts(good[-1])
        windows.append(
            {
                "window": window.name,
                "rows": len(labels),
                "labelled": int(known.sum()),
                "unlabelled": int(labels.isna().sum()),
                "unknown": len(unknown[-1]),
                "labels": ", ".join(f"{label} {count}" for label, count in counts.items()),
            }
        )
    if not windows:
        return [], []
    odd = _oddities(project, pd.concat(good), pd.concat(unknown))
    return windows, [*odd, *_further_oddities(project, pd.concat(frames))]


def _further_oddities(project: ProjectConfig, frame: pd.DataFrame) -> Iterator[str]:
    """Say what is odd about the further columns of all rows."""
    for name, column in project.source.metadata.items():
        values = frame[name].dropna()
        missing = len(frame) - len(values)
        if column.required and missing:
            yield f"{missing:,} rows have nothing in {name}, and would be quarantined"
        unreadable = values[numbers_in(values).isna()] if column.kind == "number" else values[:0]
        if len(unreadable):
            yield (
                f"{len(unreadable):,} rows have what is no number in {name}, such as "
                f"{examples(unreadable)}, and would be quarantined"
            )
        if values.nunique() + (missing > 0) < 2:
            yield f"all rows have the same in {name}: it tells nothing apart"


def _oddities(project: ProjectConfig, good: pd.Series[str], unknown: pd.Series[str]) -> list[str]:
    """Say what is odd about labels, see ``labels_of``."""
    names = ", ".join(project.task.label_names)
    known = f"task.labels has {names}" if names else "the task learns numbers within its range"
    if good.empty and unknown.empty:
        raise ConfigError(
            f"{project.name}: no row has a label; name the column of labels in source.columns.label"
        )
    if good.empty:
        raise ConfigError(
            f"{project.name}: no row has a label that the task knows: {known}, but the rows have "
            f"{examples(unknown)}. Mend section task, or source.columns.label"
        )
    odd = []
    if len(unknown):
        odd.append(
            f"{len(unknown):,} rows have labels that the task does not know, such as "
            f"{examples(unknown)}, and would be quarantined; {known}"
        )
    absent = [name for name in project.task.label_names if not (good == name).any()]
    if absent:
        odd.append(f"no row has the label {' or '.join(map(repr, absent))} of the task")
    return odd
