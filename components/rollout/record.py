"""The rollout record: where the challenger of a project stands, and how it came there.

It lies beside the ledger and is written like it: a transition is created under the next
number if nobody else has done so, and the last one *is* the state. ::

    {prefix}/rollouts/00000001.json              begun, next stage, promoted, rolled back, stopped …
    {prefix}/observations/00000001/{server}.json     what a server saw since that transition
    {prefix}/servers/{server}.json               which servers follow the record, and when last

Whoever sees requests moves it on: the server for the target ``local``, the deploy step for
``kserve``. Any number of them may try; one comes first, and the others read what it did.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from components.errors import StalePromotion
from components.freeze import Freezes
from components.ledger import Ledger, Moment, Name, Series
from components.rollout.config import RolloutConfig, Stage
from components.rollout.judgement import Judgement, judge
from components.rollout.observations import Observations
from components.settings import Section
from components.store import ObjectMissing, Store

State = Literal["running", "promoted", "rolled back", "stopped", "reported"]
"""``rolled back`` by itself, ``stopped`` by a person."""

BEAT_S = 5.0
"""Between two signs of life of a server."""
SILENT_S = 60.0
"""A server that gave none for so long is gone; clocks of machines may differ by less."""


class Transition(Section):
    """One move of a rollout; it says all that a server needs to know."""

    schema_version: int = 1
    number: int = Field(ge=1)
    rollout: Name
    """Idempotency key: one rollout, however often it is begun."""
    state: State
    step: int = Field(ge=0)
    """Which of ``config.stages`` runs, or ran last."""
    bundle: Name
    version: str
    generation: int = Field(ge=1)
    """Ledger entry of the champion that it was compared with."""
    config: RolloutConfig
    begun_by: str
    why: str
    """For the ledger: why the challenger is better."""
    by: str
    """Who made this move."""
    reason: str
    at: Moment
    seen: Observations = Observations()
    """What was seen in the stage that ended with this move."""

    @property
    def is_live(self) -> bool:
        """Whether the challenger is still being tried."""
        return self.state == "running"

    @property
    def stage(self) -> Stage:
        """The stage that runs, or ran last."""
        return self.config.stages[self.step]

    @property
    def words(self) -> str:
        """The state in words."""
        if not self.is_live:
            return self.state
        return f"{self.stage.kind} {self.stage.share:.0%}"


class Rollouts:
    """The rollout record of one ledger."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Name the place; nothing is written yet."""
        self._store, self._prefix = store, f"{prefix}/" if prefix else ""
        self._series = Series(store, f"{self._prefix}rollouts", 8, Transition)

    def last(self) -> Transition | None:
        """Return the last transition, None before the first rollout."""
        return self._series.read(number) if (number := self._series.last()) else None

    def live(self) -> Transition | None:
        """Return where the rollout stands that goes on, None if none does."""
        last = self.last()
        return last if last is not None and last.is_live else None

    def all(self) -> list[Transition]:
        """Return all transitions, oldest first."""
        return [self._series.read(number) for number in range(1, self._series.last() + 1)]

    def begin(
        self,
        *,
        rollout: str,
        bundle: str,
        version: str,
        generation: int,
        config: RolloutConfig,
        by: str,
        why: str,
        at: datetime | None = None,
    ) -> Transition:
        """Begin a rollout with its first stage; one of another key that goes on is ended.

        Returns:
            Its last transition: beginning again with the same key changes nothing.
        """
        while True:  # each turn without an answer means that somebody else made a move
            moves = [each for each in self.all() if each.rollout == rollout]
            if moves:
                return moves[-1]
            last = self.last()
            if last is not None and last.is_live:
                self.move(last, "rolled back", f"version {version} is tried instead", by=by)
                continue
            begun = Transition(
                number=last.number + 1 if last else 1,
                rollout=rollout,
                state="running",
                step=0,
                bundle=bundle,
                version=version,
                generation=generation,
                config=config,
                begun_by=by,
                why=why,
                by=by,
                reason=f"begun: {why}",
                at=(at or datetime.now(UTC)).isoformat(),
            )
            if self._series.create(begun.number, begun):
                return begun

    def move(
        self,
        live: Transition,
        state: State,
        reason: str,
        *,
        by: str,
        step: int | None = None,
        seen: Observations | None = None,
        at: datetime | None = None,
    ) -> Transition | None:
        """Append a move after ``live``; None if somebody else made one.

        Without ``seen``, what was seen in the stage is what servers kept.
        """
        moved = live.model_copy(
            update={
                "number": live.number + 1,
                "state": state,
                "step": live.step if step is None else step,
                "by": by,
                "reason": reason,
                "at": (at or datetime.now(UTC)).isoformat(),
                "seen": self.observed(live) if seen is None else seen,
            }
        )
        if self._series.create(moved.number, moved):
            return moved
        # A create whose answer was lost finds its own work.
        there = self._series.read(moved.number)
        return there if there == moved else None

    def keep(self, live: Transition, server: str, seen: Observations) -> None:
        """Keep what a server saw since a transition."""
        self._store.put(f"{self._seen(live)}{_slug(server)}.json", seen.to_json().encode())

    def kept(self, live: Transition, server: str) -> Observations:
        """Return what a server saw since a transition, as it last kept it."""
        try:
            content = self._store.get(f"{self._seen(live)}{_slug(server)}.json")
            return Observations.from_json(content.decode())
        except (ObjectMissing, ValueError):
            return Observations()

    def observed(self, live: Transition) -> Observations:
        """Return what all servers together saw since a transition."""
        seen = Observations()
        for key in self._store.list(self._seen(live)):
            seen = seen + Observations.from_json(self._store.get(key).decode())
        return seen

    def beat(self, server: str, at: datetime) -> None:
        """Say that a server follows the record."""
        self._store.put(f"{self._prefix}servers/{_slug(server)}.json", at.isoformat().encode())

    def servers(self, now: datetime) -> list[str]:
        """Return the servers that follow the record now."""
        folder, alive = f"{self._prefix}servers/", []
        for key in self._store.list(folder):
            try:
                beat = datetime.fromisoformat(self._store.get(key).decode())
            except (ObjectMissing, ValueError):
                continue
            if abs((now - beat).total_seconds()) < SILENT_S:
                alive.append(key.removeprefix(folder).removesuffix(".json"))
        return alive

    def leave(self, server: str) -> None:
        """Say that a server follows the record no more."""
        self.beat(server, datetime.fromtimestamp(0, UTC))

    def _seen(self, live: Transition) -> str:
        return f"{self._prefix}observations/{live.number:08d}/"


def advance(
    rollouts: Rollouts,
    ledger: Ledger,
    freezes: Freezes,
    live: Transition,
    seen: Observations,
    *,
    by: str,
    now: datetime,
) -> tuple[Judgement, Transition | None]:
    """Judge the stage that runs, and make the move that follows from it, if any.

    A promotion is first an entry of the ledger, whose key is the rollout's, and then the end
    of the record; who breaks off in between finds the entry and ends the record.

    Args:
        rollouts: the record.
        ledger: which a promotion is appended to.
        freezes: while the project is frozen, nothing is promoted.
        live: the rollout's last transition.
        seen: since then.
        by: who moves it.
        now: the clock.

    Returns:
        The judgement, and the move; None if there was nothing to do, or somebody else was
        first.
    """
    elapsed = (now - datetime.fromisoformat(live.at)).total_seconds() / 60
    found = judge(live.stage, live.config, seen, elapsed)
    head = ledger.head()

    def move(state: State, reason: str, step: int | None = None) -> Transition | None:
        return rollouts.move(live, state, reason, by=by, step=step, seen=seen, at=now)

    if head is not None and head.key == live.rollout:
        return found, move("promoted", f"serves as generation {head.number}")
    if head is None or head.number != live.generation:
        other = f"generation {head.number}" if head else "nobody"
        return found, move("rolled back", f"the champion moved: {other} serves meanwhile")
    if found.action == "fail":
        return found, move("rolled back", found.reason)
    if found.action == "stay":
        return found, None
    if live.step + 1 < len(live.config.stages):
        return found, move("running", found.reason, live.step + 1)
    if live.stage.kind == "ab":
        return found, move("reported", found.reason)
    if freezes.state() is not None:
        return found, None
    try:
        entry = ledger.append(
            action="promote",
            bundle=live.bundle,
            version=live.version,
            key=live.rollout,
            by=live.begun_by,
            reason=live.why,
            expected=live.generation,
            at=now,
        )
    except StalePromotion as error:
        return found, move("rolled back", str(error))
    return found, move("promoted", f"serves as generation {entry.number}")


def _slug(server: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", server).strip("-.") or "server"
