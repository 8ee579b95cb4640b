"""Where rows come from: one file per kind of source.

A source answers two questions: which rows are in a window, and when its first and
last rows happened. ``resolve`` asks it for fingerprints, ``ingest`` and ``collect``
for rows.
"""

from __future__ import annotations

from typing import Protocol

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
    """Return the source that a project's ``source`` section describes."""
    return SOURCES[config.kind](config)
