"""Decide on a retrain from what drift found, and claim the event so that it happens once.

A claim names its owner and expires: a retrain that died leaves its event to be taken
over, so that none is doubled and none is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from components.ledger import Events
from components.settings import Section

Cause = Literal["drift", "performance"]


class TriggerConfig(Section):
    """Section ``trigger``."""

    on: tuple[Cause, ...] = ("drift", "performance")
    """What may start a retrain; empty for none but the schedule."""
    lease_hours: float = Field(default=24.0, gt=0)
    """After so long without an end, a claimed retrain counts as dead."""


class Finding(Section):
    """What the drift step found, as far as a trigger cares."""

    moved: bool
    moved_features: int
    error_alarm: bool
    error_rate: float | None
    error_rate_before: float

    @classmethod
    def read(cls, report: Path) -> Finding:
        """Read what matters from the drift step's report."""
        found = json.loads(report.read_text())
        return cls(
            moved=found["moved"],
            moved_features=found["moved_features"],
            error_alarm=found["error_alarm_row"] is not None,
            error_rate=found["error_rate"],
            error_rate_before=found["error_rate_before"],
        )


class TriggerReport(Section):
    """The decision and its reason."""

    schema_version: int = 1
    retrain: bool
    cause: str
    """``drift``, ``performance``, or empty."""
    event: str
    """Key of the claimed event, empty without a retrain."""
    reason: str

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return f"{'retrain' if self.retrain else 'no retrain'}: {self.reason}"


def on_drift(finding: Finding) -> str | None:
    """Fire when inputs moved; return the reason."""
    if not finding.moved:
        return None
    return f"{finding.moved_features} input features moved; labels of the window are bought"


def on_performance(finding: Finding) -> str | None:
    """Fire when the errors rose; return the reason."""
    if not finding.error_alarm or finding.error_rate is None:
        return None
    return f"error rate rose from {finding.error_rate_before:.3f} to {finding.error_rate:.3f}"


TRIGGERS: dict[Cause, Callable[[Finding], str | None]] = {
    "drift": on_drift,
    "performance": on_performance,
}
"""Cause to function. To add one: a function here and a line."""


def decide(
    finding: Finding,
    *,
    champion: str,
    window: str,
    run: str,
    events: Events,
    config: TriggerConfig,
) -> TriggerReport:
    """Return whether to retrain; a retrain has claimed its event.

    Args:
        finding: what drift found.
        champion: digest of the bundle in production.
        window: name of the window that was looked at.
        run: id of this run, the owner of a claim.
        events: where claims are kept.
        config: the section ``trigger``.
    """
    reasons = {cause: TRIGGERS[cause](finding) for cause in config.on}
    fired = {cause: reason for cause, reason in reasons.items() if reason is not None}
    if not fired:
        return TriggerReport(retrain=False, cause="", event="", reason="nothing moved")
    cause, reason = next(iter(fired)), "; ".join(fired.values())
    # Whatever the causes: one champion is retrained on one window once.
    event = f"{window}-{champion[:16]}"
    claim = events.claim(event, run, lease_s=config.lease_hours * 3600, detail=reason)
    if not claim.is_mine:
        fate = "handled" if claim.outcome == "done" else "being handled"
        reason = f"{reason}; already {fate} by run {claim.state.owner}"
        return TriggerReport(retrain=False, cause=cause, event="", reason=reason)
    return TriggerReport(retrain=True, cause=cause, event=event, reason=reason)
