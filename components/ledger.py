"""Who is champion, who was, and which trigger events are in whose hands.

Both are series of small records numbered from 1 in one folder of a store. A record is
never changed: the next one is created if, and only if, nobody else has. That one atomic
act is the whole concurrency control. ::

    {prefix}/ledger/00000001.json           promotions and rollbacks; the last is the champion
    {prefix}/events/{event}/0001.json       claimed → done, or failed → claimed by another → …
    {prefix}/flights/00000001.json          the claims that were acted on, one after the other

A create whose answer was lost is sent once more; the key or owner inside the record that
is then found tells whether it was one's own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, takewhile
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from components.errors import LedgerError, StalePromotion
from components.settings import Section
from components.store import ObjectMissing, OutcomeUnknown, Store

SCHEMA = 1
"""The newest record layout that this version reads, and the one it writes."""

Action = Literal["promote", "rollback", "adopt", "publish"]
Closing = Literal["done", "failed"]

_PAST_TENSE: dict[str, str] = {
    "promote": "promoted",
    "rollback": "restored",
    "adopt": "adopted",
    "publish": "published",
}


def _moment(text: str) -> datetime:
    """Read ISO 8601; a moment without an offset is a ``ValueError``, for it names no moment."""
    return _aware(datetime.fromisoformat(text))


def _aware(moment: datetime | None) -> datetime:
    moment = moment or datetime.now(UTC)
    if moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} has no offset from UTC")
    return moment


def _checked_moment(text: str) -> str:
    _moment(text)
    return text


Moment = Annotated[str, AfterValidator(_checked_moment)]
Name = Annotated[str, Field(min_length=1)]


class Entry(Section):
    """One promotion, rollback, adoption or publication."""

    schema_version: int = SCHEMA
    number: int = Field(ge=1)
    action: Action
    bundle: Name
    """Digest of the bundle that this entry made champion."""
    version: str = ""
    """Version in the model registry; empty if there is none."""
    key: Name
    """Idempotency key: one act, however often it is tried."""
    by: str
    reason: str
    at: Moment
    """ISO 8601 with an offset."""


class EventState(Section):
    """What became of a trigger event, at one point of its life."""

    schema_version: int = SCHEMA
    key: Name
    owner: Name
    """The run that handles the event."""
    state: Literal["claimed", "done", "failed"]
    at: Moment
    lease_until: Moment
    """Until when nobody else may take a claimed event; for a closed one, when it closed."""
    detail: str = ""

    def is_held(self, now: datetime) -> bool:
        """Tell whether its owner may still be at work."""
        return self.state == "claimed" and now < _moment(self.lease_until)


class Flight(Section):
    """A claim that is acted on, while no other is."""

    schema_version: int = SCHEMA
    event: Name
    owner: Name
    claim: int = 0
    """Number of the claim among the records of its event."""
    at: Moment


@dataclass(frozen=True)
class Claim:
    """The answer to an owner that asks for an event."""

    outcome: Literal["claimed", "taken over", "held", "done"]
    state: EventState

    @property
    def is_mine(self) -> bool:
        """Tell whether the asking owner now holds the event and must handle it."""
        return self.outcome in ("claimed", "taken over")


class _AnySchema(Section, extra="ignore"):
    schema_version: int


RecordT = TypeVar("RecordT", bound=Section)


class Series(Generic[RecordT]):
    """Records numbered from 1 in one folder; append-only, but for an erasure."""

    def __init__(self, store: Store, folder: str, width: int, kind: type[RecordT]) -> None:
        self._store, self._folder, self._width, self._kind = store, folder, width, kind

    def last(self, listing: Iterable[str] | None = None) -> int:
        """Return the highest number, 0 when empty; ``LedgerError`` if one below it is missing."""
        keys = self._store.list(f"{self._folder}/") if listing is None else listing
        numbers = {number for key in keys if (number := self._number(key))}
        last = max(numbers, default=0)
        for number in range(1, last):
            # A listing is no snapshot: it may show a record and miss the one just before.
            if number not in numbers and not self.has(number):
                raise LedgerError(
                    f"{self._uri(number)} is missing, though {self._uri(last)} exists; "
                    "restore it from a backup"
                )
        return last

    def has(self, number: int) -> bool:
        """Tell whether there is a record of this number."""
        return self._store.exists(self._name(number))

    def read(self, number: int) -> RecordT:
        """Return a record; ``LedgerError`` if it is missing, unreadable or too new."""
        try:
            data = self._store.get(self._name(number))
            schema = _AnySchema.model_validate_json(data).schema_version
            if schema > SCHEMA:
                raise LedgerError(
                    f"{self._uri(number)} has schema version {schema}, this Tokiwa reads up to "
                    f"{SCHEMA}; upgrade Tokiwa"
                )
            return self._kind.model_validate_json(data)
        except ObjectMissing as error:
            raise LedgerError(f"{self._uri(number)} is missing") from error
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            problem = f"{where}: " * bool(where) + error.errors()[0]["msg"]
            raise LedgerError(f"{self._uri(number)} cannot be read: {problem}") from error

    def create(self, number: int, record: RecordT) -> bool:
        """Create a record; False if there is one, which may be this one if an answer was lost."""
        name, data = self._name(number), record.to_json().encode()
        try:
            return self._store.create_if_absent(name, data)
        except OutcomeUnknown:
            return self._store.create_if_absent(name, data)

    def erase(self, number: int, record: RecordT) -> None:
        """Write a record over the one of a number, which says something that must be forgotten."""
        self._store.put(self._name(number), record.to_json().encode())

    def _name(self, number: int) -> str:
        return f"{self._folder}/{number:0{self._width}d}.json"

    def _uri(self, number: int) -> str:
        return self._store.uri(self._name(number))

    def _number(self, key: str) -> int:
        """Return the number of a record's key, 0 for a foreign object."""
        stem = key.removeprefix(f"{self._folder}/").removesuffix(".json")
        return int(stem) if stem.isdecimal() and self._name(int(stem)) == key else 0


class Ledger:
    """Append-only list of promotions; its last entry is the champion."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Name the place; an empty ledger is one that has no objects yet."""
        self._series = Series(store, f"{prefix}/ledger" if prefix else "ledger", 8, Entry)

    @property
    def generation(self) -> int:
        """The number of the last entry, 0 when there is none."""
        return self._series.last()

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first."""
        return [self._read(number) for number in range(1, self.generation + 1)]

    def head(self) -> Entry | None:
        """Return the champion's entry, None when there is none; one listing and one read."""
        return self._read(last) if (last := self.generation) else None

    def previous(self) -> Entry | None:
        """Return the last entry of the champion to roll back to, None if there is none.

        Rollbacks lead back only: what was rolled back from, or passed over on the way, does
        not come into question until it is promoted again.
        """
        line: list[Entry] = []  # of succession, one entry per bundle, the champion last
        for entry in self.entries():
            if entry.action == "rollback":
                bundles = [each.bundle for each in line]
                known = entry.bundle in bundles
                line = line[: bundles.index(entry.bundle)] if known else line[:-1]
            line = [*(each for each in line if each.bundle != entry.bundle), entry]
        return line[-2] if len(line) > 1 else None

    def at(self, moment: datetime) -> Entry | None:
        """Return the entry that was last at a moment; the moment itself counts.

        The order of the entries outweighs their clocks: one that follows a later entry is
        later too, whatever time its writer's clock showed.
        """
        moment = _aware(moment)
        past = list(takewhile(lambda entry: _moment(entry.at) <= moment, self.entries()))
        return past[-1] if past else None

    def append(
        self,
        *,
        action: Action,
        bundle: str,
        key: str,
        by: str,
        reason: str,
        expected: int,
        version: str = "",
        at: datetime | None = None,
    ) -> Entry:
        """Make a bundle champion, if the ledger is still at generation ``expected``.

        Trying again with the same key returns the entry of the first try, also after
        others. ``StalePromotion`` if somebody else came first, ``ValueError`` if the key
        already stands for another act.
        """
        if expected < 0:
            raise ValueError(f"a generation is 0 or more, not {expected}")
        if expected and not self._series.has(expected):
            raise LedgerError(
                f"generation {expected} was expected, but the ledger ends at {self.generation}; "
                "was it moved, or restored from an older backup?"
            )
        entry = Entry(
            number=expected + 1,
            action=action,
            bundle=bundle,
            version=version,
            key=key,
            by=by,
            reason=reason,
            at=_aware(at).isoformat(),
        )
        if self._series.create(entry.number, entry):
            return entry
        for number in range(entry.number, self.generation + 1):
            earlier = self._read(number)
            if earlier.key == key:
                if (earlier.action, earlier.bundle) != (action, bundle):
                    raise ValueError(f"the key {key!r} already stands for entry {number}")
                return earlier
        champion = self.head() or entry
        raise StalePromotion(
            f"nothing was changed: this run expected generation {expected}, but the champion is "
            f"now entry {champion.number} = {_model(champion)}, {_PAST_TENSE[champion.action]} by "
            f"{champion.by} at {champion.at}; run again to compare with that champion"
        )

    def _read(self, number: int) -> Entry:
        entry = self._series.read(number)
        if entry.number != number:
            raise LedgerError(f"ledger entry {number} calls itself {entry.number}; was it copied?")
        return entry


def _model(entry: Entry) -> str:
    return f"version {entry.version}" if entry.version else f"bundle {entry.bundle[:12]}"


class Events:
    """Trigger events: each is handled by one owner at a time, and done once.

    A lease is a promise between clocks: make it longer than the work, and much longer than
    the clocks of the machines differ.
    """

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Name the place; nothing is written yet."""
        self._store, self._folder = store, f"{prefix}/events" if prefix else "events"
        self._flights = Series(store, f"{prefix}/flights" if prefix else "flights", 8, Flight)

    def claim(
        self,
        key: str,
        owner: str,
        lease_s: float,
        *,
        now: datetime | None = None,
        detail: str = "",
    ) -> Claim:
        """Ask for an event for ``lease_s`` seconds.

        It is given if it is new, if its owner failed or let its lease run out, or if the
        owner asks again, which within the lease changes nothing.
        """
        if lease_s <= 0:
            raise ValueError(f"a lease lasts more than 0 seconds, not {lease_s}")
        now = _aware(now)
        wanted = EventState(
            key=key,
            owner=owner,
            state="claimed",
            at=now.isoformat(),
            lease_until=(now + timedelta(seconds=lease_s)).isoformat(),
            detail=detail,
        )
        series = self._series(self._place(key))
        number = series.last()
        while True:  # each turn without an answer means that somebody else took a step
            outcome: Literal["claimed", "taken over"] = "claimed"
            if number:
                last = self._read(series, number, key)
                if last.state == "done":
                    return Claim("done", last)
                if last.is_held(now):
                    return Claim("claimed" if last.owner == owner else "held", last)
                if last.owner != owner or last.state == "failed":
                    outcome = "taken over"
            number += 1
            if series.create(number, wanted):
                return Claim(outcome, wanted)

    def depart(self, key: str, owner: str, *, now: datetime | None = None) -> EventState | None:
        """Act on a claim, unless somebody acts on another one: then return that event's state.

        Of any number of owners that hold different events, one at a time departs, and one does
        if none has. Trying again changes nothing.
        """
        now, claim = _aware(now), len(self.states(key))
        while True:  # each turn without an answer means that somebody else departed
            number = self._flights.last()
            if number:
                last = self._flights.read(number)
                if (last.event, last.owner, last.claim) == (key, owner, claim):
                    return None
                states = self.states(last.event)
                if states and states[-1].is_held(now) and states[-1].owner != owner:
                    return states[-1]
            mine = Flight(event=key, owner=owner, claim=claim, at=now.isoformat())
            if self._flights.create(number + 1, mine):
                return None

    def close(
        self,
        key: str,
        owner: str,
        state: Closing,
        detail: str = "",
        *,
        now: datetime | None = None,
    ) -> EventState:
        """Record how the owner ended; ``LedgerError`` if it does not hold the event (any more).

        Closing again in the same way returns the first record.
        """
        at = _aware(now).isoformat()
        wanted = EventState(key=key, owner=owner, state=state, at=at, lease_until=at, detail=detail)
        series = self._series(self._place(key))
        number = series.last()
        while number:
            last = self._read(series, number, key)
            if (last.owner, last.state) == (owner, state):
                return last
            if (last.owner, last.state) != (owner, "claimed"):
                raise LedgerError(
                    f"{owner} cannot mark the event {key!r} as {state}: it is {last.state} "
                    f"by {last.owner} since {last.at}"
                )
            number += 1
            if series.create(number, wanted):
                return wanted
        raise LedgerError(f"{owner} cannot mark the event {key!r} as {state}: nobody claimed it")

    def states(self, key: str) -> list[EventState]:
        """Return all that happened to an event, oldest first; empty if it is unknown."""
        series = self._series(self._place(key))
        return [self._read(series, number, key) for number in range(1, series.last() + 1)]

    def all(self) -> dict[str, EventState]:
        """Return the last state of every event by its key; one listing, one read for each."""
        newest: dict[str, EventState] = {}
        listing = self._store.list(f"{self._folder}/")
        for folder, keys in groupby(listing, key=lambda key: key.rpartition("/")[0]):
            series = self._series(folder)
            if number := series.last(keys):
                state = series.read(number)
                newest[state.key] = state
        return newest

    def _series(self, folder: str) -> Series[EventState]:
        return Series(self._store, folder, 4, EventState)

    def _place(self, key: str) -> str:
        """Return the folder of an event: a readable part, and a digest that tells keys apart."""
        slug = re.sub(r"[^a-z0-9]+", "-", key.lower()).strip("-")[:40]
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return f"{self._folder}/{slug or 'event'}-{digest}"

    def _read(self, series: Series[EventState], number: int, key: str) -> EventState:
        state = series.read(number)
        if state.key != key:
            raise LedgerError(f"the folder of the event {key!r} holds one of {state.key!r}")
        return state
