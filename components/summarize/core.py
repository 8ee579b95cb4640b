"""Summarize one partition of production's window; ``collect`` merges what they give."""

from __future__ import annotations

from pathlib import Path

from components.collect.core import CollectConfig
from components.collect.production import Production
from components.plan import Live
from components.settings import Section
from components.store import Store

__all__ = ["CollectConfig", "SummarizeReport", "summarize"]


class SummarizeReport(Section):
    """What was seen of a partition."""

    schema_version: int = 1
    start: str
    end: str
    """Of the partition's time, half-open."""
    rows: int
    """In it altogether."""
    input_rows: int
    """Different ones of which the inputs were looked at."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return f"{self.rows:,} rows from {self.start} to {self.end}"


def summarize(
    live: Live, champion: Path, store: Store, code: str, config: CollectConfig, partition: int
) -> SummarizeReport:
    """Put the summary of one part of the current window's time into the store.

    Args:
        live: the plan's part for production.
        champion: bundle in production, whose tokenizer counts tokens.
        store: gets the summary.
        code: version of the code.
        config: the section ``collect``, which says how many parts there are.
        partition: number of the part, from 1.

    Raises:
        BundleError: the champion's bundle is altered or does not load.
        SourceError: the window no longer has the fingerprint of the plan.
    """
    part = config.parts(live.current.window)[partition - 1]
    summary = Production.of(live, champion, store, code, config.size).summarize(part)
    return SummarizeReport(
        start=part.start, end=part.end, rows=summary.rows, input_rows=len(summary.frame)
    )
