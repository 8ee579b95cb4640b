"""Reads the body of a request, and no more of it than a server should."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from components.serve.refusal import Refused

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
"""Of ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html"""
Headers = Mapping[bytes, bytes]
"""By their names in lower case."""

MAX_BODY_BYTES = 16 * 2**20
"""Of a request: room for all texts that a request may carry, in ASCII or not."""

MAX_BODIES_BYTES = 16 * MAX_BODY_BYTES
"""Of all requests that are being read or answered: memory has an end, and clients may have many
connections."""

JSON = "application/json"
BINARY = "application/octet-stream"


class Room:
    """Room for the bodies of all requests that are being read or answered; of one event loop."""

    def __init__(self) -> None:
        """Begin empty."""
        self.held_bytes = 0


class Held:
    """What the body of one request holds of the room; a context that gives it back."""

    __slots__ = ("_bytes", "_room")

    def __init__(self, room: Room) -> None:
        """Hold nothing yet."""
        self._room, self._bytes = room, 0

    def __enter__(self) -> None:
        """Begin; ``take`` is for within."""

    def __exit__(self, *_: object) -> None:
        """Give back what was taken."""
        self._room.held_bytes -= self._bytes

    def take(self, size: int) -> None:
        """Take room for bytes that came; what a client only announces takes none.

        Raises:
            Refused: there is not so much left.
        """
        if self._room.held_bytes + size > MAX_BODIES_BYTES:
            raise Refused(429, "too many large requests at once; try again later", 1)
        self._room.held_bytes += size
        self._bytes += size


async def read(headers: Headers, receive: Receive, held: Held, timeout_s: float) -> bytes:
    """Return the body of a request.

    Raises:
        Refused: it is too large, breaks off, does not come in time, is compressed (status 415,
            RFC 9110, 15.5.16), or there is no room.
    """
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() != b"identity":
        raise Refused(415, "a compressed body is not read; send it without Content-Encoding")
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(timeout_s):
            return await _whole(receive, held)
    except TimeoutError as error:
        raise Refused(408, f"the body did not come within {timeout_s:g} seconds") from error


async def _whole(receive: Receive, held: Held) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the body ends too early")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise _too_large()
        held.take(len(parts[-1]))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def require_type(headers: Headers, *accepted: str) -> None:
    """Refuse a body of another type.

    Raises:
        Refused: with status 415.
    """
    given = headers.get(b"content-type", b"").decode("latin-1")
    if given.partition(";")[0].strip().lower() not in accepted:
        raise Refused(415, f"send the body with the header Content-Type: {' or '.join(accepted)}")


def _too_large() -> Refused:
    return Refused(413, f"a body may have {MAX_BODY_BYTES} bytes")
