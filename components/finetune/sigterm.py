"""How a step learns that its machine is taken away."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told_to_stop() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets while the block runs, in place of ending the process."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told  # signals reach the main thread only
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)
