"""The plan: what the outside world looked like when a run began.

``resolve`` makes it, and hands each part to the steps that use just that part.
"""

from __future__ import annotations

from pathlib import Path

from components.packages import locate
from components.settings import Section
from components.sources import SourceConfig
from components.windows import Window


class WindowData(Section):
    """The rows of one window, as a promise: reading them must give this fingerprint."""

    window: Window
    fingerprint: str
    rows: int


class Data(Section):
    """What ``ingest`` reads: earlier windows first, the current one last."""

    schema_version: int = 1
    source: SourceConfig
    windows: list[WindowData]


class Live(Section):
    """What ``collect`` reads: production's window, and earlier ones whose labels have come.

    ``labelled`` holds only windows after the one that the champion was trained on.
    """

    schema_version: int = 1
    source: SourceConfig
    current: WindowData
    labelled: list[WindowData]


class Base(Section):
    """The pretrained model to start from, and the digest of its files."""

    schema_version: int = 1
    place: str
    requirement: str
    digest: str

    def locate(self) -> Path:
        """Return its folder on this machine; see ``components.packages.locate``."""
        return locate(self.place, self.requirement)


class Plan(Section):
    """Everything outside a run that the run depends on."""

    schema_version: int = 1
    project: str
    data: Data
    live: Live
    base: Base
    champion: str
    """Digest of the bundle in production, empty when there is none."""
    champion_version: str
    generation: int
    """Number of the last ledger entry, 0 for none."""
    code: str
