"""What the uncached steps of a run have to say, kept for ``notify`` and for people.

A cached step says nothing new; only ``resolve``, ``trigger``, ``register``,
``deploy`` and ``decline`` leave a record, and it holds what they were given.
"""

from __future__ import annotations

import json
from typing import Any

from components.store import ObjectMissing, Store


class Records:
    """The records of one run, an object each, below a project's prefix."""

    def __init__(self, store: Store, prefix: str, run: str) -> None:
        """Keep records at ``{prefix}/runs/{run}/{step}.json``."""
        self._store = store
        self._at = f"{prefix}/runs/{run}"

    def write(self, step: str, record: dict[str, Any]) -> None:
        """Keep the record of a step; a step that is retried writes it again."""
        self._store.put(f"{self._at}/{step}.json", json.dumps(record, sort_keys=True).encode())

    def of(self, step: str) -> dict[str, Any]:
        """Return the record of a step, empty if it left none."""
        try:
            record: dict[str, Any] = json.loads(self._store.get(f"{self._at}/{step}.json"))
        except ObjectMissing:
            return {}
        return record

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the records of all steps by step."""
        keys = [key for key in self._store.list(f"{self._at}/") if key.endswith(".json")]
        return {
            key.rsplit("/", 1)[1].removesuffix(".json"): json.loads(self._store.get(key))
            for key in keys
        }
