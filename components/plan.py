"""The plan: what the outside world looked like when a run began.

``resolve`` makes it, and hands each part to the steps that use just that part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from components.packages import locate
from components.settings import Section, digest_of
from components.sources import SourceConfig
from components.windows import Window


class WindowData(Section):
    """The rows of one window, as a promise: reading them must give this fingerprint."""

    window: Window
    fingerprint: str
    rows: int
    contents: str = ""
    """Fingerprint of ids and contents alone, which stays when labels come."""

    @property
    def kept_as(self) -> str:
        """Name under which is kept what was computed from the contents alone."""
        return self.contents or self.fingerprint


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


class Served(Section):
    """What the project's server was asked in a window, as its log was when the run began."""

    window: Window
    files: str
    """Digest of the names of the log's files, which never change."""


class Admission(Section):
    """By what ``validate`` judges rows, besides themselves, as it was when the run began."""

    schema_version: int = 1
    project: str = ""
    """Prefix of the project in the store, below which its decisions lie."""
    readmissions: int = 0
    """Number of the last readmission; those that come later belong to later runs."""
    keeps: bool = False
    """Whether quarantined rows are kept for people to look at; those of a replay are not."""
    horizon: str = ""
    """The present, ISO 8601, if some row says that it is of later. Else empty, so that time
    alone makes no run another one."""
    served: Served | None = None
    """None where the server was asked nothing, or its log is the source."""


class Base(Section):
    """A pretrained model to start from."""

    place: str
    """A folder with weights, or ``package:folder``."""
    requirement: str = ""
    """What to tell pip when that package is missing."""
    licence: str = ""
    """Its SPDX name; empty is what the model card in the folder says."""
    digest: str = ""
    """Of its files. A project that names one gets no other weights."""

    @model_validator(mode="before")
    @classmethod
    def _from_place(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"place": given}
        if not isinstance(given, dict | Base):
            raise ValueError("name a folder, package:folder, or keys of a model")
        return given

    def locate(self) -> Path:
        """Return its folder on this machine; see ``components.packages.locate``."""
        return locate(self.place, self.requirement)


class Bases(Section):
    """The pretrained models that a training may start from, and what else it reads.

    The embeddings of the first are what is watched for drift.
    """

    schema_version: int = 1
    models: tuple[Base, ...] = Field(min_length=1)
    others: dict[str, str] = {}
    """Digest by place of what else a training reads: a teacher, synonyms."""

    @property
    def digest(self) -> str:
        """The digest of everything that is read, wherever it lies."""
        return digest_of([[base.digest for base in self.models], *self.others.values()])

    @property
    def lineage(self) -> dict[str, str]:
        """What a bundle remembers of what was read beside rows and base."""
        return {"others": digest_of([*self.others.values()])} if self.others else {}


class Plan(Section):
    """Everything outside a run that the run depends on."""

    schema_version: int = 1
    project: str
    data: Data
    live: Live
    bases: Bases
    admission: Admission = Admission()
    champion: str
    """Digest of the bundle in production, empty when there is none."""
    champion_version: str
    generation: int
    """Number of the last ledger entry, 0 for none."""
    erasures: int = 0
    """Number of the last erasure; what is forgotten later was still read by the run."""
    code: str
