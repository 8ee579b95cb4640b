"""Answers requests that wait at the same time together (dynamic micro-batching).

Rows gather while all workers are busy, so a batch costs no waiting where nothing is gained.
What is measured of the work bounds the latency: a batch takes no more rows than are answered
in ``max_batch_ms``, and who does not fit into the next one and would wait longer than
``queue_ms`` is refused at once.

What a batch takes is what its rows take and what comes on top, such as waiting for a core that
another process has. Both are learnt apart (``_Pace``): were a pause counted as work of the rows,
batches would shrink just when large ones are needed, and requests be refused for nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import ceil

from components.serve.config import BatchingConfig, LimitsConfig
from components.serve.follow import Served
from components.serve.metrics import Metrics
from components.serve.model import Predicted, Prediction
from components.serve.refusal import Refused

WORKER = "predict"
"""Begins the names of threads that ask models."""

_REMEMBERED = 32
"""Batches from which is learnt how long others will take."""


@dataclass(eq=False)
class _Job:
    """A request, until all of its rows are answered."""

    served: Served
    contents: Sequence[str]
    answered: asyncio.Future[Predicted]
    arrived_s: float
    begun: int = 0
    """Rows that were given to a worker."""
    missing: int = 0
    """Rows without an answer."""
    predictions: list[Prediction] = field(default_factory=list)
    truncated: list[int] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        return len(self.contents) - self.begun


@dataclass(frozen=True)
class _Part:
    """Rows of a job that are in one batch."""

    job: _Job
    start: int
    stop: int


class _Pace:
    """How long batches take, as measured of late; nothing before the first.

    Attributes:
        row_s: of one row: the lower quartile, which pauses of the process do not move.
        pause_s: what a batch takes on top, on average.
    """

    def __init__(self) -> None:
        self.row_s = self.pause_s = 0.0
        self._batches: deque[tuple[int, float]] = deque()
        self._rows, self._seconds = 0, 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """Take in a batch."""
        self._batches.append((rows, seconds))
        self._rows, self._seconds = self._rows + rows, self._seconds + seconds
        if len(self._batches) > _REMEMBERED:
            gone_rows, gone_s = self._batches.popleft()
            self._rows, self._seconds = self._rows - gone_rows, self._seconds - gone_s
        each_s = sorted([took / many for many, took in self._batches])
        self.row_s = each_s[len(each_s) // 4]
        self.pause_s = max(0.0, (self._seconds - self._rows * self.row_s) / len(each_s))

    def seconds(self, rows: int, room: int) -> float:
        """Return how long rows take, one batch of ``room`` after another."""
        return rows * self.row_s + ceil(rows / room) * self.pause_s


class Batcher:
    """Gathers rows of requests and lets worker threads answer them; of one event loop."""

    def __init__(
        self, batching: BatchingConfig, limits: LimitsConfig, metrics: Metrics, threads: int
    ) -> None:
        """Start with an empty queue.

        Args:
            batching: how to gather.
            limits: how much may wait.
            metrics: told of batches and of the queue.
            threads: workers at most; a model may ask for fewer.
        """
        self._batching, self._limits, self._metrics = batching, limits, metrics
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=WORKER)
        self._threads = threads
        self._workers = threads
        self._jobs: deque[_Job] = deque()
        self._rows = 0
        self._busy = 0
        self._pace = _Pace()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def wait_s(self) -> float:
        """How long a row that came now would wait, as measured."""
        return self._pace.seconds(self._rows, self._room()) / self._workers

    def admit(self) -> None:
        """Refuse a request if too much waits; cheap, to be called before a body is read.

        Who still fits into the next batch is not refused: coming again takes longer than that.

        Raises:
            Refused: with status 429.
        """
        is_late = self._rows >= self._room() and self.wait_s * 1000 > self._limits.queue_ms
        if self._rows >= self._limits.queue_rows or is_late:
            raise Refused(429, "too many requests wait; try again later", ceil(self.wait_s) or 1)

    async def respond(self, served: Served, contents: Sequence[str]) -> Predicted:
        """Return what a model says of the contents of one request.

        Raises:
            Refused: too much waits, or it took too long.
            BundleError, SourceError: see ``BundleModel.answers``.
        """
        self.admit()
        loop = asyncio.get_running_loop()
        job = _Job(served, contents, loop.create_future(), time.perf_counter())
        job.missing = len(contents)
        job.predictions = [{}] * len(contents)
        self._jobs.append(job)
        self._rows += len(contents)
        self._pump()
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await job.answered
        except TimeoutError as error:
            raise Refused(504, "the model did not answer in time", 1) from error
        finally:
            self._metrics.queue(self._rows)

    def close(self) -> None:
        """Let the workers go when they have finished."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _pump(self) -> None:
        """Give rows to idle workers."""
        while self._jobs:
            if self._jobs[0].answered.done():  # it took too long, and nobody waits any more
                self._rows -= self._jobs.popleft().waiting
                continue
            first = self._jobs[0]
            self._workers = max(1, min(self._threads, first.served.model.threads))
            if self._busy >= self._workers:
                return
            if (delay_s := self._delay_s(first)) > 0:
                if self._timer is None:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(delay_s, self._waited)
                return
            self._start(self._gather(self._room()))

    def _delay_s(self, first: _Job) -> float:
        """Return how long to wait for more rows than there are."""
        if not self._batching.max_wait_ms or self._rows >= self._room():
            return 0.0
        waited_s = time.perf_counter() - first.arrived_s
        return self._batching.max_wait_ms / 1000 - waited_s

    def _waited(self) -> None:
        self._timer = None
        self._pump()

    def _room(self) -> int:
        """Return how many rows a batch may have."""
        if not self._pace.row_s:
            return self._batching.max_rows
        quick = int(self._batching.max_batch_ms / 1000 / self._pace.row_s)
        return max(1, min(self._batching.max_rows, quick))

    def _gather(self, room: int) -> list[_Part]:
        """Take rows for one model off the queue; who has more goes to its end."""
        served, parts = self._jobs[0].served, []
        while room and self._jobs and self._jobs[0].served is served:
            job = self._jobs.popleft()
            if job.answered.done():
                self._rows -= job.waiting
                continue
            start, job.begun = job.begun, min(job.begun + room, len(job.contents))
            taken = job.begun - start
            self._rows -= taken
            room -= taken
            parts.append(_Part(job, start, job.begun))
            if job.waiting:
                self._jobs.append(job)
        return parts

    def _start(self, parts: list[_Part]) -> None:
        served = parts[0].job.served
        contents = [text for part in parts for text in part.job.contents[part.start : part.stop]]
        started_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, served.model.respond, contents)
        self._busy += 1

        def end(done: asyncio.Future[Predicted]) -> None:
            self._busy -= 1
            took_s = time.perf_counter() - started_s
            if done.cancelled() or done.exception():
                self._failed(parts, done)
            else:
                self._pace.learn(len(contents), took_s)
                self._metrics.batch(served.version, len(contents), took_s)
                _hand_out(parts, done.result())
            self._pump()

        future.add_done_callback(end)

    def _failed(self, parts: list[_Part], done: asyncio.Future[Predicted]) -> None:
        """Ask again for each request alone: what is wrong with one must not hurt the others."""
        if done.cancelled():
            for part in parts:
                part.job.answered.cancel()
            return
        error = done.exception()
        assert error is not None
        for job in {id(part.job): part.job for part in parts}.values():
            if job.answered.done():
                continue
            if len(parts) == 1 and parts[0].stop - parts[0].start == len(job.contents):
                job.answered.set_exception(error)
                continue
            # Asked alone and whole, it is told of its own contents by their places.
            if job.waiting:  # its other rows need not be asked about twice
                self._jobs.remove(job)
                self._rows -= job.waiting
            again = _Job(job.served, job.contents, job.answered, job.arrived_s)
            again.missing = again.begun = len(job.contents)
            again.predictions = [{}] * len(job.contents)
            job.begun = len(job.contents)
            self._start([_Part(again, 0, len(job.contents))])


def _hand_out(parts: list[_Part], predicted: Predicted) -> None:
    """Put the answers of a batch where they belong."""
    offset = 0
    for part in parts:
        job, count = part.job, part.stop - part.start
        job.predictions[part.start : part.stop] = predicted.predictions[offset : offset + count]
        job.truncated += [
            place - offset + part.start
            for place in predicted.truncated
            if offset <= place < offset + count
        ]
        offset += count
        job.missing -= count
        if not job.missing and not job.answered.done():
            job.answered.set_result(Predicted(job.predictions, sorted(job.truncated)))
