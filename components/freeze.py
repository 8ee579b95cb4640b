"""Whether a project is frozen: nothing is trained for it and nobody is promoted.

A freeze and a thaw are records of one append-only series, so that who did it and why
stays known. ::

    {prefix}/freezes/00000001.json      freeze
    {prefix}/freezes/00000002.json      thaw; the last one counts
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from components.errors import Frozen
from components.ledger import Moment, Name, Series
from components.settings import Section
from components.store import Store


class Freeze(Section):
    """One freeze or thaw."""

    schema_version: int = 1
    number: int = Field(ge=1)
    frozen: bool
    by: Name
    reason: str
    at: Moment

    @property
    def words(self) -> str:
        """Who did it, when and why."""
        act = "frozen" if self.frozen else "thawed"
        return f"{act} by {self.by} at {self.at}: {self.reason}"


class Freezes:
    """The freezes and thaws of one ledger."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Name the place; nothing is written yet."""
        self._series = Series(store, f"{prefix}/freezes" if prefix else "freezes", 8, Freeze)

    def state(self) -> Freeze | None:
        """Return the freeze that holds now, None while work is allowed."""
        last = self._last()
        return last if last is not None and last.frozen else None

    def all(self) -> list[Freeze]:
        """Return all freezes and thaws, oldest first."""
        return [self._series.read(number) for number in range(1, self._series.last() + 1)]

    def set(self, *, frozen: bool, by: str, reason: str, at: datetime) -> Freeze:
        """Freeze or thaw; return the record that holds, the earlier one if nothing changes."""
        while True:  # each turn without an answer means that somebody else was first
            last = self._last()
            if last is not None and last.frozen == frozen:
                return last
            number = last.number + 1 if last else 1
            said = Freeze(
                number=number,
                frozen=frozen,
                by=by,
                reason=reason,
                at=at.isoformat(timespec="seconds"),
            )
            if self._series.create(number, said):
                return said

    def refuse(self, act: str) -> None:
        """Raise ``Frozen`` while a freeze holds.

        Args:
            act: what was to be done, for the message.
        """
        held = self.state()
        if held is not None:
            raise Frozen(f"{act} was stopped: {held.words}. To allow it again: tokiwa thaw PROJECT")

    def _last(self) -> Freeze | None:
        return self._series.read(number) if (number := self._series.last()) else None
