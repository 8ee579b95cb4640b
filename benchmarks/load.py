"""Asks a server for predictions, from a process of its own, and says how it answered.

``closed``: so many connections, each asking again as soon as it is answered, which shows
what a server can do. ``open``: requests at random moments at a given rate, whatever the
server does, which is how people ask; latency counts from the moment at which a request was
due. HTTP is spoken by hand: a client library would take more of the machine than the server.
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
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

MAX_CONNECTIONS = 512


@dataclass
class Outcome:
    """How a server answered.

    Attributes:
        seconds: of the measurement.
        statuses: how many answers had each HTTP status; 0 where the connection broke.
        latencies_ms: of the answers with status 200.
        skipped: requests that were due while all connections were in use.
    """

    seconds: float
    statuses: dict[str, int] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)
    skipped: int = 0

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


class Connection(asyncio.Protocol):
    """One connection that asks one thing at a time."""

    def __init__(self, client: Client) -> None:
        """Belong to ``client``, which is told of each answer."""
        self._client = client
        self._buffer = b""
        self._due_s = 0.0
        self._asked = False
        self._length = -1
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by its class.
        self._transport = cast(asyncio.Transport, transport)
        self._client.free(self)

    def ask(self, request: bytes, due_s: float) -> None:
        """Send a request that was due at a moment."""
        self._due_s, self._asked = due_s, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length < 0:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._status = int(head[9:12])
            lower = head.lower()
            place = lower.index(b"content-length:")
            self._length = int(lower[place + 15 :].partition(b"\r\n")[0])
            self._buffer = rest
        if len(self._buffer) >= self._length:
            self._buffer, self._length, self._asked = b"", -1, False
            self._client.answered(self._status, self._due_s)
            self._client.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.lost(self, self._asked)


class Client:
    """Many connections to one server."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes]) -> None:
        """Ask for ``requests``, again and again."""
        self._host, self._port = host, port
        self._requests, self._next = requests, 0
        self._idle: deque[Connection] = deque()
        self._made = 0
        self._closed_until_s = 0.0
        self._statuses: Counter[str] = Counter()
        self._latencies_ms: list[float] = []
        self._counts_from_s = 0.0

    async def closed(self, connections: int, seconds: float, warm_s: float) -> Outcome:
        """Keep so many connections busy."""
        started_s = time.perf_counter()
        self._counts_from_s = started_s + warm_s
        self._closed_until_s = self._counts_from_s + seconds
        for _ in range(connections):
            await self._connect()
        await asyncio.sleep(warm_s + seconds)
        return self._outcome(seconds)

    async def open(self, rate: float, seconds: float, warm_s: float) -> Outcome:
        """Ask ``rate`` times a second, at random moments."""
        draw = random.Random(0)
        opening: set[asyncio.Task[None]] = set()
        due_s = time.perf_counter()
        self._counts_from_s = due_s + warm_s
        end_s, skipped = self._counts_from_s + seconds, 0
        while due_s < end_s:
            if (wait_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            if self._idle:
                self._idle.popleft().ask(self._request(), due_s)
            elif self._made < MAX_CONNECTIONS:
                self._made += 1
                task = asyncio.create_task(self._connect_and_ask(due_s))
                opening.add(task)
                task.add_done_callback(opening.discard)
            elif due_s >= self._counts_from_s:
                skipped += 1
            due_s += draw.expovariate(rate)
            if wait_s <= 0:
                await asyncio.sleep(0)  # late: still let answers in

        await asyncio.sleep(1.0)
        outcome = self._outcome(seconds)
        outcome.skipped = skipped
        return outcome

    def free(self, connection: Connection) -> None:
        """Take a connection back, or let it ask again."""
        now_s = time.perf_counter()
        if now_s < self._closed_until_s:
            connection.ask(self._request(), now_s)
        else:
            self._idle.append(connection)

    def answered(self, status: int, due_s: float) -> None:
        """Count an answer."""
        if due_s < self._counts_from_s:
            return
        self._statuses[str(status)] += 1
        if status == 200:
            self._latencies_ms.append((time.perf_counter() - due_s) * 1000)

    def lost(self, connection: Connection, asked: bool) -> None:
        """Count a connection that broke while it waited for an answer."""
        self._made -= 1
        if asked:
            self._statuses["0"] += 1
        elif connection in self._idle:
            self._idle.remove(connection)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Connection(self), self._host, self._port)

    async def _connect_and_ask(self, due_s: float) -> None:
        try:
            await self._connect()
        except OSError:
            self._made -= 1
            self._statuses["0"] += 1
            return
        if self._idle:
            self._idle.popleft().ask(self._request(), due_s)

    def _request(self) -> bytes:
        self._next = (self._next + 1) % len(self._requests)
        return self._requests[self._next]

    def _outcome(self, seconds: float) -> Outcome:
        return Outcome(seconds, dict(self._statuses), self._latencies_ms)


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
    """
    job = {
        "port": port,
        "path": path,
        "bodies": [body.decode() for body in bodies],
        "seconds": seconds,
        "warm_s": warm_s,
        "connections": connections,
        "rate": rate,
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
    client = Client("127.0.0.1", job["port"], requests_of(job["path"], bodies))
    times = job["seconds"], job["warm_s"]
    if job["connections"]:
        outcome = uvloop.run(client.closed(job["connections"], *times))
    else:
        outcome = uvloop.run(client.open(job["rate"], *times))
    json.dump(asdict(outcome), sys.stdout)


if __name__ == "__main__":
    main()
