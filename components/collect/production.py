"""Production's windows as a step sees them: the rows of a plan, through the champion's eyes.

The summary of a part of the current window may lie in the store, where ``summarize`` put it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from components import bundle
from components.collect.summary import Size, Summary
from components.errors import SourceError
from components.plan import Live, WindowData
from components.settings import digest_of
from components.sources import Source, open_source
from components.sources.rows import Metadata
from components.store import ObjectMissing, Store
from components.tasks import TASKS, TaskConfig
from components.tasks.model import Model
from components.windows import Window


@dataclass(frozen=True)
class Production:
    """What production saw, and who answered.

    Attributes:
        live: the plan's part for production.
        source: of the rows.
        store: holds summaries of parts.
        champion: digest of the bundle in production.
        task: of the champion.
        model: the champion.
        code: version of the code that looks.
        size: how much is kept of a window.
    """

    live: Live
    source: Source
    store: Store
    champion: str
    task: TaskConfig
    model: Model
    code: str
    size: Size

    @classmethod
    def of(cls, live: Live, champion: Path, store: Store, code: str, size: Size) -> Self:
        """Open the source and load the champion.

        Raises:
            BundleError: the champion's bundle is altered or does not load.
        """
        task = bundle.verify(champion).task
        return cls(
            live,
            open_source(live.source, store),
            store,
            bundle.digest_of_folder(champion),
            task,
            TASKS[task.kind].load(champion),
            code,
            size,
        )

    @property
    def metadata(self) -> Metadata:
        """The declared columns of the rows."""
        return self.live.source.metadata

    def summarize(self, part: Window) -> Summary:
        """Read a part of the current window, and put its summary into the store.

        Raises:
            SourceError: the window no longer has the fingerprint of the plan.
        """
        summary = self._read(self.live.current, part, self.model, self.size)
        summary.save(self.store, self._key(part))
        return summary

    def summary(self, part: Window) -> Summary:
        """Return the summary of a part of the current window, read here unless it is kept.

        Raises:
            SourceError: the window no longer has the fingerprint of the plan.
        """
        try:
            return Summary.load(self.store, self._key(part))
        except ObjectMissing:
            return self._read(self.live.current, part, self.model, self.size)

    def labelled(self, planned: WindowData) -> Summary:
        """Return the summary of a window whose labels have come, with the declared columns only.

        Raises:
            SourceError: the window no longer has the fingerprint of the plan.
        """
        return self._read(planned, planned.window, None, Size(self.size.rows, self.size.rows))

    def _read(self, planned: WindowData, part: Window, model: Model | None, size: Size) -> Summary:
        if self.source.facts(planned.window).fingerprint != planned.fingerprint:
            raise SourceError(
                f"the rows of window {planned.window.name} changed after the run began; run again"
            )
        batches = self.source.batches(planned.window, part)
        return Summary.of(batches, self.task, self.metadata, model, size)

    def _key(self, part: Window) -> str:
        said = [self.live.source.to_json(), self.live.current.to_json(), part.to_json()]
        size = [self.size.rows, self.size.described]
        return f"summaries/{digest_of([self.champion, self.code, *said, *size])}.parquet"
