"""Where rows come from: one file per kind of source.

A source answers two questions: which rows are in a window, and when its first and
last rows happened. ``resolve`` asks it for fingerprints, ``ingest`` and ``collect``
for rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from components import home
from components.erasures import Erasures, Forgotten
from components.sources.files import FilesConfig, FilesSource
from components.sources.rows import Rows
from components.windows import Window

SourceConfig = FilesConfig
"""What the ``source`` section of a project may be."""

SOURCES = {"files": FilesSource}
"""Kind of source to its class. To add one: a file here and a line."""


class Source(Protocol):
    """The rows of a project, window by window."""

    def read(self, window: Window) -> Rows:
        """Return the rows of a window in a fixed order."""

    def span(self) -> tuple[str, str] | None:
        """Return the times of the first and the last row, or None without rows or times."""


def open_source(config: SourceConfig) -> Source:
    """Return the source that a project's ``source`` section describes.

    Rows that the project is to forget are in no window of it.
    """
    source = SOURCES[config.kind](config)
    if not config.labels_of:
        return source
    forgotten = Erasures(home.store(), config.labels_of).forgotten()
    return Forgetful(source, forgotten) if forgotten else source


@dataclass(frozen=True)
class Forgetful:
    """A source without the rows that are to be forgotten; they are counted as left out."""

    source: Source
    forgotten: Forgotten

    def read(self, window: Window) -> Rows:
        """Return the other rows of a window in their order."""
        rows = self.source.read(window)
        gone = self.forgotten.rows(rows.frame)
        if not gone.any():
            return rows
        left_out = {**rows.left_out, "forgotten": int(gone.sum())}
        return Rows(rows.frame[~gone].reset_index(drop=True), left_out)

    def span(self) -> tuple[str, str] | None:
        """Return the times of the first and the last row, or None without rows or times."""
        return self.source.span()
