"""Asks a server for predictions, from a process of its own, and says how it answered.

``closed``: so many connections, each asking again as soon as it is answered, which shows
what a server can do. ``open``: requests at random moments at a given rate, whatever the
server does, which is how people ask; latency counts from the moment at which a request was
due. HTTP is spoken by hand: a client library would take more of the machine than the server.

A client that is told to try again (429) may do so, after as long as ``Retry-After`` says: its
request then counts once, by its last answer, with all the waiting in its latency.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

MAX_CONNECTIONS = 512
LAST_S = 5.0
"""So long after the last request the last answer may come; then there is none."""


@dataclass
class Outcome:
    """How a server answered.

    Attributes:
        seconds: of the measurement.
        statuses: how many requests had each HTTP status in the end; 0 is no answer.
        latencies_ms: of the answers with status 200.
        skipped: requests that were due while all connections were in use.
        retried: times that a request was sent again.
    """

    seconds: float
    statuses: dict[str, int] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    skipped: int = 0
    retried: int = 0

    @property
    def per_second(self) -> float:
        """Answers with status 200."""
        return self.statuses.get("200", 0) / self.seconds

    @property
    def errors(self) -> int:
        """Answers that are neither good nor a plain refusal for lack of capacity."""
        good = self.statuses.get("200", 0) + self.statuses.get("429", 0)
        return sum(self.statuses.values()) - good

    def percentile_ms(self, share: float) -> float:
        """Return a percentile of the latencies, in ms; infinite if nothing was answered."""
        return float(np.percentile(self.latencies_ms, share)) if self.latencies_ms else np.inf


@dataclass(frozen=True)
class Due:
    """A request that is to be answered.

    Attributes:
        request: its bytes.
        at_s: when it was due for the first time.
        attempt: how often it was sent before.
    """

    request: bytes
    at_s: float
    attempt: int = 0


class Connection(asyncio.Protocol):
    """One connection that asks one thing at a time."""

    def __init__(self, client: Client) -> None:
        """Belong to ``client``, which is told of each answer."""
        self._client = client
        self._buffer = b""
        self._due: Due | None = None
        self._length = -1
        self._status, self._retry_after_s = 0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class.
        self._transport = cast(asyncio.Transport, transport)
        self._client.free(self)

    def ask(self, due: Due) -> None:
        """Send a request."""
        self._due = due
        self._transport.write(due.request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length < 0:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._status = int(head[9:12])
            lower = head.lower()
            self._length = int(_header(lower, b"content-length"))
            self._retry_after_s = float(_header(lower, b"retry-after"))
            self._buffer = rest
        if len(self._buffer) >= self._length:
            due, self._due = self._due, None
            self._buffer, self._length = b"", -1
            assert due is not None
            self._client.answered(due, self._status, self._retry_after_s)
            self._client.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.lost(self, self._due)


def _header(head: bytes, name: bytes) -> bytes:
    """Return a number that a head in lower case tells, 0 where it does not."""
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else b"0"


class Client:
    """Many connections to one server."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes], retries: int = 0) -> None:
        """Ask for ``requests``, again and again; each that is refused, ``retries`` times more."""
        self._host, self._port, self._retries = host, port, retries
        self._requests, self._next = requests, 0
        self._idle: deque[Connection] = deque()
        self._made = 0
        self._unanswered = 0
        self._closed_until_s = 0.0
        self._counts_from_s = 0.0
        self._counted = Outcome(0.0)
        self._opening: set[asyncio.Task[None]] = set()

    async def closed(self, connections: int, seconds: float, warm_s: float) -> Outcome:
        """Keep so many connections busy."""
        started_s = time.perf_counter()
        self._counts_from_s = started_s + warm_s
        self._closed_until_s = self._counts_from_s + seconds
        for _ in range(connections):
            await self._connect()
        await asyncio.sleep(warm_s + seconds)
        return replace(self._counted, seconds=seconds)

    async def open(self, rate: float, seconds: float, warm_s: float) -> Outcome:
        """Ask ``rate`` times a second, at random moments."""
        draw = random.Random(0)
        due_s = time.perf_counter()
        self._counts_from_s = due_s + warm_s
        end_s = self._counts_from_s + seconds
        while due_s < end_s:
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            self._unanswered += due_s >= self._counts_from_s
            self._send(Due(self._request(), due_s))
            due_s += draw.expovariate(rate)
            if wait_s <= 0:
                await asyncio.sleep(0)  # late: still let answers in
        while self._unanswered and time.perf_counter() < end_s + LAST_S:
            await asyncio.sleep(0.01)
        for _ in range(self._unanswered):
            self._count(0)
        return replace(self._counted, seconds=seconds)

    def free(self, connection: Connection) -> None:
        """Take a connection back, or let it ask again."""
        now_s = time.perf_counter()
        if now_s < self._closed_until_s:
            self._unanswered += now_s >= self._counts_from_s
            connection.ask(Due(self._request(), now_s))
        else:
            self._idle.append(connection)

    def answered(self, due: Due, status: int, retry_after_s: float) -> None:
        """Count an answer, or try again if that is what it asks for."""
        if status == 429 and due.attempt < self._retries:
            self._counted.retried += due.at_s >= self._counts_from_s
            again = replace(due, attempt=due.attempt + 1)
            asyncio.get_running_loop().call_later(retry_after_s, self._send, again)
            return
        self._end(due, status)

    def lost(self, connection: Connection, due: Due | None) -> None:
        """Count a connection that broke while it waited for an answer."""
        self._made -= 1
        if due is not None:
            self._end(due, 0)
        elif connection in self._idle:
            self._idle.remove(connection)

    def _send(self, due: Due) -> None:
        if self._idle:
            self._idle.popleft().ask(due)
        elif self._made < MAX_CONNECTIONS:
            self._made += 1
            task = asyncio.create_task(self._connect_and_ask(due))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        elif due.at_s >= self._counts_from_s:
            self._unanswered -= 1
            self._counted.skipped += 1

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Connection(self), self._host, self._port)

    async def _connect_and_ask(self, due: Due) -> None:
        try:
            await self._connect()
        except OSError:
            self._made -= 1
            self._end(due, 0)
            return
        self._send(due)  # through the new connection, or another that is idle by now

    def _end(self, due: Due, status: int) -> None:
        if due.at_s < self._counts_from_s:
            return
        self._unanswered -= 1
        self._count(status)
        if status == 200:
            self._counted.latencies_ms.append((time.perf_counter() - due.at_s) * 1000)

    def _count(self, status: int) -> None:
        counts = self._counted.statuses
        counts[str(status)] = counts.get(str(status), 0) + 1

    def _request(self) -> bytes:
        self._next = (self._next + 1) % len(self._requests)
        return self._requests[self._next]


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def requests_of(path: str, bodies: Sequence[bytes]) -> list[bytes]:
    """Return whole HTTP requests."""
    return [
        f"POST {path} HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies
    ]


def load(
    port: int,
    path: str,
    bodies: Sequence[bytes],
    *,
    seconds: float,
    warm_s: float = 1.0,
    connections: int = 0,
    rate: float = 0.0,
    retries: int = 0,
) -> Outcome:
    """Ask a server on loopback from a new process.

    Args:
        port: of the server.
        path: to ask.
        bodies: of the requests, in JSON; asked in turn.
        seconds: to measure.
        warm_s: to ask before.
        connections: to keep busy, or
        rate: of requests a second.
        retries: of a request that is refused with 429.
    """
    job = {
        "port": port,
        "path": path,
        "bodies": [body.decode() for body in bodies],
        "seconds": seconds,
        "warm_s": warm_s,
        "connections": connections,
        "rate": rate,
        "retries": retries,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    if done.returncode:
        raise RuntimeError(f"the load did not go off: {done.stderr[-2000:]}")
    return Outcome(**json.loads(done.stdout))


def main() -> None:
    """Read the job from standard input, do it, and print the outcome."""
    import uvloop

    argparse.ArgumentParser(description=__doc__).parse_args()
    job = json.load(sys.stdin)
    bodies = [body.encode() for body in job["bodies"]]
    client = Client("127.0.0.1", job["port"], requests_of(job["path"], bodies), job["retries"])
    times = job["seconds"], job["warm_s"]
    if job["connections"]:
        outcome = uvloop.run(client.closed(job["connections"], *times))
    else:
        outcome = uvloop.run(client.open(job["rate"], *times))
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
