"""What answers cost: device-seconds by version, as the servers of a ledger measured them.

::

    {prefix}/costs/20261122T013000Z-1a2b3c4d.json    one process of a server, added up so far
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, ValidationError

from components.settings import Section
from components.store import ObjectMissing, Store


class Spent(Section):
    """What the answers of one version cost."""

    predictions: int = Field(default=0, ge=0)
    """Texts or images that were answered."""
    device_seconds: float = Field(default=0.0, ge=0)
    """Seconds that devices worked on them."""
    money: float | None = None
    """At the price that the project named; None where it named none."""

    def __add__(self, other: Spent) -> Spent:
        """Return both together; money is known as far as it is known of either."""
        known = [each.money for each in (self, other) if each.money is not None]
        return Spent(
            predictions=self.predictions + other.predictions,
            device_seconds=self.device_seconds + other.device_seconds,
            money=sum(known) if known else None,
        )

    @property
    def device_seconds_per_1000(self) -> float:
        """Device-seconds of 1,000 predictions; of none, 0."""
        return self.device_seconds / self.predictions * 1000 if self.predictions else 0.0

    @property
    def money_per_1000(self) -> float | None:
        """Money of 1,000 predictions, None where no price is known."""
        if self.money is None:
            return None
        return self.money / self.predictions * 1000 if self.predictions else 0.0


class Bill(Section):
    """What one process of a server has spent so far, by version."""

    schema_version: int = 1
    versions: dict[str, Spent]


class ServingCosts:
    """The costs of serving one ledger's champions."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Name the place; nothing is written yet."""
        self._store = store
        self._folder = f"{prefix}/costs/" if prefix else "costs/"

    def keep(self, process: str, spent: Mapping[str, Spent]) -> None:
        """Keep what one process has spent so far, in place of what it kept before."""
        bill = Bill(versions=dict(spent))
        self._store.put(f"{self._folder}{process}.json", bill.to_json().encode())

    def by_version(self) -> dict[str, Spent]:
        """Return what each version has cost on all servers; what cannot be read counts not."""
        total: dict[str, Spent] = {}
        for key in self._store.list(self._folder):
            try:
                bill = Bill.from_json(self._store.get(key).decode())
            except (ObjectMissing, ValidationError, UnicodeDecodeError):
                continue
            for version, spent in bill.versions.items():
                total[version] = total.get(version, Spent()) + spent
        return total
