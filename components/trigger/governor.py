"""What a trigger that fired has to get past before anything is trained.

A rule is a pure function of the situation and the policy: of what was decided and spent
before, of what drift found, and of the clock. Every rule is always asked, so that a refusal
names all its reasons; one that refuses is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from components.decisions import Decision, Rule, Verdict
from components.ledger import EventState
from components.trigger.config import Cause, GovernorConfig, is_quiet
from components.trigger.triggers import Finding

WEEK = timedelta(days=7)
DOUBTS = ("drift", "performance")
"""Causes that may pass by themselves; a person, labels and a calendar do not."""
BEYOND_A_PERSON = ("freeze", "once", "single flight")
"""Refusals that a person's request does not outweigh."""
MAX_COOLDOWN = timedelta(days=3650)
STOOD_BACK = "another retrain was under way"
"""How a claim ends that made way for another; it was no attempt."""


@dataclass(frozen=True)
class Spent:
    """What one retrain cost."""

    at: datetime
    device_hours: float | None
    """None of one that left no account: it runs, or died."""


@dataclass(frozen=True)
class Situation:
    """All that a governor looks at.

    Attributes:
        run: id of the run that asks.
        window: name of the window that was looked at; names are in the order of time.
        champion: digest of the bundle in production.
        now: the clock, in the project's time zone.
        fired: the triggers that fired, each with its reason.
        finding: of the drift step.
        past: earlier decisions, in the order of windows and time, without those whose
            retrain died.
        spent: costs of all retrains, whoever started them.
        in_flight: who holds another event of this project, and so retrains now.
        event: what became of this very event so far, oldest first.
        frozen: who stopped all retrains, in words; empty if nobody did.
    """

    run: str
    window: str
    champion: str
    now: datetime
    fired: Mapping[Cause, str]
    finding: Finding
    past: Sequence[Decision] = ()
    spent: Sequence[Spent] = ()
    in_flight: Sequence[str] = ()
    event: Sequence[EventState] = ()
    frozen: str = ""

    @property
    def retrains(self) -> list[Decision]:
        """The decisions that started a retrain."""
        return [each for each in self.past if each.retrain]


def govern(situation: Situation, policy: GovernorConfig) -> list[Rule]:
    """Return what every rule says, in the order of ``RULES``.

    A person's request turns a refusal into ``overridden``, but for those rules that keep
    two retrains from colliding, and a freeze.
    """
    by_a_person = "manual" in situation.fired
    return [as_rule(name, rule(situation, policy), by_a_person) for name, rule in RULES.items()]


def refusals(rules: Sequence[Rule]) -> list[Rule]:
    """Return the rules that refuse."""
    return [rule for rule in rules if rule.verdict == "refuses"]


Said = tuple[bool | None, str, str]
"""Whether it passes (None: it was not asked), what was measured, what the policy asks for."""


def as_rule(name: str, said: Said, by_a_person: bool) -> Rule:
    """Return what a rule said with its verdict, see ``govern``."""
    passes, measured, threshold = said
    verdict: Verdict = "passes" if passes else "refuses"
    if passes is None:
        verdict = "not asked"
    elif not passes and by_a_person and name not in BEYOND_A_PERSON:
        verdict = "overridden"
    return Rule(rule=name, measured=measured, threshold=threshold, verdict=verdict)


def freeze(situation: Situation, policy: GovernorConfig) -> Said:
    """Refuse while the project is frozen."""
    return not situation.frozen, situation.frozen or "not frozen", "not frozen"


def once(situation: Situation, policy: GovernorConfig) -> Said:
    """Refuse an event that another run handles or has handled, or that fails each time."""
    threshold = f"each event once, in at most {policy.max_attempts} attempts"
    attempts = sum(
        (each.state == "claimed") - (each.detail == STOOD_BACK) for each in situation.event
    )
    if not attempts:
        return True, "nobody has handled it", threshold
    last = situation.event[-1]
    if last.state == "done":
        return False, f"already handled by run {last.owner}", threshold
    if last.state == "claimed" and last.owner == situation.run:
        return True, "it is this run's own", threshold
    if last.is_held(situation.now):
        return False, f"already being handled by run {last.owner}", threshold
    measured = f"run {last.owner} left it, after {attempts} attempt{'s' * (attempts > 1)} in all"
    return attempts < policy.max_attempts, measured, threshold


def single_flight(situation: Situation, policy: GovernorConfig) -> Said:
    """Refuse while another event is being handled."""
    running = ", ".join(situation.in_flight)
    return not running, f"run {running} retrains" if running else "none runs", "one at a time"


def harm(situation: Situation, policy: GovernorConfig) -> Said:
    """Refuse what only moved, as the policy says: known not to hurt, or not known to."""
    found = situation.finding
    threshold = f"moved without harm: {policy.moved_unhurt}"
    if set(situation.fired) != {"drift"}:
        return None, "more than the inputs speaks for a retrain", threshold
    if found.hurts:
        return True, "inputs moved, and performance is hurt", threshold
    instead, measured = policy.moved_unhurt, "inputs moved, but performance is not hurt"
    if found.hurts is None:
        instead, measured = (
            policy.moved_unknown,
            "inputs moved, and whether performance is hurt cannot be told",
        )
        threshold = f"moved, harm unknown: {instead}"
    if found.performance is not None and found.performance_before is not None:
        how = "measured" if found.measured else "estimated"
        measured += f" ({how} {found.performance:.3f}, was {found.performance_before:.3f})"
    return instead == "retrain", measured, threshold


def persistence(situation: Situation, policy: GovernorConfig) -> Said:
    """Refuse what may pass by itself, until it fired in k of the last n windows.

    Only what was said of the same champion counts, the last word on each window, and no
    window after this one: a late one is judged by what came before it.
    """
    k, n = policy.persistence
    threshold = f"{k} of the last {n} windows"
    if not set(situation.fired) <= set(DOUBTS):
        return None, "something else than drift or performance fired", threshold
    last = {
        each.window: bool(set(each.fired) & set(DOUBTS))
        for each in situation.past
        if each.champion == situation.champion and each.window <= situation.window
    }
    last[situation.window] = True
    hits = sum(last[name] for name in sorted(last)[-n:])
    return hits >= k, f"fired in {hits} of {min(n, len(last))}", threshold


def labels(situation: Situation, policy: GovernorConfig) -> Said:
    """Refuse while there are too few new labels to learn from."""
    least = policy.min_labelled_rows
    if not least:
        return None, "a retrain buys the labels of its window", "no minimum"
    found = situation.finding.labelled_rows
    return found >= least, f"{found:,} labelled rows are new", f"at least {least:,}"


def cooldown(situation: Situation, policy: GovernorConfig) -> Said:
    """Refuse too soon after the last retrain; the longer, the more were in vain.

    A retrain was in vain if its champion is still the one that it was to replace. A clock
    that stands before the last retrain counts as no time at all.
    """
    if not situation.retrains:
        return True, "no retrain yet", f"{policy.cooldown_hours:g} hours"
    last = max(datetime.fromisoformat(each.at) for each in situation.retrains)
    vain = sum(each.champion == situation.champion for each in situation.retrains)
    hours = policy.cooldown_hours * policy.backoff ** min(vain, 60)
    needed = min(timedelta(hours=min(hours, 1e5)), MAX_COOLDOWN)
    passed = max(situation.now - last, timedelta())
    measured = f"{_hours(passed):.1f} hours since the last retrain"
    if situation.now < last:
        measured += f", and the clock stands {_hours(last - situation.now):.1f} hours before it"
    threshold = f"{_hours(needed):g} hours"
    if vain:
        threshold += f", after {vain} retrain{'s' * (vain > 1)} of this champion in vain"
    return passed >= needed, measured, threshold


def budget(situation: Situation, policy: GovernorConfig) -> Said:
    """Refuse what would cost more device-hours than are left of this week's.

    A retrain that left no account counts as much as the last that did, and so does the one
    that is asked for. What lies in the clock's future counts as spent.
    """
    limit = policy.device_hours_per_week
    if limit is None:
        return None, "costs are not limited", "no limit"
    known = [each for each in situation.spent if each.device_hours is not None]
    typical = max(known, key=lambda each: each.at).device_hours if known else 0.0
    assert typical is not None
    spent = sum(
        typical if each.device_hours is None else each.device_hours
        for each in situation.spent
        if each.at > situation.now - WEEK
    )
    measured = f"{spent:.2f} device-hours in seven days, {typical:.2f} for one more"
    return spent + typical <= limit, measured, f"at most {limit:g}"


def quiet_hours(situation: Situation, policy: GovernorConfig) -> Said:
    """Refuse in quiet hours, by the clock on the wall of the project's time zone."""
    if not policy.quiet_hours:
        return None, "there are none", "no quiet hours"
    held = [hours for hours in policy.quiet_hours if is_quiet(hours, situation.now)]
    measured = f"{situation.now:%a %H:%M} ({situation.now:%Z})"
    return not held, measured, "not in " + ", ".join(policy.quiet_hours)


RULES: dict[str, Callable[[Situation, GovernorConfig], Said]] = {
    "freeze": freeze,
    "once": once,
    "single flight": single_flight,
    "harm": harm,
    "persistence": persistence,
    "labels": labels,
    "cooldown": cooldown,
    "budget": budget,
    "quiet hours": quiet_hours,
}
"""Name to rule, in the order in which a refusal is the reason. The probe comes after all."""


def _hours(span: timedelta) -> float:
    return span.total_seconds() / 3600
