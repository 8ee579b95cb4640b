"""What was decided about retraining, window by window: refusals too, with all reasons.

A decision is written once and never changed. ::

    {prefix}/decisions/{window}/{time, UTC}-{run}.json      one look at a window

Windows are in the order of their names, which are days; within one, the clock decides.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Literal

from components.errors import LedgerError
from components.ledger import Moment
from components.settings import Section
from components.store import Store

READ_WINDOWS = 60
"""How far back a governor looks: more windows than any of its rules asks about."""
READ_PER_WINDOW = 50
"""Decisions of one window that are read: of hourly looks at a week, the last two days."""

Action = Literal["retrain", "label", "wait"]
Verdict = Literal["passes", "refuses", "overridden", "not asked"]


class Rule(Section):
    """What one rule said.

    Attributes:
        rule: its name.
        measured: what was found, in words.
        threshold: what the policy asks for, in words.
        verdict: ``overridden`` is a refusal that a person's request outweighs.
    """

    rule: str
    measured: str
    threshold: str
    verdict: Verdict


class Decision(Section):
    """Whether to retrain after a look at one window."""

    schema_version: int = 1
    window: str
    champion: str
    run: str
    at: Moment
    """The clock that the decision went by."""
    action: Action
    """``label``: labels of the window are wanted before anything is trained."""
    retrain: bool
    cause: str
    """The first trigger that fired; empty if none did."""
    event: str
    """Key of the claimed event, empty without a retrain."""
    reason: str
    """The one sentence that decided."""
    triggers: dict[str, str]
    """Of each trigger that was asked, why it fired; empty if it did not."""
    rules: list[Rule]
    """Of the governor; none if no trigger fired."""
    labelled_rows: int
    """Labelled rows that the champion was not trained on."""
    finding: str
    """What drift found, in one sentence."""
    moved: bool | None = None
    """Whether inputs moved; None from a version that did not keep it."""
    hurts: bool | None = None
    """Whether the champion got worse; None if nothing could tell."""
    performance: float | None = None
    """The champion's, such as accuracy, measured or estimated; None without either."""
    alerts: dict[str, int] = {}
    """What a person should know, each with its level, 1 to 3; see ``components.alerts``."""
    news: list[str] = []
    """Alerts that begin or rise with this look, in words; a mere repeat is none."""

    @property
    def fired(self) -> list[str]:
        """The triggers that fired."""
        return [cause for cause, reason in self.triggers.items() if reason]

    @property
    def headline(self) -> str:
        """The one thing to see."""
        word = {"retrain": "retrain", "label": "no retrain, label first", "wait": "no retrain"}
        return f"{word[self.action]}: {self.reason}"


class Decisions:
    """The decisions of one ledger."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Name the place; nothing is written yet."""
        self._store, self._folder = store, f"{prefix}/decisions" if prefix else "decisions"

    def keep(self, decision: Decision) -> None:
        """Keep a decision; a second one of the same run and clock changes nothing."""
        at = datetime.fromisoformat(decision.at).astimezone(UTC)
        key = f"{self._folder}/{decision.window}/{at:%Y%m%dt%H%M%S}-{decision.run}.json"
        self._store.create_if_absent(key, decision.to_json().encode())

    def of(self, window: str, run: str) -> Decision | None:
        """Return what a run decided about a window, None if it did not yet."""
        for key in self._store.list(f"{self._folder}/{window}/"):
            if _run_of(key) == run:
                return self._read(key)
        return None

    def recent(self, window: str = "", always: Collection[str] = ()) -> list[Decision]:
        """Return the decisions of the last windows, in the order of windows and time.

        Args:
            window: of this window only.
            always: runs whose decisions are returned however long ago they were.
        """
        listing = self._store.list(f"{self._folder}/{window}/" if window else f"{self._folder}/")
        by_window: dict[str, list[str]] = {}
        for key in listing:
            if key.endswith(".json"):
                by_window.setdefault(key.rsplit("/", 2)[1], []).append(key)
        first = sorted(by_window)[-READ_WINDOWS:][:1]
        out: list[Decision] = []
        for name in sorted(by_window):
            keys = sorted(by_window[name])
            new = len(keys) - READ_PER_WINDOW if [name] >= first else len(keys)
            out += [
                self._read(key)
                for number, key in enumerate(keys)
                if number >= new or _run_of(key) in always
            ]
        return out

    def _read(self, key: str) -> Decision:
        content = self._store.get(key)
        try:
            return Decision.from_json(content.decode())
        except ValueError as error:
            place = self._store.uri(key)
            raise LedgerError(f"the decision {place} cannot be read: {error}") from error


def _run_of(key: str) -> str:
    return key.rsplit("/", 1)[1].partition("-")[2].removesuffix(".json")
