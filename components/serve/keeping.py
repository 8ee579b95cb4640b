"""Keeps requests and labels while the server answers; see ``components.request_log``.

Requests are written in the background from a bounded queue: a slow store costs rows, which
are counted, and never an answer. A label is acknowledged when it, and the request that it is
for, are in the store.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from components.errors import StoreError
from components.request_log import (
    Feedback,
    RequestLog,
    digest_of_content,
    file_of,
    new_file,
    row_id,
)
from components.serve.answers import Answers
from components.serve.config import RequestLogConfig
from components.serve.metrics import Metrics
from components.serve.refusal import Refused

log = logging.getLogger(__name__)

_FILE_BYTES = 32 * 2**20
"""A file is full with so much of texts or images, too: what waits has to fit into memory."""
_RETRY_S = 1.0
"""Between attempts to write while the store is away."""
_KNOWN_ROWS = 200_000
"""Rows whose ids are remembered, for labels: about 25 MB."""


class _File:
    """Rows that will be written together."""

    def __init__(self) -> None:
        self.name = new_file(datetime.now(UTC))
        self.began_s = time.monotonic()
        self.rows: list[dict[str, object]] = []
        self.requests = 0
        self.size = 0


class Keeper:
    """Keeps a sample of the requests, and the labels that come for them; of one event loop.

    Attributes:
        trouble: why the last write failed; empty if it did not.
    """

    def __init__(self, kept: RequestLog, config: RequestLogConfig, metrics: Metrics) -> None:
        """Keep in ``kept``; nothing is written before ``run``."""
        self.trouble = ""
        self._log, self._config, self._metrics = kept, config, metrics
        self._file = _File()
        self._full: deque[_File] = deque()
        self._writing = asyncio.Lock()
        self._labelling: list[tuple[list[Feedback], asyncio.Future[None]]] = []
        self._labels_go = asyncio.Lock()
        self._ids: dict[str, frozenset[str]] = {}
        self._ids_go = threading.Lock()

    def keep(self, key: str, contents: Sequence[str], answers: Answers) -> str | None:
        """Take a request into the sample, perhaps; return the id under which it is kept."""
        sample = self._config.sample
        if not sample or (sample < 1 and random.random() >= sample):
            return None
        if len(self._full) >= self._config.queue_files:
            self._metrics.dropped(len(contents))
            return None
        file = self._file
        request_id = f"{file.name}-{file.requests}"
        file.requests += 1
        file.rows += self._rows(request_id, key, contents, answers)
        if self._config.inputs == "whole":
            file.size += sum(map(len, contents))
        if len(file.rows) >= self._config.file_rows or file.size >= _FILE_BYTES:
            self._turn_over()
        return request_id

    async def run(self) -> None:
        """Write files as they are full or old enough, until cancelled."""
        while True:
            await asyncio.sleep(min(self._config.flush_s, _RETRY_S))
            if time.monotonic() - self._file.began_s >= self._config.flush_s:
                self._turn_over()
            await self._write_all()

    async def flush(self) -> None:
        """Write all that was kept; what the store does not take stays in the queue."""
        self._turn_over()
        await self._write_all()

    async def label(self, labels: list[Feedback]) -> None:
        """Keep labels of requests that were kept; they outlive the process from then on.

        Raises:
            Refused: a row is not known, or the store does not take them now.
        """
        files = {file_of(each.request_id) for each in labels}
        if any(self._pending(file) for file in files):
            # A label without its request would be of no use to anybody.
            await self.flush()
        if any(self._pending(file) for file in files):
            raise Refused(503, f"the store does not take labels now: {self.trouble}", 5)
        try:
            known = await asyncio.to_thread(self._known, files)
            unknown = [each.row_id for each in labels if each.row_id not in known]
            if unknown:
                raise Refused(
                    404,
                    f"no request was kept as {unknown[0][:60]!r}: the id or the row is wrong, or "
                    f"it was not in the sample{of_all(len(unknown), labels)}",
                )
            await self._together(labels)
        except StoreError as error:
            raise Refused(503, f"the store does not take labels now: {error}", 5) from error

    def _rows(
        self, request_id: str, key: str, contents: Sequence[str], answers: Answers
    ) -> list[dict[str, object]]:
        now, policy, cut = datetime.now(UTC).isoformat(), self._config.inputs, answers.truncated
        return [
            {
                "id": row_id(request_id, row),
                "request_id": request_id,
                "row": row,
                "key": key,
                "time": now,
                "version": answers.version,
                "generation": answers.generation,
                "bundle": answers.bundle,
                "text": content if policy == "whole" else None,
                "digest": None if policy == "none" else digest_of_content(content),
                "answer": _answer(prediction),
                "confidence": prediction.get("confidence"),
                "truncated": row in cut,
            }
            for row, (content, prediction) in enumerate(
                zip(contents, answers.predictions, strict=True)
            )
        ]

    def _turn_over(self) -> None:
        if self._file.rows:
            self._full.append(self._file)
        self._file = _File()

    def _pending(self, name: str | None) -> bool:
        return any(file.name == name for file in (self._file, *self._full))

    async def _write_all(self) -> None:
        async with self._writing:
            while self._full:
                file = self._full[0]
                try:
                    await asyncio.to_thread(self._log.write, file.name, file.rows)
                # Not only the store's: whatever goes wrong here must not end the keeping.
                except Exception as error:
                    if not self.trouble:
                        log.warning("requests cannot be kept: %s", error)
                    self.trouble = f"requests cannot be kept: {error}"
                    return
                self.trouble = ""
                self._full.popleft()

    def _known(self, files: set[str | None]) -> set[str]:
        return {row for file in files if file for row in self._rows_of(file)}

    def _rows_of(self, file: str) -> frozenset[str]:
        """Return the ids of a file's rows; of the last used files they are remembered."""
        with self._ids_go:
            rows = self._ids.pop(file, None)
        rows = rows or self._log.rows_of(file)
        with self._ids_go:
            if rows:  # else another server may not have written it yet; files never change
                self._ids[file] = rows
            while sum(map(len, self._ids.values())) > _KNOWN_ROWS and len(self._ids) > 1:
                del self._ids[next(iter(self._ids))]
        return rows

    async def _together(self, labels: list[Feedback]) -> None:
        """Write labels with all others that come while the store is busy."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._labelling.append((labels, done))
        async with self._labels_go:
            if not done.done():
                waiting, self._labelling = self._labelling, []
                await self._write_labels(waiting)
        await done

    async def _write_labels(
        self, waiting: list[tuple[list[Feedback], asyncio.Future[None]]]
    ) -> None:
        labels = [each for some, _ in waiting for each in some]
        try:
            await asyncio.to_thread(self._log.add_feedback, labels, datetime.now(UTC))
        except StoreError as error:
            for _, done in waiting:
                if not done.done():
                    done.set_exception(error)
        else:
            for _, done in waiting:
                if not done.done():
                    done.set_result(None)


def of_all(wrong: int, labels: Sequence[Feedback]) -> str:
    """Say of several labels that came together what became of them; nothing of a single one."""
    if len(labels) == 1:
        return ""
    return (
        f". {wrong} of these {len(labels)} labels cannot be kept, so none was: send the others "
        "again without them"
    )


def _answer(prediction: dict[str, object]) -> str | None:
    value = prediction.get("label", prediction.get("value"))
    return None if value is None else str(value)
