"""What the project's own server was asked in the window that a run learns from."""

from __future__ import annotations

from components.plan import Admission
from components.request_log import RequestLog
from components.store import Store

CONTENTS = 5000
"""No more of them are looked at, the newest."""


def contents_asked(store: Store, admission: Admission) -> list[str]:
    """Return different contents that the server was asked, the newest first.

    Those of which the log holds a digest alone say nothing here.

    Raises:
        SourceError: an object of the log holds something else.
        StoreError: the store cannot be read.
    """
    if admission.served is None:
        return []
    log, window = RequestLog(store, admission.project), admission.served.window
    found: dict[str, None] = {}
    for file in reversed(log.files(window.begins, window.ends)):
        asked = log.rows(file)
        inside = (asked["moment"] >= window.begins) & (asked["moment"] < window.ends)
        for content in asked["text"][inside].dropna()[::-1]:
            found[content] = None
            if len(found) == CONTENTS:
                return list(found)
    return list(found)
