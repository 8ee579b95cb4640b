"""Keep a project's recurring runs as its file says.

A recurring run cannot be edited, so a changed one is created anew before the old one is
deleted: a project is never without its schedule, and whatever breaks off in between leaves
at most one too many, which the next ``apply`` removes. Each carries the digest of what it
was applied as; one that differs from it was edited by hand, and is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from components.errors import BackendError, BadInput, EditedByHand
from components.settings import canonical_json, digest_of
from pipelines.backend import MARK, Backend, version_of
from pipelines.cron import Conversion, converted
from pipelines.project import ProjectConfig
from pipelines.runners import GRAPHS
from pipelines.submission import pipeline_name, run_name

ROUNDS = 3
"""Looks at what came of a change; a third is needed only if others change things too."""
MOVING_WINDOW = "now"
"""A schedule looks at the last whole window, whether it has rows or not."""
ACCOUNT = "service account"
_MARK = re.compile(rf"^{MARK} from project (\S+), (\w+); edit its file instead\. \[(\w+)\]$", re.M)

Action = Literal["create", "delete", "keep", "drift", "orphan"]
State = Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """One line of the difference between a file and Kubeflow.

    Attributes:
        action: ``drift`` was edited by hand and stays, ``orphan`` is not in the file and stays.
        graph: ``training`` or ``monitoring``.
        why: one sentence.
        schedule: id of the recurring run, empty for one to come.
        differences: of each key, what it is and what it will be.
    """

    action: Action
    graph: str
    why: str
    schedule: str = ""
    differences: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A recurring run as the file says it should be."""

    graph: str
    name: str
    package: Path
    state: State
    conversion: Conversion


@dataclass(frozen=True)
class Found:
    """A recurring run of ours as it is."""

    id: str
    created: str
    graph: str
    state: State
    applied_as: str

    @property
    def untouched(self) -> bool:
        """Whether it still is what it was applied as."""
        without = {key: value for key, value in self.state.items() if key != ACCOUNT}
        return self.applied_as in (_digest(self.state), _digest(without))

    def suits(self, wanted: State) -> bool:
        """Whether it is as it should be, in all that the file says.

        The account that Kubeflow chose where the file named none is no difference; one that
        the file named before and names no more is.
        """
        if ACCOUNT not in wanted and self.applied_as == _digest(self.state):
            return False
        return {key: self.state[key] for key in wanted} == dict(wanted)


def wanted_of(
    project: ProjectConfig, packages: Mapping[str, Path], now: datetime
) -> dict[str, Wanted]:
    """Return the recurring runs that a project's file asks for, by graph."""
    account = project.cluster.service_account
    wanted = {}
    for graph, schedule in project.schedules.by_graph.items():
        conversion = converted(schedule, project.timezone, project.schedules.cluster_timezone, now)
        state = {
            "cron": conversion.cron,
            "enabled": str(schedule.enabled).lower(),
            "version": version_of(packages[graph]),
            "parameters": canonical_json({"window": MOVING_WINDOW, "cause": "schedule"}),
            "catches up": "false",
            "at once": "1",
            **({ACCOUNT: account} if account else {}),
        }
        name = run_name(project, graph, MOVING_WINDOW, "schedule")
        wanted[graph] = Wanted(graph, name, packages[graph], state, conversion)
    return wanted


def difference(
    project: ProjectConfig,
    backend: Backend,
    wanted: Mapping[str, Wanted],
    *,
    prune: bool = False,
    force: bool = False,
) -> list[Change]:
    """Return what has to change, creations before deletions.

    Args:
        project: whose schedules.
        backend: where they are.
        wanted: see ``wanted_of``.
        prune: delete what is not in the file any more.
        force: replace what was edited by hand.

    Raises:
        BadInput: somebody else's recurring run has the name of one that is to be created.
    """
    everything = backend.schedules()
    changes: list[Change] = []
    for graph in GRAPHS:
        marked = [each for each in everything if _marked(each, project.name, graph)]
        versions = {}
        if marked:
            versions = backend.versions(backend.pipeline(pipeline_name(project, graph)))
        ours = [_found(each, graph, versions) for each in marked]
        ours.sort(key=lambda each: (each.created, each.id))
        if graph not in wanted:
            changes += [_unwanted(each, prune, force) for each in ours]
            continue
        found_changes = _changes(wanted[graph], ours, force)
        if not ours and (named := _named(everything, wanted[graph].name)):
            raise BadInput(
                f"a recurring run called {wanted[graph].name!r} exists that Tokiwa did not make "
                f"({named}); delete it in the UI, or rename the project"
            )
        changes += found_changes
    return sorted(changes, key=lambda each: _ORDER.index(each.action))


_ORDER: tuple[Action, ...] = ("keep", "create", "delete", "drift", "orphan")


def _changes(wanted: Wanted, ours: Sequence[Found], force: bool) -> list[Change]:
    graph = wanted.graph
    same = [each for each in ours if each.suits(wanted.state)]
    touched = [each for each in ours if each not in same and not each.untouched]
    stale = [each for each in ours if each not in same and each.untouched]
    changes = []
    if same:
        changes.append(Change("keep", graph, "is as the file says", same[0].id))
    elif stale or force or not touched:
        before = [*touched, *stale][-1:]
        why = "differs from the file" if before else "is new"
        state = before[0].state if before else {}
        changes.append(Change("create", graph, why, "", _differences(state, wanted.state)))
    changes += [
        Change("delete", graph, "is there twice, from an apply that broke off", each.id)
        for each in same[1:]
    ]
    changes += [Change("delete", graph, "is replaced", each.id) for each in stale]
    for each in touched:
        action: Action = "delete" if force else "drift"
        why = "was edited by hand" + (" and is replaced" if force else "; --force replaces it")
        changes.append(Change(action, graph, why, each.id, _differences(each.state, wanted.state)))
    return changes


def _unwanted(found: Found, prune: bool, force: bool) -> Change:
    if prune and (found.untouched or force):
        return Change("delete", found.graph, "is not in the file", found.id)
    if prune:
        why = "is not in the file, but was edited by hand; --force deletes it"
        return Change("drift", found.graph, why, found.id)
    return Change("orphan", found.graph, "is not in the file; --prune deletes it", found.id)


def apply(
    project: ProjectConfig,
    backend: Backend,
    wanted: Mapping[str, Wanted],
    *,
    prune: bool = False,
    force: bool = False,
) -> list[Change]:
    """Bring Kubeflow to what the file says, and return what was left alone.

    Raises:
        BackendError: it did not take what it was given, or somebody else keeps changing it.
    """
    created: set[str] = set()
    for _ in range(ROUNDS):
        changes = difference(project, backend, wanted, prune=prune, force=force)
        missing = {change.graph for change in changes if change.action == "create"}
        if missing & created:
            break  # what was made is not there: making it again and again helps nobody
        for graph in sorted(missing):
            _create(project, backend, wanted[graph])
        created |= missing
        for change in changes:
            if change.action == "delete":
                backend.unschedule(change.schedule)
        if not any(change.action in ("create", "delete") for change in changes):
            return [change for change in changes if change.action in ("drift", "orphan")]
    raise BackendError(
        f"the schedules of {project.name} keep changing; is somebody else applying them? "
        "Look at them with: tokiwa apply --dry-run"
    )


def explained(
    project: ProjectConfig, wanted: Mapping[str, Wanted], changes: Sequence[Change]
) -> list[str]:
    """Return the difference as lines for a person, both clocks spelled out."""
    lines = []
    if not wanted and not changes:
        lines.append(f"{project.name} has no section schedules; see docs/architecture.md")
    for change in changes:
        named = f" {change.schedule}" if change.schedule else ""
        lines.append(f"{_SIGNS[change.action]} {change.graph}{named} {change.why}")
        lines += [
            f"    {key}: {before} → {after}" if before else f"    {key}: {after}"
            for key, before, after in change.differences
        ]
        if change.action in ("create", "keep"):
            clocks = wanted[change.graph].conversion.explanation
            lines.append(
                f"    {project.schedules.by_graph[change.graph].cron!r} in "
                f"{project.timezone}: {clocks}"
            )
    return lines


_SIGNS: Mapping[Action, str] = {
    "create": "+",
    "delete": "-",
    "keep": "=",
    "drift": "!",
    "orphan": "?",
}


def refuse_drift(left: Sequence[Change]) -> None:
    """Raise if something was left alone because it was edited by hand.

    Raises:
        EditedByHand: so it was.
    """
    drifted = [f"{each.graph} ({each.schedule})" for each in left if each.action == "drift"]
    if drifted:
        raise EditedByHand(
            f"edited by hand and left alone: {', '.join(drifted)}; "
            "put the change into the project file, or replace it with --force"
        )


def _create(project: ProjectConfig, backend: Backend, wanted: Wanted) -> None:
    """Create a recurring run, and make sure that the server understood all of it."""
    pipeline, version = backend.upload(pipeline_name(project, wanted.graph), wanted.package)
    marked = (
        f"{MARK} from project {project.name}, {wanted.graph}; edit its file instead. "
        f"[{_digest(wanted.state)}]"
    )
    made = backend.schedule(
        experiment_id=backend.experiment(project.name),
        job_name=wanted.name,
        description=marked,
        cron_expression=wanted.state["cron"],
        max_concurrency=1,
        no_catchup=True,
        params={"window": MOVING_WINDOW, "cause": "schedule"},
        pipeline_id=pipeline,
        version_id=version,
        enabled=wanted.state["enabled"] == "true",
        service_account=project.cluster.service_account or None,
    )
    understood = _found(made, wanted.graph, {version: wanted.state["version"]})
    if understood.applied_as != _digest(wanted.state) or not understood.suits(wanted.state):
        backend.unschedule(str(made.recurring_run_id))
        differing = [key for key, _, _ in _differences(understood.state, wanted.state)]
        lost = ", ".join(differing) or "the description"
        raise BackendError(
            f"Kubeflow Pipelines did not keep {lost} of the schedule of {wanted.graph}; it may be "
            "too old. Nothing was changed"
        )


def _marked(run: Any, project: str, graph: str) -> bool:
    """Return whether a recurring run is kept for a graph of a project."""
    mark = _MARK.search(run.description or "")
    return mark is not None and mark.groups()[:2] == (project, graph)


def _found(run: Any, graph: str, versions: Mapping[str, str]) -> Found:
    """Read a recurring run of ours."""
    mark = _MARK.search(run.description or "")
    return Found(
        id=str(run.recurring_run_id),
        created=str(run.created_at),
        graph=graph,
        state=_state(run, versions),
        applied_as=mark[3] if mark else "",
    )


def _state(run: Any, versions: Mapping[str, str]) -> State:
    trigger, reference, given = run.trigger, run.pipeline_version_reference, run.runtime_config
    cron = trigger.cron_schedule if trigger else None
    bounds = [cron.start_time, cron.end_time] if cron else []
    shown = cron.cron if cron else "none"
    if any(bounds):
        shown += f" between {bounds[0] or 'ever'} and {bounds[1] or 'ever'}"
    version = str(reference.pipeline_version_id) if reference else ""
    status = str(run.status or "")
    return {
        "cron": str(shown),
        "enabled": str(status == "ENABLED" if status else run.mode == "ENABLE").lower(),
        "version": versions.get(version, f"unknown {version}".strip()),
        "parameters": canonical_json((given.parameters if given else None) or {}),
        "catches up": str(not run.no_catchup).lower(),
        "at once": str(run.max_concurrency),
        ACCOUNT: str(run.service_account or ""),
    }


def _differences(before: State, after: State) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (key, before.get(key, ""), value)
        for key, value in after.items()
        if before.get(key, "") != value
    )


def _named(everything: Sequence[Any], name: str) -> str:
    """Return the id of a recurring run with a name, or nothing."""
    found = (str(each.recurring_run_id) for each in everything if each.display_name == name)
    return next(found, "")


def _digest(state: State) -> str:
    return digest_of(dict(state))[:16]
