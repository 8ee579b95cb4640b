"""Questions about a project's past and present, answered from the ledger and the records."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import home
from components.alerts import alerts_of
from components.candidates import Candidate, Candidates
from components.decisions import Decision, Decisions
from components.errors import BadInput, NoChampion, SourceError
from components.freeze import Freezes
from components.ledger import Entry, Events, Ledger
from components.registry import without_password
from components.serving_costs import ServingCosts
from pipelines.project import ProjectConfig

if TYPE_CHECKING:
    from components.serve.model import BundleModel
    from pipelines.runners import Run

SHOWN_RUNS = 10
ROWS_AT_ONCE = 256


def state_of(project: ProjectConfig) -> dict[str, Any]:
    """Return what stands in a project: champion, candidate, freeze, alerts, runs, open events."""
    store = home.store()
    head = Ledger(store, project.ledger).head()
    frozen = Freezes(store, project.ledger).state()
    suffix = "/notify.json"
    outcomes = [key for key in store.list(f"{project.ledger}/runs/") if key.endswith(suffix)]
    runs = [json.loads(store.get(key)) for key in outcomes[-SHOWN_RUNS:]]
    events = Events(store, project.ledger).all().items()
    alerts = alerts_of(Decisions(store, project.ledger).recent())
    candidate = awaiting(project)
    return {
        "project": project.name,
        "champion": head.model_dump(mode="json") if head else None,
        "frozen": frozen.model_dump(mode="json") if frozen else None,
        "candidate": {
            "version": candidate.candidate.version,
            "state": candidate.state,
            "detail": candidate.detail,
        }
        if candidate
        else None,
        "alerts": [each.model_dump(mode="json") for each in alerts if each.is_open],
        "runs": [{key: run[key] for key in ("run", "window", "result", "reason")} for run in runs],
        "events": [
            {"event": key, "owner": event.owner, "state": event.state, "detail": event.detail}
            for key, event in events
            if event.state != "done"
        ],
    }


@dataclass(frozen=True)
class Standing:
    """A candidate, and what became of it."""

    candidate: Candidate
    state: str
    """``champion``, ``promoted`` once, ``rejected``, ``waiting``, ``kept``, ``inconclusive``."""
    detail: str

    def way_to_promote(self, typed: str) -> str:
        """Return the command by which a person makes it champion.

        Args:
            typed: how the user names the project.
        """
        force = "" if self.state == "waiting" else "--force "
        return f"tokiwa promote {shlex.quote(typed)} {self.candidate.version} {force}--reason …"


def standings(project: ProjectConfig) -> list[Standing]:
    """Return all candidates of a project, oldest first, with what became of each."""
    store = home.store()
    candidates = Candidates(store, project.ledger)
    entries = Ledger(store, project.ledger).entries()
    promoted = {entry.bundle: entry for entry in entries}
    head = entries[-1].bundle if entries else ""
    out = []
    for each in candidates.all():
        no, entry = candidates.rejection(each.version), promoted.get(each.bundle)
        if entry is not None:
            state = "champion" if each.bundle == head else "promoted"
            detail = f"by {entry.by}: {entry.reason}"
        elif no is not None:
            state, detail = "rejected", f"by {no.by}: {no.reason}"
        else:
            state = {"promote": "waiting", "keep": "kept"}.get(each.verdict, each.verdict)
            detail = each.reason
        out.append(Standing(each, state, detail))
    return out


def awaiting(project: ProjectConfig) -> Standing | None:
    """Return the last candidate that a person could make champion, None for none.

    It waits for approval; or, where nothing serves yet, the gate did not let it through.
    """
    generation = Ledger(home.store(), project.ledger).generation
    known = ("waiting",) if generation else ("waiting", "inconclusive", "kept")
    open_ = [
        each
        for each in standings(project)
        if each.state in known and each.candidate.generation == generation
    ]
    return open_[-1] if open_ else None


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
        there = f"there are decisions on {', '.join(known)}"
        if not known:
            there = "none was looked at yet; tokiwa monitor PROJECT looks at one"
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
            f"{project.name} has no model in production yet; {first_step(project, typed)}"
        )
    return head


def first_step(project: ProjectConfig, typed: str) -> str:
    """Say what gives a project without a champion its first one.

    Args:
        project: that has none.
        typed: how the user names it.
    """
    found = awaiting(project)
    if found is None:
        return (
            f"train one: tokiwa run {shlex.quote(typed)}\n(looked in "
            f"{without_password(home.store_url())}; set TOKIWA_HOME or TOKIWA_STORE to look "
            "elsewhere)"
        )
    version, way = found.candidate.version, found.way_to_promote(typed)
    if found.state == "waiting":
        return f"version {version} waits for approval; promote it: {way}"
    return (
        f"version {version} is {found.state} ({found.detail}); train on more rows, or promote it "
        f"in spite of that: {way}"
    )


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
