"""Put together what the steps of a run recorded, and close the event it worked on."""

from __future__ import annotations

from typing import Any, Literal

from components.errors import LedgerError
from components.ledger import Events
from components.page import page, paragraph, section, table, verdict
from components.settings import Section

Result = Literal[
    "promoted",
    "rolling out",
    "rolled back",
    "waiting",
    "kept",
    "inconclusive",
    "quiet",
    "nothing to train on",
    "failed",
]
_OF_ROLLOUT: dict[str, Result] = {
    "rolled back": "rolled back",
    "stopped": "rolled back",
    "reported": "waiting",
}


class NotifyConfig(Section):
    """Section ``notify``."""

    title: str = ""
    """Title of the page; the project's name by default."""


class Outcome(Section):
    """How a run ended.

    ``result`` is ``promoted``, ``waiting`` (for a person's approval), ``kept``,
    ``inconclusive``, ``quiet`` (no retrain was needed), ``nothing to train on``, or ``failed``.
    """

    schema_version: int = 1
    project: str
    run: str
    result: Result
    reason: str
    window: str
    cause: str
    """Why it trained: ``manual``, ``schedule``, ``drift``, ``performance``; empty if it did not."""
    champion_version: str
    """In production when the run ended, empty for none."""
    alerts: list[str] = []
    """What a person should be told of, because it is new or has become graver."""
    records: dict[str, dict[str, Any]]

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return f"{self.result}: {self.reason}"


def conclude(
    *,
    project: str,
    run: str,
    cause: str,
    state: str,
    error: str,
    records: dict[str, dict[str, Any]],
) -> Outcome:
    """Return the outcome of a run.

    Args:
        project: the project's name.
        run: id of the run.
        cause: why the run was started.
        state: kfp's final state of the graph, such as ``SUCCEEDED``.
        error: kfp's error message, if any.
        records: what the uncached steps recorded.
    """
    resolved = records.get("resolve", {})
    trigger = records.get("trigger")
    registered, deployed = records.get("register"), records.get("deploy")
    version = str(resolved.get("champion_version", ""))
    trained_for = trigger["cause"] if trigger else cause
    result: Result
    if deployed and deployed.get("waits"):
        result = "waiting"
        reason = f"version {deployed['version']} passed the gate and waits for approval: "
        reason += f"tokiwa promote {project} {deployed['version']} --reason …"
        if deployed.get("frozen"):
            reason += f"; first thaw the project, {deployed['frozen']}"
    elif deployed and deployed.get("rollout") and not deployed["number"]:
        result = _OF_ROLLOUT.get(deployed["rollout"], "rolling out")
        reason = f"version {deployed['version']}: {deployed['rollout']}, {deployed['why']}"
    elif deployed:
        result, version = "promoted", deployed["version"]
        reason = registered["reason"] if registered else ""
    elif state != "SUCCEEDED":
        # kfp names the group of steps that it made of the graph, and not the step.
        unnamed = not error or error.startswith("Task exit-handler")
        result, reason = "failed", "a step failed; its log says why" if unnamed else error
    elif "decline" in records:
        result, reason = "nothing to train on", records["decline"]["reason"]
    elif registered:
        result = "kept" if registered["verdict"] == "keep" else "inconclusive"
        reason = registered["reason"]
    else:
        result, reason, trained_for = "quiet", trigger["reason"] if trigger else "", ""
    return Outcome(
        project=project,
        run=run,
        result=result,
        reason=reason,
        window=str(resolved.get("window", "")),
        cause=trained_for,
        champion_version=version,
        alerts=trigger.get("news", []) if trigger else [],
        records=records,
    )


_UNFINISHED = ("failed", "nothing to train on")
"""After these the event may be taken again: rows or labels may still come."""


def close_event(outcome: Outcome, events: Events) -> None:
    """Mark the event that this run claimed as done, or as failed for another to take."""
    event = outcome.records.get("trigger", {}).get("event")
    if event:
        try:
            events.close(
                event,
                outcome.run,
                "failed" if outcome.result in _UNFINISHED else "done",
                outcome.headline,
            )
        except LedgerError:
            # The lease ran out and another run took over; the event is in its hands.
            return


def to_html(outcome: Outcome, config: NotifyConfig) -> str:
    """Return the outcome as a page."""
    mood = {"promoted": "good", "quiet": "good", "failed": "bad"}.get(outcome.result, "open")
    facts = [
        ("window", outcome.window),
        ("trained because of", outcome.cause or "–"),
        ("version in production", outcome.champion_version or "none"),
        ("run", outcome.run),
    ]
    parts = [verdict(outcome.headline, mood), table(("", ""), facts)]
    if outcome.alerts:
        parts.append(section("Alerts", *map(paragraph, outcome.alerts)))
    trigger = outcome.records.get("trigger")
    if trigger:
        rules = [
            [rule[column] for column in ("rule", "verdict", "measured", "threshold")]
            for rule in trigger["rules"]
        ]
        said = [table(("rule", "verdict", "measured", "asked for"), rules)] if rules else []
        parts.append(section("Trigger", paragraph(trigger["reason"]), *said))
    registered = outcome.records.get("register")
    if registered:
        parts.append(section("Gate", *map(paragraph, registered["checks"])))
    return page(config.title or f"{outcome.project}: {outcome.window}", *parts)
