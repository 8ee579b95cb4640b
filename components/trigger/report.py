"""The page of the trigger step: what was decided, why, and how the windows went so far."""

from __future__ import annotations

from collections.abc import Sequence

from components.alerts import IN_WORDS, alerts_of, looks_until
from components.decisions import Decision, Decisions
from components.page import Said, curve_plot, page, section, table, verdict
from components.store import Store

SHOWN_WINDOWS = 26
_VERDICTS = {
    "passes": Said("passes", "good"),
    "refuses": Said("refuses", "bad"),
    "overridden": Said("overridden", "open"),
    "not asked": Said("not asked", "open"),
}
_MOVED = {True: Said("moved", "open"), False: Said("quiet", "good"), None: Said("open", "open")}
_ALERT_COLUMNS = ("level", "about", "since", "windows", "state")
_HURTS = {True: Said("hurts", "bad"), False: Said("no", "good"), None: Said("open", "open")}


def page_of(decision: Decision, store: Store, ledger: str) -> str:
    """Return a decision as a page, beside what was decided of earlier windows.

    Raises:
        LedgerError: what was decided earlier cannot be read.
    """
    return to_html(decision, Decisions(store, ledger).recent())


def to_html(decision: Decision, decided: Sequence[Decision]) -> str:
    """Return a decision as a page.

    Args:
        decision: what is explained.
        decided: in the order of windows and time; of each window the last is shown.
    """
    mood = {"retrain": "bad", "label": "open", "wait": "good"}[decision.action]
    rules = [
        (each.rule, _VERDICTS[each.verdict], each.measured, each.threshold)
        for each in decision.rules
    ]
    last = {each.window: each for each in decided if each.window <= decision.window}
    shown = list({**last, decision.window: decision}.values())[-SHOWN_WINDOWS:]
    alerts = [
        (
            str(each.level),
            IN_WORDS.get(each.about, each.about),
            each.since,
            each.windows,
            Said("open", "bad" if each.level == 3 else "open") if each.is_open else "ended",
        )
        for each in reversed(alerts_of(looks_until(decision, decided))[-SHOWN_WINDOWS:])
    ]
    scores = [each.performance for each in shown]
    known = [score for score in scores if score is not None]
    return page(
        f"Retrain after window {decision.window}?",
        verdict(decision.headline, mood),
        section(
            "What speaks for it",
            table(("trigger", "says"), [(k, v or "nothing") for k, v in decision.triggers.items()]),
        ),
        *(
            [section("The governor", table(("rule", "verdict", "measured", "asked for"), rules))]
            if rules
            else []
        ),
        *([section("Alerts", table(_ALERT_COLUMNS, alerts))] if alerts else []),
        section(
            "Windows so far",
            table(
                ("window", "inputs", "does it hurt?", "performance", "decision"),
                [
                    (
                        each.window,
                        _MOVED[each.moved],
                        _HURTS[each.hurts],
                        "\u2013" if each.performance is None else each.performance,
                        each.headline,
                    )
                    for each in shown
                ],
            ),
            *([curve_plot({"performance": known}, "known window")] if len(known) > 1 else []),
        ),
    )
