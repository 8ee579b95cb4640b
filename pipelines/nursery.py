"""Steps as processes that are born with their libraries: ``python -m pipelines.nursery FD``.

kfp starts an interpreter for each step of a local run, which imports torch, pandas and others
for seconds before it works for one. Here one process imports them, whenever it has nothing else
to do, and forks for each step. What runs in the child is kfp's own executor, with the same
arguments, environment and output.

Only on Linux: elsewhere libraries do not survive a fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LIGHT = ("kfp.dsl.executor_main", "components.resolve.core", "components.notify.core")
"""What the steps import that nothing answers from the cache."""
HEAVY = (
    "components.ingest.core",
    "components.validate.core",
    "pandera.pandas",
    "torch",
    "components.tasks.text_classification",
    "components.prepare.core",
    "components.embeddings",
    "transformers",
    "transformers.models.auto",
    "safetensors.torch",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "scipy.stats",
    "sklearn.linear_model",
    "components.finetune.core",
    "components.evaluate.core",
    "components.drift.core",
    "components.trigger.core",
)
"""What the others import, in the order in which a graph needs it. No library that starts threads
of its own: onnxruntime waits at its end for one that the child does not have."""
WORKING = {"ingest", "validate", "summarize", "collect"}
"""Steps after which others follow that are not cached either."""

_LENGTH = struct.Struct("!I")


@contextlib.contextmanager
def forked_steps() -> Iterator[None]:
    """Let kfp's ``SubprocessRunner`` fork steps, in this block."""
    from kfp.local import subprocess_task_handler

    if sys.platform != "linux":
        yield
        return
    started = subprocess_task_handler.run_local_subprocess
    with Nursery() as nursery:
        subprocess_task_handler.run_local_subprocess = nursery.run_or(started)
        try:
            yield
        finally:
            subprocess_task_handler.run_local_subprocess = started


class Nursery:
    """The process that forks, seen from the one that asks it to."""

    def __enter__(self) -> Nursery:
        """Start it."""
        self._socket, theirs = socket.socketpair()
        self._asking = threading.Lock()
        with theirs:
            command = [sys.executable, "-m", "pipelines.nursery", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        return self

    def __exit__(self, *exception: object) -> None:
        """Let it end, which it does when nobody can ask it any more."""
        self._socket.close()
        self._process.wait()

    def run_or(self, started: Callable[..., int]) -> Callable[..., int]:
        """Return what runs a step's command by a fork, and any other as kfp does."""

        def run(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
            if len(full_command) < 4 or "ephemeral_component.py" not in full_command[2]:
                return started(full_command, env_vars)
            return self._run(full_command[3], full_command[4:], env_vars or {})

        return run

    def _run(self, source: str, arguments: Sequence[str], variables: Mapping[str, str]) -> int:
        """Run a component's source in a child; print what it prints, return its exit code."""
        wanted = {"source": source, "arguments": arguments, "variables": variables}
        request = json.dumps(wanted).encode()
        (said, say), (ended, end) = os.pipe(), os.pipe()
        with self._asking:
            socket.send_fds(self._socket, [_LENGTH.pack(len(request))], [say, end])
            self._socket.sendall(request)
        os.close(say)
        os.close(end)
        with os.fdopen(said, errors="replace") as lines:
            for line in lines:
                print(line, end="", flush=True)
        with os.fdopen(ended, "rb") as status:
            code = status.read()
        # Without an answer the nursery itself is gone, as after a lack of memory.
        return int(code) if code else 1


def main() -> None:
    """Import, fork and import on, until nobody can ask any more."""
    # Threads of linear algebra are no danger: OpenBLAS ends them before a fork.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    asked = socket.socket(fileno=int(sys.argv[1]))
    waiting, heavy = deque(LIGHT), [*HEAVY]
    children: dict[int, tuple[int, int]] = {}  # by what tells their end: process, answer
    while True:
        ready, _, _ = select.select([asked.fileno(), *children], [], [], 0 if waiting else None)
        for ended in set(ready) & set(children):
            process, end = children.pop(ended)
            _, status = os.waitpid(process, 0)
            os.write(end, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(end)
            os.close(ended)
        if asked.fileno() in ready:
            request = _received(asked)
            if request is None:
                return
            wanted, say, end = request
            if WORKING & {*wanted["arguments"]}:
                waiting.extend(heavy)
                heavy.clear()
            process = os.fork()
            if process == 0:
                asked.close()
                for number in (end, *children, *(each[1] for each in children.values())):
                    os.close(number)
                _become(wanted, say)
                return
            os.close(say)
            children[os.pidfd_open(process)] = (process, end)
        elif not ready and waiting:
            # A step that needs what cannot be imported says so itself.
            with contextlib.suppress(Exception):
                importlib.import_module(waiting.popleft())
            gc.freeze()


def _received(asked: socket.socket) -> tuple[dict[str, Any], int, int] | None:
    """Return the next request with where to print and where to tell the end, None after all."""
    header, numbers, _, _ = socket.recv_fds(asked, _LENGTH.size, 2)
    if not header:
        return None
    (length,) = _LENGTH.unpack(header)
    parts = b""
    while len(parts) < length:
        parts += asked.recv(length - len(parts))
    say, end = numbers
    return json.loads(parts), say, end


def _become(wanted: Mapping[str, Any], say: int) -> None:
    """Run a step in this process, as kfp's executor would in one of its own."""
    os.dup2(say, 1)
    os.dup2(say, 2)
    os.close(say)
    os.environ.update(wanted["variables"], _KFP_RUNTIME="true")
    from kfp.dsl.executor_main import executor_main

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ephemeral_component.py"
        file.write_text(wanted["source"])
        sys.argv = ["executor_main", "--component_module_path", str(file), *wanted["arguments"]]
        executor_main()


if __name__ == "__main__":
    main()
