"""A challenger in a process of its own: it may crash, hang or grow, and nobody else notices.

The server speaks to it over a pair of sockets, in frames of four bytes of length and a JSON
object. The process says ``{"ready": true}`` once it is loaded and warm, and then answers
``{"id": 7, "contents": [...]}`` with ``{"id": 7, "predictions": [...]}``, or with ``error``.
It ends when the server does, for then its socket does.

``python -m components.serve.challenger`` is that process; ``Challenger`` is the server's end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import queue
import socket
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from components.errors import SourceError, StoreError
from components.serve.model import MAX_CONTENTS, BundleModel, Predicted, Prediction, loader

MAX_FRAME_BYTES = 64 * 2**20
MAX_PENDING = 64
"""Requests that a challenger may have at once; it is given no more."""
STOP_S = 2.0
MEMORY_EVERY_S = 0.1
REFUSED = "refused"
"""Of a failure that is the client's, if the champion refuses the request as well."""
STORE_AWAY = "cannot be fetched"
"""Of a process that could not load because of the store: no fault of the challenger."""
_LENGTH = struct.Struct(">I")
_SUM_TOLERANCE = 1e-2


class Failure(Exception):
    """The challenger gave no good answer; ``kind`` says in a word or two what went wrong."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


def command_of(store_url: str, form: str, digest: str) -> list[str]:
    """Return the command of a challenger's process, but for the number of its socket."""
    what = ["--store", store_url, "--form", form, "--bundle", digest]
    return [sys.executable, "-m", "components.serve.challenger", *what]


class Challenger:
    """The server's end; all methods belong to one event loop.

    Attributes:
        is_ready: whether it may be asked.
        trouble: why it ended, empty while it has not.
        peak_bytes: the most memory that it was seen to hold.
    """

    def __init__(
        self, command: Sequence[str], form: Prediction, *, memory_mib: int, deadline_s: float
    ) -> None:
        """Name the process; it is not started yet.

        Args:
            command: ``--fd N`` is added to it.
            form: a prediction of the champion; good ones look like it.
            memory_mib: resident memory above which the process is ended.
            deadline_s: for each answer.
        """
        self.is_ready = False
        self.trouble = ""
        self.peak_bytes = 0
        self._command, self._form = list(command), form
        self._memory_bytes, self._deadline_s = memory_mib * 2**20, deadline_s
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._ready: asyncio.Future[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, within_s: float) -> None:
        """Start the process and wait until it is loaded.

        Raises:
            Failure: it ended, or is not ready in time.
        """
        ours, theirs = socket.socketpair()
        try:
            self._ready = asyncio.get_running_loop().create_future()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--fd",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C in the server's terminal is the server's.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise Failure("does not start", str(error)) from error
        finally:
            theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._tasks = [
            asyncio.create_task(self._read(reader)),
            asyncio.create_task(self._watch_memory(self._process.pid)),
        ]
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), within_s)
        except TimeoutError:
            await self.stop()
            raise Failure("is not loaded in time", f"{within_s:g} s") from None
        except (Failure, asyncio.CancelledError):
            await self.stop()
            raise
        self.is_ready = True

    async def ask(self, contents: Sequence[str]) -> Predicted:
        """Return one prediction for each content, and which were too long.

        Raises:
            Failure: there is no good answer in time.
        """
        if not self.is_ready or self._writer is None:
            raise Failure("died", self.trouble)
        if len(self._pending) >= MAX_PENDING:
            raise Failure("busy")
        self._count += 1
        number, answer = self._count, asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            self._writer.write(_frame({"id": number, "contents": list(contents)}))
            async with asyncio.timeout(self._deadline_s):
                await self._writer.drain()
                content = await answer
        except TimeoutError:
            raise Failure("late", f"{self._deadline_s:g} s") from None
        except OSError as error:
            raise Failure("died", str(error)) from error
        finally:
            self._pending.pop(number, None)
        if "refused" in content:
            raise Failure(REFUSED, str(content["refused"])[:200])
        if "error" in content:
            raise Failure("error", str(content["error"])[:200])
        cut = content.get("truncated", [])
        try:
            predictions = checked(content.get("predictions"), len(contents), self._form)
            if not isinstance(cut, list) or not set(cut) <= set(range(len(contents))):
                raise Failure("not an answer", "truncated")
        except (TypeError, OverflowError) as error:  # lists as keys, numbers beyond all floats
            raise Failure("not an answer", str(error)) from error
        return Predicted(predictions, cut)

    async def stop(self) -> None:
        """End the process, by force if need be."""
        self._end("stopped")
        process, self._process = self._process, None
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_S)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hand out answers until the socket ends, or holds what is none."""
        why = "died"
        try:
            while True:
                head = await reader.readexactly(_LENGTH.size)
                (length,) = _LENGTH.unpack(head)
                if length > MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of {length} bytes")
                content = json.loads(await reader.readexactly(length))
                if not isinstance(content, dict):
                    raise ValueError("a frame that is no object")
                self._take(content)
        except (asyncio.IncompleteReadError, OSError):
            why = await self._cause_of_death()
        except (ValueError, TypeError, RecursionError) as error:
            why = f"wrong protocol: {error}"
        self._end(why)
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def _take(self, content: dict[str, Any]) -> None:
        if "ready" in content:
            if self._ready is not None and not self._ready.done():
                if content["ready"] is True:
                    self._ready.set_result(None)
                else:
                    kind = STORE_AWAY if content.get("away") else "does not load"
                    self._ready.set_exception(Failure(kind, str(content["ready"])[:300]))
            return
        answer = self._pending.get(content.get("id", 0))
        if answer is not None and not answer.done():
            answer.set_result(content)

    async def _cause_of_death(self) -> str:
        assert self._process is not None
        with suppress(TimeoutError):
            code = await asyncio.wait_for(self._process.wait(), STOP_S)
            return f"died with exit code {code}"
        return "closed its socket"

    async def _watch_memory(self, pid: int) -> None:
        """End the process when it has grown too large; where there is no /proc, do nothing."""
        while not self.trouble:
            resident = resident_bytes(pid)
            if resident is None:
                return
            self.peak_bytes = max(self.peak_bytes, resident)
            if resident > self._memory_bytes:
                mib = resident // 2**20
                self._end(f"too much memory: {mib} MiB of {self._memory_bytes // 2**20} MiB")
                if self._process is not None:
                    with suppress(ProcessLookupError):
                        self._process.kill()
                return
            await asyncio.sleep(MEMORY_EVERY_S)

    def _end(self, why: str) -> None:
        self.is_ready = False
        self.trouble = self.trouble or why
        failure = Failure(*_parted(self.trouble))
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(failure)
            self._ready.exception()  # perhaps nobody waits any more
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(failure)
        if self._writer is not None:
            self._writer.close()


def _parted(trouble: str) -> tuple[str, str]:
    kind, _, detail = trouble.partition(": ")
    return kind, detail


def resident_bytes(pid: int) -> int | None:
    """Return the memory that a process holds, None if that cannot be known."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def checked(predictions: object, rows: int, form: Mapping[str, Any]) -> list[Prediction]:
    """Return predictions if they are what a client may get.

    Args:
        predictions: what a challenger answered.
        rows: how many were asked for.
        form: a good prediction.

    Raises:
        Failure: another number, other keys or types, no finite numbers, no probabilities.
    """
    if not isinstance(predictions, list) or len(predictions) != rows:
        found = len(predictions) if isinstance(predictions, list) else "no list"
        raise Failure("wrong number of answers", f"{found} for {rows}")
    for each in predictions:
        if not isinstance(each, dict) or not _alike(each, form):
            raise Failure("not an answer", str(each)[:100])
        shares = each.get("probabilities")
        if isinstance(shares, dict) and (
            min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > _SUM_TOLERANCE
        ):
            raise Failure("not an answer", "probabilities that are none")
        if each.get("label") is not None and shares and each["label"] not in shares:
            raise Failure("not an answer", "an unknown label")
    return predictions


def _alike(value: object, form: object) -> bool:
    """Tell whether a value has the keys and types of another."""
    if isinstance(form, dict):
        return (
            isinstance(value, dict)
            and value.keys() == form.keys()
            and all(_alike(value[key], form[key]) for key in form)
        )
    if isinstance(form, bool):
        return isinstance(value, bool)
    if isinstance(form, int | float):
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    return value is None or isinstance(value, str)


def _frame(content: Mapping[str, Any]) -> bytes:
    data = json.dumps(content).encode()
    return _LENGTH.pack(len(data)) + data


# --- the process ---------------------------------------------------------------------------


def main() -> None:
    """Load a bundle, say so, and answer until the socket ends."""
    parser = argparse.ArgumentParser(prog="python -m components.serve.challenger")
    for name in ("--store", "--form", "--bundle", "--fd"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    _be_the_first_to_go()
    channel = socket.socket(fileno=int(given.fd))
    stream, replies = channel.makefile("rb"), channel.makefile("wb")
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(stream, requests), daemon=True).start()
    from components.store import open_store

    try:
        model = loader(given.form)(open_store(given.store), given.bundle)
        model.warm_up()
    except Exception as error:  # whatever it is: the server wants to know why
        away = isinstance(error, StoreError)
        _send(replies, {"ready": f"{type(error).__name__}: {error}", "away": away})
        sys.exit(1)
    _send(replies, {"ready": True})
    while True:
        for reply in _replies_to(model, _waiting(requests)):
            _send(replies, reply)


def _be_the_first_to_go() -> None:
    """Where memory runs out, let the kernel end this process and not the server."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _receive(stream: IO[bytes], requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    try:
        while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
            requests.put(json.loads(stream.read(_LENGTH.unpack(head)[0])))
    finally:
        os._exit(0)  # the server is gone, whatever the model is doing


def _waiting(requests: queue.SimpleQueue[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the requests that wait, at least one, to be answered as one batch."""
    batch = [requests.get()]
    while sum(len(each["contents"]) for each in batch) < MAX_CONTENTS:
        try:
            batch.append(requests.get_nowait())
        except queue.Empty:
            break
    return batch


def _replies_to(model: BundleModel, batch: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    contents = [content for each in batch for content in each["contents"]]
    try:
        said = model.respond(contents)
    except Exception as error:
        if len(batch) > 1:
            # One request's bad content is no other's.
            return [reply for each in batch for reply in _replies_to(model, [each])]
        kind = "refused" if isinstance(error, SourceError) else "error"
        return [{"id": batch[0]["id"], kind: f"{type(error).__name__}: {error}"}]
    replies, start = [], 0
    for each in batch:
        end = start + len(each["contents"])
        cut = [place - start for place in said.truncated if start <= place < end]
        predictions = said.predictions[start:end]
        replies.append({"id": each["id"], "predictions": predictions, "truncated": cut})
        start = end
    return replies


def _send(stream: IO[bytes], content: Mapping[str, Any]) -> None:
    stream.write(_frame(content))
    stream.flush()


if __name__ == "__main__":
    main()
