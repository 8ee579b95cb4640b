"""One run at a time writes an output."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from components.errors import WorldError


@contextmanager
def only_writer(lock: Path, output: str) -> Iterator[None]:
    """Be the only process that writes an output for as long as the context is open.

    The kernel holds the lock (``flock``) and lets it go when the process ends, however it
    ends: what a killed run leaves locks nobody out.

    Args:
        lock: a file that stands for the output; made, and deleted at the end.
        output: for people.

    Raises:
        WorldError: another process is at it, or the file system has no locks.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = _held(lock, output)
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _held(lock: Path, output: str) -> IO[str]:
    while True:
        file = lock.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass  # its holder ended, and deleted it, since it was opened
        except BlockingIOError as error:
            file.seek(0)
            who = file.read() or "another process"
            file.close()
            raise WorldError(
                f"{who} is writing {output}; wait until it has ended, or choose another output"
            ) from error
        except OSError as error:
            file.close()
            raise WorldError(
                f"cannot lock {lock}: {error.strerror}; where the file system has no locks, two "
                f"runs may mix their rows in {output}: choose an output on another"
            ) from error
        file.close()
