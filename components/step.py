"""What happens around the work of every step: structured lines, and errors in one line.

A line on standard output is one JSON object with ``step``, ``event`` and ``at``;
everything else a step prints belongs to the libraries that it uses. The local
runner draws its table from these lines, a cluster's log collector indexes them.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from components.attempts import Attempt
from components.errors import TokiwaError

PROGRESS_EVERY_S = 0.5


class Report(Protocol):
    """A section with a headline."""

    @property
    def headline(self) -> str:
        """The one thing to see."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Return the content as JSON-able values."""


@dataclass
class Log:
    """Writes the structured lines of one step of one run."""

    step: str
    run: str = ""
    _last_progress_s: float = 0.0

    def line(self, event: str, **fields: Any) -> None:
        """Print one structured line."""
        record = {
            "tokiwa": 1,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "run": self.run,
            "step": self.step,
            "event": event,
            **fields,
        }
        print(json.dumps(record, ensure_ascii=False), flush=True)

    def progress(self, done: int, total: int, what: str) -> None:
        """Say how far the step is; at most twice a second, and always at the end."""
        now_s = time.monotonic()
        if done >= total or now_s - self._last_progress_s >= PROGRESS_EVERY_S:
            self._last_progress_s = now_s
            self.line("progress", done=done, total=total, what=what)

    def hand_over(self, report: Report, path: str) -> None:
        """Write a step's report as JSON, and say the one thing that a person wants to see."""
        record = {"headline": report.headline, **report.model_dump(mode="json")}
        Path(path).write_text(json.dumps(record, ensure_ascii=False, sort_keys=True))
        self.line("headline", text=report.headline, report=path)


def as_json(value: Any) -> str:
    """Return indented JSON of metadata that kfp keeps with an artifact."""
    return json.dumps(value, indent=2, sort_keys=True, default=str)


@contextmanager
def running(step: str) -> Iterator[Log]:
    """Run the body of a step: announce it, and turn an error into one line.

    A ``TokiwaError`` ends the process with its exit code and without a traceback;
    anything else is a bug, keeps its traceback in the log, and ends with 1. After a mistake,
    a further attempt in the same run ends as the one before it, without running the body.
    """
    log = Log(step, os.environ.get("TOKIWA_RUN", ""))
    log.line("started")
    attempt = Attempt.current(log.run)
    if attempt and (known := attempt.before()):
        log.line("failed", error=f"not tried again: {known.error}", exit_code=known.exit_code)
        sys.exit(known.exit_code)
    try:
        yield log
    except Exception as error:
        said, exit_code = f"{type(error).__name__}: {error}", 1
        if isinstance(error, TokiwaError):
            said, exit_code = str(error), error.exit_code
        else:
            traceback.print_exc(file=sys.stdout)
        if attempt:
            attempt.note(error, said, exit_code)
        log.line("failed", error=said, exit_code=exit_code)
        sys.exit(exit_code)
    log.line("finished")
