"""Decide on a retrain: triggers speak for it, the governor against, and one event starts one.

A claim names its owner and expires: a retrain that died leaves its event to be taken
over, so that none is doubled and none is lost. The clock is an argument, so that the same
history is decided in the same way whenever it is played.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from components import bundle
from components.alerts import news
from components.decisions import Action, Decision, Decisions, Rule
from components.freeze import Freezes
from components.labels import Labels
from components.ledger import Events, EventState
from components.records import Records
from components.store import Store
from components.trigger.config import Cause, GovernorConfig, ProbeConfig, TriggerConfig
from components.trigger.governor import (
    STOOD_BACK,
    Said,
    Situation,
    Spent,
    as_rule,
    govern,
    refusals,
)
from components.trigger.triggers import TRIGGERS, Evidence, Finding

__all__ = ["TRIGGERS", "Finding", "TriggerConfig", "decide", "end_of_training"]

Probe = Callable[[ProbeConfig], Said]
"""Asks whether a retrain could win; see ``components.trigger.probe``."""


def decide(
    finding: Finding,
    *,
    champion: str,
    window: str,
    run: str,
    now: datetime,
    request: str,
    store: Store,
    ledger: str,
    config: TriggerConfig,
    probe: Probe,
    learnt_until: datetime | None = None,
    seen_until: datetime | None = None,
) -> Decision:
    """Return whether to retrain, with all reasons; a retrain has claimed its event.

    The decision is kept, refusals too. A step that is tried again decides as before, unless
    its event has passed into other hands meanwhile.

    Args:
        finding: what drift found.
        champion: digest of the bundle in production.
        window: name of the window that was looked at.
        run: id of this run, the owner of a claim.
        now: the clock, in the project's time zone.
        request: of a person for a retrain, empty for none.
        store: where decisions, events and costs are kept.
        ledger: prefix of the project's ledger, or of a replay's.
        config: the section ``trigger``.
        probe: asked last, of what nothing else refuses.
        learnt_until: end of the window that the champion was trained on, if it is known.
        seen_until: end of the window that was looked at; a schedule goes by the time of the
            rows, so that old windows can be looked at late. The present by default.

    Raises:
        LedgerError: what was decided earlier cannot be read.
    """
    events, decisions = Events(store, ledger), Decisions(store, ledger)
    earlier = decisions.of(window, run)
    if earlier is not None and not earlier.retrain:
        return earlier
    states = events.all()
    # A retrain counts however often was looked since.
    owners = {state.owner for state in states.values()}
    decided = [each for each in decisions.recent(always=owners) if each.run != run]
    past = [_as_it_ended(each, states, now) for each in decided]
    imported = Labels(store, ledger).rows_in(window)
    finding = finding.model_copy(update={"labelled_rows": finding.labelled_rows + imported})
    until = min(now, seen_until or now)
    evidence = _evidence(finding, past, champion, until, request, learnt_until)
    triggers = {cause: TRIGGERS[cause](evidence, config) or "" for cause in config.on}
    fired = {cause: reason for cause, reason in triggers.items() if reason}
    cause = next(iter(fired), "")
    event = f"{window}-{champion[:16]}-{cause}" if fired else ""
    rules: list[Rule] = []
    if fired:
        held = Freezes(store, ledger).state()
        situation = Situation(
            run=run,
            window=window,
            champion=champion,
            now=now,
            fired=fired,
            finding=finding,
            past=past,
            spent=_spent(store, ledger, decided) if config.governor.device_hours_per_week else (),
            in_flight=_in_flight(states, event, run, now),
            event=events.states(event),
            frozen=held.words if held else "",
        )
        rules = govern(situation, config.governor)
        if not refusals(rules):
            said = _probed(finding, list(fired), config.governor.probe, probe)
            rules.append(as_rule("probe", said, "manual" in fired))
        if not refusals(rules):
            rules += _claim(events, event, run, now, config.lease_hours, "; ".join(fired.values()))
    refused = refusals(rules)
    retrain = bool(fired) and not refused
    if earlier is not None and retrain:
        return earlier
    reason = refused[0].measured if refused else "; ".join(fired.values())
    decision = Decision(
        window=window,
        champion=champion,
        run=run,
        at=now.isoformat(),
        action="retrain" if retrain else _instead(refused, finding, config.governor),
        retrain=retrain,
        cause=cause,
        event=event if retrain else "",
        reason=reason or _calm(finding),
        triggers=dict(triggers),
        rules=rules,
        labelled_rows=finding.labelled_rows,
        finding=finding.summary,
        moved=finding.moved if finding.enough else None,
        hurts=finding.hurts,
        performance=finding.performance,
        alerts=finding.alerts,
    )
    told = [alert.words for alert in news(decision, decided)]
    decision = decision.model_copy(update={"news": told})
    decisions.keep(decision)
    return decision


def _evidence(
    finding: Finding,
    past: Sequence[Decision],
    champion: str,
    until: datetime,
    request: str,
    learnt_until: datetime | None,
) -> Evidence:
    retrains = [each for each in past if each.retrain]
    in_vain = [each.labelled_rows for each in retrains if each.champion == champion]
    moments = [datetime.fromisoformat(each.at) for each in retrains]
    if learnt_until is not None and learnt_until <= until:
        moments.append(learnt_until)
    return Evidence(
        finding=finding,
        new_labels=max(0, finding.labelled_rows - max(in_vain, default=0)),
        days=max((until - max(moments)) / timedelta(days=1), 0.0) if moments else None,
        request=request,
    )


def end_of_training(champion: str, store: Store) -> datetime | None:
    """Return the end of the window that the champion was trained on, if it is known."""
    content = store.get(f"{bundle.key_of(champion)}/{bundle.DESCRIPTION}")
    end = bundle.Description.from_json(content.decode()).lineage.get("window_end", "")
    return datetime.fromisoformat(end) if end else None


def _as_it_ended(decision: Decision, states: Mapping[str, EventState], now: datetime) -> Decision:
    """Return a decision, without its retrain if that died: it is as if it had not begun."""
    state = states.get(decision.event)
    if (
        state is not None
        and state.owner == decision.run
        and (state.state == "done" or state.is_held(now))
    ):
        return decision
    return decision.model_copy(update={"retrain": False})


def _in_flight(states: Mapping[str, EventState], event: str, run: str, now: datetime) -> list[str]:
    """Return the runs that hold another event than this one."""
    return [
        state.owner
        for key, state in states.items()
        if key != event and state.owner != run and state.is_held(now)
    ]


def _spent(store: Store, ledger: str, decided: Sequence[Decision]) -> list[Spent]:
    """Return what every retrain cost, also those that no trigger started.

    A run is accounted for by the records that ``resolve`` and ``register`` left.
    """
    spent = []
    suffix = "/register.json"
    above = f"{ledger}/runs/"
    known = {
        key.removeprefix(above).removesuffix(suffix)
        for key in store.list(above)
        if key.endswith(suffix)
    }
    for run in sorted(known):
        records = Records(store, ledger, run)
        began, hours = records.of("resolve").get("now"), records.of("register").get("device_hours")
        if began:
            spent.append(Spent(datetime.fromisoformat(began), hours))
    spent += [
        Spent(datetime.fromisoformat(each.at), None)
        for each in decided
        if each.retrain and each.run not in known
    ]
    return spent


def _probed(
    finding: Finding, fired: Sequence[Cause], policy: ProbeConfig | None, probe: Probe
) -> Said:
    """Ask the probe where the labelled rows are those that speak for a retrain."""
    if policy is None:
        return None, "the policy has no probe", "no probe"
    by_labels = "performance" in fired and finding.measured
    if not by_labels and "volume" not in fired and "schedule" not in fired:
        return None, "the rows that speak for a retrain have no labels yet", "labels to probe"
    return probe(policy)


def _claim(
    events: Events, event: str, run: str, now: datetime, lease_hours: float, detail: str
) -> list[Rule]:
    """Claim the event; return the rules that refuse after all, because somebody was faster.

    Of those that claim different events at the same moment one departs; the others stand back,
    and their events are free again.
    """
    claim = events.claim(event, run, lease_s=lease_hours * 3600, now=now, detail=detail)
    if not claim.is_mine:
        fate = "handled" if claim.outcome == "done" else "being handled"
        said = (False, f"already {fate} by run {claim.state.owner}", "each event once")
        return [as_rule("once", said, by_a_person=False)]
    other = events.depart(event, run, now=now)
    if other is None:
        return []
    events.close(event, run, "failed", STOOD_BACK, now=now)
    said = (False, f"run {other.owner} retrains", "one at a time")
    return [as_rule("single flight", said, by_a_person=False)]


def _instead(refused: Sequence[Rule], finding: Finding, policy: GovernorConfig) -> Action:
    """Return what to do instead of a retrain: wait, or have rows labelled."""
    names = {rule.rule for rule in refused}
    instead = policy.moved_unknown if finding.hurts is None else policy.moved_unhurt
    wanted = finding.moved and (("harm" in names and instead == "label") or "labels" in names)
    return "label" if wanted and "freeze" not in names else "wait"


def _calm(finding: Finding) -> str:
    return "nothing speaks for a retrain" if finding.enough else "not enough data for a verdict"
