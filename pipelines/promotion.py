"""What a person decides: promote a challenger or turn it down, freeze a project or thaw it."""

from __future__ import annotations

import getpass
import shlex
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from components import bundle, home
from components.candidates import Candidate, Candidates, Rejection
from components.deploy.core import DeployReport, deploy
from components.errors import BadInput
from components.freeze import Freeze, Freezes
from components.ledger import Entry, Ledger
from components.request_log import RequestLog
from components.resolve.core import code_version
from components.rollout.record import Rollouts
from pipelines.project import ProjectConfig


def promote(
    project: ProjectConfig, typed: str, version: str, reason: str, force: bool
) -> DeployReport:
    """Make a registered challenger champion, as a person decides.

    It is proved in the server's code like any other. What the gate did not let through, what
    somebody turned down, what was compared with another champion than today's, and what may
    have learnt from rows that were forgotten since, is promoted with ``force`` alone.

    Args:
        project: whose challenger.
        typed: how the user names the project, for messages.
        version: in the registry.
        reason: for the ledger.
        force: promote in spite of the gate.

    Raises:
        BadInput: there is no such version, it serves already, or it takes force.
        BundleError: it does not load, or answers otherwise than when it was evaluated.
        Frozen: somebody stopped all promotions.
        StalePromotion: somebody else promoted at the same moment.
    """
    store = home.store()
    ledger, candidates = Ledger(store, project.ledger), Candidates(store, project.ledger)
    freezes = Freezes(store, project.ledger)
    freezes.refuse("a promotion")
    head = ledger.head()
    command = f"tokiwa promote {shlex.quote(typed)} {version}"
    candidate, reason = decided(candidates, head, version, reason, force, command)
    generation = head.number if head else 0
    with tempfile.TemporaryDirectory() as folder:
        return deploy(
            candidate.bundle,
            candidates.predictions(version, Path(folder)),
            version=version,
            generation=generation,
            code=code_version(),
            key=f"by hand/{candidate.bundle}/{generation}",
            by=getpass.getuser(),
            reason=reason,
            project=project.name,
            store=store,
            ledger=ledger,
            freezes=freezes,
            rollouts=Rollouts(store, project.ledger),
            requests=RequestLog(store, project.ledger),
            registry=home.registry(project.name),
            config=project.deploy,
            by_hand=True,
        )


def decided(
    candidates: Candidates, head: Entry | None, version: str, reason: str, force: bool, command: str
) -> tuple[Candidate, str]:
    """Return the challenger that a person wants to serve, and the reason for the history.

    Args:
        candidates: of the project.
        head: the champion's entry.
        version: in the registry.
        reason: as the person gave it; what speaks against the challenger is added.
        force: go on in spite of that.
        command: that was given, without its options, for messages.

    Raises:
        BadInput: there is no such version, it serves already, or it takes force.
    """
    candidate = candidates.find(version)
    if head is not None and head.bundle == candidate.bundle:
        raise BadInput(f"version {version} is the champion already, as entry {head.number}")
    doubts = _doubts(candidate, head.number if head else 0, candidates.rejection(version))
    if forgotten := candidates.forgotten(candidate):
        doubts.append(forgotten)
    if not doubts:
        return candidate, reason
    said = "; ".join(doubts)
    if not force:
        anyway = f"{command} --force --reason …"
        raise BadInput(f"version {version}: {said}. To do it anyway: {anyway}")
    return candidate, f"{reason} (in spite of: {said})"


def sign(project: ProjectConfig, version: str) -> tuple[str, str]:
    """Sign a registered version, or one that has served, with the key of this machine.

    Returns:
        The digest of its bundle, and the id of the key.

    Raises:
        BadInput: there is no such version, or the project names no key to sign with.
        BundleError: the bundle is missing or altered.
        ConfigError: the key is not here, or none that can be used.
    """
    store = home.store()
    key = home.signing_key(project.register_.signing_key_env)
    if key is None:
        raise BadInput(f"{project.name} has no register.signing_key_env, which names the key")
    served = [each for each in Ledger(store, project.ledger).entries() if each.version == version]
    candidates = Candidates(store, project.ledger)
    digest = served[-1].bundle if served else candidates.find(version).bundle
    bundle.fetch(store, digest)
    key.sign(store, digest)
    return digest, key.name


def reject(project: ProjectConfig, version: str, reason: str) -> Rejection:
    """Turn a challenger down; return who was first to do so.

    Raises:
        BadInput: there is no such version, or it serves.
    """
    store = home.store()
    candidates, head = Candidates(store, project.ledger), Ledger(store, project.ledger).head()
    candidate = candidates.find(version)
    if head is not None and head.bundle == candidate.bundle:
        raise BadInput(f"version {version} is the champion; promote another one to replace it")
    return candidates.reject(version, getpass.getuser(), reason)


def set_frozen(project: ProjectConfig, reason: str, *, frozen: bool) -> tuple[Freeze, bool]:
    """Stop all retrains and promotions of a project, or allow them again.

    Returns:
        What holds now, and whether this act made it so; else it is the record of an earlier one.
    """
    freezes = Freezes(home.store(), project.ledger)
    before = len(freezes.all())
    held = freezes.set(frozen=frozen, by=getpass.getuser(), reason=reason, at=datetime.now(UTC))
    return held, held.number > before


def _doubts(candidate: Candidate, generation: int, rejection: Rejection | None) -> list[str]:
    """Return what speaks against a promotion, in words."""
    doubts = []
    if candidate.verdict != "promote":
        doubts.append(f"the gate said {candidate.verdict} ({candidate.reason})")
    if candidate.generation != generation:
        doubts.append(
            f"it was compared with generation {candidate.generation}, and {generation} serves now"
        )
    if rejection is not None:
        doubts.append(f"{rejection.by} turned it down ({rejection.reason})")
    return doubts
