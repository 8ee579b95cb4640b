"""What speaks for a retrain. A trigger looks at evidence alone, and says why it fires."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.settings import Section
from components.trigger.config import Cause, TriggerConfig


class Finding(Section):
    """What the drift step found, as far as a trigger cares."""

    summary: str = ""
    """In one sentence."""
    enough: bool = True
    """Whether there were rows enough to say anything about the inputs."""
    moved: bool
    moved_features: int = 0
    hurts: bool | None = None
    """Whether the champion is worse than it was, beyond chance; None if nothing can tell."""
    performance_before: float | None = None
    performance: float | None = None
    """Such as accuracy; None without labels and without an estimate."""
    drop: float | None = None
    """Share of the performance before that was lost beyond chance; None if that is not known."""
    measured: bool = True
    """By labels; else estimated without them."""
    labelled_rows: int = 0
    """Labelled rows that the champion was not trained on."""
    behind: str = ""
    """Which kinds of rows fell behind the others, in words; empty for none."""
    rose: str = ""
    """Where a detector raised an alarm of errors that still counts, in words; empty for none."""
    alerts: dict[str, int] = {}
    """What a person should know, each with its level."""

    @classmethod
    def read(cls, report: Path) -> Finding:
        """Read what matters from the drift step's report."""
        found = json.loads(report.read_text())
        seen = [each for each in (found["measured"], found["estimated"]) if each]
        # What the verdict rests on is what counts; of two, the one that rests on labels. Harm
        # that has passed counts no more.
        seen.sort(key=lambda each: each["hurts"] != found["hurts"])
        worst = seen[0] if seen else None
        return cls(
            summary=found["headline"],
            enough=found["enough"],
            moved=found["moved"],
            moved_features=found["moved_features"],
            hurts=found["hurts"],
            performance_before=worst["before"] if worst else None,
            performance=worst["now"] if worst else None,
            drop=worst["drop"] if worst and worst["hurts"] else None,
            measured=worst is None or worst["source"] == "measured",
            labelled_rows=found["labelled_rows"],
            behind=found.get("behind", ""),
            rose=found.get("rose", ""),
            alerts=found.get("alerts", {}),
        )


@dataclass(frozen=True)
class Evidence:
    """What triggers look at.

    Attributes:
        finding: of the drift step.
        new_labels: labelled rows that came since the last retrain.
        days: since the last retrain, or since the end of what the champion learnt, by the time
            of the rows; None if neither is known.
        request: of a person for a retrain, in words; empty for none.
    """

    finding: Finding
    new_labels: int = 0
    days: float | None = None
    request: str = ""


def on_manual(evidence: Evidence, config: TriggerConfig) -> str | None:
    """Fire when a person asks for it."""
    return f"asked for: {evidence.request}" if evidence.request else None


def on_performance(evidence: Evidence, config: TriggerConfig) -> str | None:
    """Fire when the champion got worse by more than chance, for some kind or all, or too bad."""
    found = evidence.finding
    return "; ".join(filter(None, (_fell(found, config), found.rose, found.behind))) or None


def _fell(found: Finding, config: TriggerConfig) -> str:
    """Return by how much performance fell, in words; empty if that is too little."""
    if found.performance is None:
        return ""
    how = "measured" if found.measured else "estimated"
    if config.floor is not None and found.performance < config.floor:
        return f"{how} performance {found.performance:.3f} is below {config.floor:g}"
    if found.drop is None or not found.hurts or found.drop < config.relative_drop:
        return ""
    return (
        f"{how} performance fell by {found.drop:.1%}, "
        f"from {found.performance_before:.3f} to {found.performance:.3f}"
    )


def on_drift(evidence: Evidence, config: TriggerConfig) -> str | None:
    """Fire when inputs moved."""
    found = evidence.finding
    return f"{found.moved_features} input features moved" if found.moved else None


def on_volume(evidence: Evidence, config: TriggerConfig) -> str | None:
    """Fire when enough labels have come."""
    if evidence.new_labels < config.volume_rows:
        return None
    return f"{evidence.new_labels:,} labelled rows are new"


def on_schedule(evidence: Evidence, config: TriggerConfig) -> str | None:
    """Fire when what was learnt or tried last is long ago."""
    if evidence.days is None or evidence.days < config.schedule_days:
        return None
    return f"the champion has learnt nothing of the last {evidence.days:.0f} days"


TRIGGERS: dict[Cause, Callable[[Evidence, TriggerConfig], str | None]] = {
    "manual": on_manual,
    "performance": on_performance,
    "drift": on_drift,
    "volume": on_volume,
    "schedule": on_schedule,
}
"""Cause to function. To add one: a function here and a line."""
