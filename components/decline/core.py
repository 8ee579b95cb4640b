"""Keep the reason why a run ended without training.

``validate`` may come from the cache and then says nothing, and ``notify`` stands
outside the graph's body and sees none of its outputs; this step carries the word.
"""

from __future__ import annotations

from components.settings import Section


class DeclineReport(Section):
    """Why there was nothing to train on."""

    schema_version: int = 1
    reason: str

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return self.reason


def decline(refusal: str) -> DeclineReport:
    """Return the report of a run that trains nothing."""
    return DeclineReport(reason=refusal)
