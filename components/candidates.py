"""Challengers that reached a verdict, and what people decided about them.

Each is kept with what was found about it, so that a person can promote it later: one that
waits for approval, or one that the gate kept back. ::

    {prefix}/candidates/{version}/candidate.json     what the gate said
    {prefix}/candidates/{version}/predictions/…      the evaluated rows and answers
    {prefix}/candidates/{version}/rejection.json     who turned it down, and why
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from components.erasures import forgotten_since
from components.errors import BadInput
from components.settings import Section
from components.store import ObjectMissing, Store


class Candidate(Section):
    """A challenger with its verdict."""

    schema_version: int = 1
    version: str
    bundle: str
    verdict: str
    """Of the gate: ``promote``, ``keep`` or ``inconclusive``."""
    reason: str
    run: str
    generation: int
    """The ledger's length when it was compared with the champion of then."""
    at: str
    """ISO 8601 with an offset."""


class Rejection(Section):
    """A person's no."""

    schema_version: int = 1
    by: str
    reason: str
    at: str


class Candidates:
    """The candidates of one ledger."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Name the place; nothing is written yet."""
        self._store, self._ledger = store, prefix
        self._prefix = f"{prefix}/candidates"

    def keep(self, candidate: Candidate, predictions: Path) -> None:
        """Keep a challenger and the folder of its evaluated rows; again does no harm."""
        place = f"{self._prefix}/{candidate.version}"
        self._store.upload_directory(f"{place}/predictions", predictions)
        self._store.put(f"{place}/candidate.json", candidate.to_json().encode())

    def find(self, version: str) -> Candidate:
        """Return the candidate of a version.

        Raises:
            BadInput: there is none; the message says which there are.
        """
        try:
            return self._read(version)
        except ObjectMissing as error:
            known = sorted((each.version for each in self.all()), key=int)
            there = f"there are {', '.join(known)}" if known else "no run has left one yet"
            raise BadInput(f"there is no candidate with version {version}; {there}") from error

    def all(self) -> list[Candidate]:
        """Return all candidates, oldest first."""
        suffix = "/candidate.json"
        keys = [key for key in self._store.list(f"{self._prefix}/") if key.endswith(suffix)]
        versions = [key.removeprefix(f"{self._prefix}/").removesuffix(suffix) for key in keys]
        return sorted(map(self._read, versions), key=lambda each: each.at)

    def predictions(self, version: str, folder: Path) -> Path:
        """Fetch the evaluated rows and answers of a version into a folder; return it."""
        self._store.download_directory(f"{self._prefix}/{version}/predictions", folder)
        return folder

    def reject(self, version: str, by: str, reason: str) -> Rejection:
        """Turn a candidate down, once; return who did it first, and why."""
        said = Rejection(by=by, reason=reason, at=datetime.now(UTC).isoformat())
        if self._store.create_if_absent(self._rejection(version), said.to_json().encode()):
            return said
        return self.rejection(version) or said

    def rejection(self, version: str) -> Rejection | None:
        """Return the rejection of a version, None if nobody turned it down."""
        try:
            return Rejection.from_json(self._store.get(self._rejection(version)).decode())
        except ObjectMissing:
            return None

    def forgotten(self, candidate: Candidate) -> str:
        """Return that rows it may have learnt from were forgotten since; empty for none."""
        return forgotten_since(self._store, self._ledger, candidate.run)

    def _read(self, version: str) -> Candidate:
        content = self._store.get(f"{self._prefix}/{version}/candidate.json")
        return Candidate.from_json(content.decode())

    def _rejection(self, version: str) -> str:
        return f"{self._prefix}/{version}/rejection.json"
