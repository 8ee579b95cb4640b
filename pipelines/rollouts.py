"""What a person does about a rollout, and about a champion that has to go."""

from __future__ import annotations

import getpass
import shlex
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from components import bundle, home, signature
from components.candidates import Candidates
from components.deploy.core import DeployReport, deploy
from components.deploy.targets import TARGETS, Site, Target
from components.errors import BadInput, NoChampion, TokiwaError, WorldError
from components.freeze import Freezes
from components.ledger import Entry, Ledger
from components.request_log import RequestLog
from components.resolve.core import code_version
from components.rollout.judgement import Judgement, judge
from components.rollout.observations import Observations
from components.rollout.record import Rollouts, Transition
from pipelines.project import ProjectConfig
from pipelines.promotion import decided

PREVIOUS = "previous"


@dataclass(frozen=True)
class RolledBack:
    """A rollback, which holds from the moment at which the ledger has it.

    Attributes:
        entry: of the ledger.
        alias_error: why MLflow's alias could not follow, empty if it did.
        service_error: why a rollout that goes on, or the InferenceService, could not.
    """

    entry: Entry
    alias_error: str
    service_error: str


@dataclass(frozen=True)
class Standing:
    """Where the last rollout of a project stands.

    Attributes:
        moves: its transitions, oldest first.
        judgement: of the stage that runs, or ran last.
        seen: in that stage.
        servers: which servers follow the record.
        awaits_person: it was reported, and the champion is still the one it was compared with.
    """

    moves: list[Transition]
    judgement: Judgement
    seen: Observations
    servers: list[str]
    awaits_person: bool

    @property
    def last(self) -> Transition:
        """Where it stands."""
        return self.moves[-1]


def standing(project: ProjectConfig) -> Standing | None:
    """Return where the last rollout stands, None if there was none."""
    rollouts, now = Rollouts(home.store(), project.ledger), datetime.now(UTC)
    moves = rollouts.all()
    if not moves:
        return None
    last = moves[-1]
    mine = [each for each in moves if each.rollout == last.rollout]
    if last.is_live:
        since, until, seen = last.at, now, rollouts.observed(last)
    else:  # the move that ended it keeps what was seen
        since, until, seen = mine[-2].at, datetime.fromisoformat(last.at), last.seen
    elapsed = (until - datetime.fromisoformat(since)).total_seconds() / 60
    judgement = judge(last.stage, last.config, seen, elapsed)
    generation = Ledger(home.store(), project.ledger).generation
    awaits_person = last.state == "reported" and generation == last.generation
    return Standing(mine, judgement, seen, rollouts.servers(now), awaits_person)


def start(
    project: ProjectConfig, typed: str, version: str, reason: str, force: bool
) -> DeployReport:
    """Begin the rollout of a registered challenger, as a person decides.

    What takes ``force`` is as in ``pipelines.promotion.promote``.

    Args:
        project: whose challenger.
        typed: how the user names the project, for messages.
        version: in the registry.
        reason: for the record, and for the ledger if it is promoted.
        force: begin in spite of the gate.

    Raises:
        BadInput: there is no such version, it serves or takes force, the project has no
            rollout, or one goes on.
        BundleError: it does not load, or answers otherwise than when it was evaluated.
        Frozen: somebody stopped all promotions.
        NoChampion: nobody serves beside whom it could be tried.
    """
    store = home.store()
    ledger, candidates = Ledger(store, project.ledger), Candidates(store, project.ledger)
    freezes = Freezes(store, project.ledger)
    freezes.refuse("a rollout")
    if project.deploy.rollout is None:
        raise BadInput(f"{project.name} has no deploy.rollout, which says through which stages")
    command, head = f"tokiwa rollout {shlex.quote(typed)}", ledger.head()
    rollouts = Rollouts(store, project.ledger)
    live = rollouts.live()
    if live is not None:
        raise BadInput(
            f"version {live.version} is in rollout: {live.words} since {live.at}, begun by "
            f"{live.begun_by}; stop it first: {command} --stop --reason …"
        )
    candidate, reason = decided(
        candidates, head, version, reason, force, f"{command} {shlex.quote(version)}"
    )
    if head is None or not _target(project, ledger, freezes, rollouts).is_serving():
        raise NoChampion(
            f"{project.name} has no champion in service beside which a challenger could be tried; "
            "start one with tokiwa serve, or promote the version at once with tokiwa promote"
        )
    # A person asks for it: that is the approval.
    config = project.deploy.model_copy(update={"approval": "none"})
    with tempfile.TemporaryDirectory() as folder:
        return deploy(
            candidate.bundle,
            candidates.predictions(version, Path(folder)),
            version=version,
            generation=head.number,
            code=code_version(),
            key=f"rollout by hand/{candidate.bundle}/{len(rollouts.all())}",
            by=getpass.getuser(),
            reason=reason,
            project=project.name,
            store=store,
            ledger=ledger,
            freezes=freezes,
            rollouts=rollouts,
            requests=RequestLog(store, project.ledger),
            registry=home.registry(project.name),
            config=config,
        )


def stop(project: ProjectConfig, reason: str) -> Transition:
    """End the rollout that goes on; the champion stays.

    May be done again: of a rollout that has ended, what serves is only seen to once more.

    Returns:
        How it ended.

    Raises:
        BadInput: none goes on, and the last one was not rolled back.
        WorldError: what serves could not be changed; the record has the end all the same.
    """
    store = home.store()
    rollouts, by = Rollouts(store, project.ledger), getpass.getuser()
    while (live := rollouts.live()) is not None:  # else somebody moved it in between
        rollouts.move(live, "stopped", f"stopped by {by}: {reason}", by=by)
    ended = rollouts.last()
    if ended is None or ended.state not in ("stopped", "rolled back"):
        last = f"; the last one is {ended.state}" if ended else ""
        raise BadInput(f"{project.name} has no rollout that goes on{last}")
    ledger, freezes = Ledger(store, project.ledger), Freezes(store, project.ledger)
    try:
        _target(project, ledger, freezes, rollouts).settle()
    except TokiwaError as error:
        raise WorldError(
            f"done: the rollout of version {ended.version} is {ended.state} in the record. Not "
            f"done: its canary may still answer, for the service could not be changed: {error}. "
            "To do: when that is mended, give the same command again; doing it twice is safe"
        ) from error
    return ended


def roll_back(project: ProjectConfig, version: str, reason: str) -> RolledBack:
    """Make a former champion champion again; no training code is needed for it.

    A freeze does not forbid it: it is what a freeze is for. A rollout that goes on is ended.

    Args:
        project: whose champion.
        version: one that has served, or ``previous``, see ``Ledger.previous``.
        reason: for the ledger.

    Raises:
        BadInput: the version has never served, serves now, or there is no previous one.
        BundleError: its bundle is missing, altered, or not signed by a trusted key.
        StalePromotion: somebody else moved the champion at the same moment.
    """
    store = home.store()
    ledger = Ledger(store, project.ledger)
    head, wanted = ledger.head(), _former(ledger, version, project.name)
    assert head is not None
    signature.require(store, wanted.bundle, project.deploy.trusted_keys)
    bundle.fetch(store, wanted.bundle)
    entry = ledger.append(
        action="rollback",
        bundle=wanted.bundle,
        version=wanted.version,
        key=f"rollback/{head.number}/{wanted.bundle}",
        by=getpass.getuser(),
        reason=reason,
        expected=head.number,
    )
    # The ledger has spoken and servers follow it: were what comes after a failure of the whole,
    # the command would be given again, and go back to the bad model.
    service_error = _rollout_ended(project, ledger, entry)
    return RolledBack(entry, _mirrored(project, entry), service_error)


def _rollout_ended(project: ProjectConfig, ledger: Ledger, entry: Entry) -> str:
    store = home.store()
    rollouts = Rollouts(store, project.ledger)
    try:
        live = rollouts.live()
        if live is not None:
            why = f"rollback to version {entry.version}"
            rollouts.move(live, "stopped", why, by=entry.by)
        _target(project, ledger, Freezes(store, project.ledger), rollouts).settle()
    except TokiwaError as error:
        return str(error)
    return ""


def _mirrored(project: ProjectConfig, entry: Entry) -> str:
    if not (project.deploy.mirror_alias and entry.version):
        return ""
    try:
        home.registry(project.name).mirror(entry.version)
    except (TokiwaError, ImportError) as error:  # MLflow's client need not be here
        return str(error)
    return ""


def served_at(project: ProjectConfig, text: str) -> list[Entry]:
    """Return the entries that served at a moment, or at any time of a day.

    Args:
        project: whose ledger; its time zone reads what names none.
        text: ISO 8601, such as ``2026-11-01`` or ``2026-11-01T12:00``.

    Raises:
        BadInput: it is no moment and no day.
    """
    ledger, moment = Ledger(home.store(), project.ledger), moment_of(project, text)
    first = ledger.at(moment)
    if len(text) > len("2026-11-01"):
        return [first] if first else []
    day_after = moment.date() + timedelta(days=1)
    end = datetime.combine(day_after, time(), ZoneInfo(project.resolve.timezone))
    last = ledger.at(end - timedelta(microseconds=1))
    numbers = range(first.number if first else 1, last.number + 1 if last else 1)
    return [each for each in ledger.entries() if each.number in numbers]


def moment_of(project: ProjectConfig, text: str) -> datetime:
    """Return a moment, or the beginning of a day, see ``served_at``."""
    try:
        moment = datetime.fromisoformat(text)
        moment.date() + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{text!r} is no day and no moment; write 2026-11-01T12:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(project.resolve.timezone))


def _former(ledger: Ledger, version: str, name: str) -> Entry:
    entries = ledger.entries()
    if not entries:
        raise BadInput(f"{name} has had no champion yet: there is nothing to go back to")
    head = entries[-1]
    if version == PREVIOUS:
        previous = ledger.previous()
        if previous is None:
            raise BadInput(f"{name}: {_no_previous(entries)}")
        return previous
    found = [each for each in entries if version in (each.version, each.bundle)]
    if not found:
        known = ", ".join(dict.fromkeys(each.version or each.bundle[:12] for each in entries))
        raise BadInput(f"version {version} has never been champion; there were {known}")
    if found[-1].bundle == head.bundle:
        raise BadInput(f"version {version} is the champion already, as entry {head.number}")
    return found[-1]


def _no_previous(entries: list[Entry]) -> str:
    """Return why ``previous`` names nobody, in words."""
    backs = [each for each in entries if each.action == "rollback"]
    if not backs:
        return "it has had one champion only: there is nothing to go back to"
    back, left = backs[-1], entries[backs[-1].number - 2]
    return (
        f"no champion is left to go back to: version {left.version or left.bundle[:12]} was "
        f"rolled back at {back.at} because {back.reason!r}; name it to serve it again"
    )


def _target(project: ProjectConfig, ledger: Ledger, freezes: Freezes, rollouts: Rollouts) -> Target:
    site = Site(project.name, ledger, freezes, rollouts, project.deploy)
    return TARGETS[project.deploy.target](site)
