"""Alerts: what a person is told about drift, once for a trouble and not once for a window.

An alert is read from the decisions that monitoring keeps. While look after look says the same
of the same champion it goes on as one; it ends with a look that does not say so any more, or
with the champion. Its level says how soon to look: 3 at once, 2 within a day, 1 in the weekly
review.
"""

from __future__ import annotations

from collections.abc import Sequence

from components.decisions import Decision
from components.settings import Section

IN_WORDS = {
    "input": "inputs moved",
    "embedding": "embeddings moved",
    "answer": "answers moved",
    "columns": "columns came, went or changed",
    "error": "errors rose",
    "performance": "performance is hurt",
}
OF_LABELS = ("error", "performance")
"""Told by labels that have come, also of a window that is too small for a verdict on inputs."""


class Alert(Section):
    """One trouble of one champion, for as long as it lasts."""

    about: str
    """A key of ``IN_WORDS``."""
    champion: str
    level: int
    """The highest so far, 1 to 3."""
    since: str
    """Name of the first window that said so."""
    until: str
    """Name of the last."""
    windows: int
    """How many said so."""
    is_open: bool

    @property
    def words(self) -> str:
        """The alert in one line."""
        lasts = f"since window {self.since}, {self.windows} in a row" if self.windows > 1 else ""
        where = lasts or f"in window {self.since}"
        return f"level {self.level}: {IN_WORDS.get(self.about, self.about)} {where}"


def alerts_of(decided: Sequence[Decision]) -> list[Alert]:
    """Return all alerts in the order in which they began.

    Args:
        decided: in the order of windows and time.
    """
    found: list[Alert] = []
    running: dict[str, int] = {}
    for look in decided:
        for about, place in list(running.items()):
            if _ends(found[place], look):
                found[place] = found[place].model_copy(update={"is_open": False})
                del running[about]
        for about, level in look.alerts.items():
            place = running.setdefault(about, len(found))
            if place == len(found):
                found.append(_begun(about, level, look))
            else:
                found[place] = _gone_on(found[place], level, look)
    return found


def news(decision: Decision, decided: Sequence[Decision]) -> list[Alert]:
    """Return the alerts that begin with a decision or rise with it; a mere repeat is none.

    Args:
        decision: the look that is told about.
        decided: all looks, in the order of windows and time, with or without this one.
    """
    *earlier, _ = looks_until(decision, decided)
    told = {each.about: each.level for each in alerts_of(earlier) if _goes_on(each, decision)}
    return [
        each
        for each in alerts_of([*earlier, decision])
        if each.is_open and decision.alerts.get(each.about, 0) > told.get(each.about, 0)
    ]


def looks_until(decision: Decision, decided: Sequence[Decision]) -> list[Decision]:
    """Return the looks at this window and those before it, with this one as the last."""
    return [
        *(each for each in decided if each.run != decision.run and each.window <= decision.window),
        decision,
    ]


def _goes_on(alert: Alert, look: Decision) -> bool:
    return alert.is_open and not _ends(alert, look)


def _ends(alert: Alert, look: Decision) -> bool:
    """Tell whether a look ends an alert; one that can say nothing leaves it as it is."""
    if alert.champion != look.champion:
        return True
    says = look.hurts if alert.about in OF_LABELS else look.moved
    return says is not None and alert.about not in look.alerts


def _begun(about: str, level: int, look: Decision) -> Alert:
    return Alert(
        about=about,
        champion=look.champion,
        level=level,
        since=look.window,
        until=look.window,
        windows=1,
        is_open=True,
    )


def _gone_on(alert: Alert, level: int, look: Decision) -> Alert:
    return alert.model_copy(
        update={
            "level": max(alert.level, level),
            "until": look.window,
            "windows": alert.windows + (look.window != alert.until),
        }
    )
