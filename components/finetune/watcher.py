"""Where training metrics go while a model learns: MLflow and the step's own log."""

from __future__ import annotations

from dataclasses import dataclass

from components.registry import RunLogger
from components.step import Log


@dataclass(frozen=True)
class LiveWatcher:
    """Sends metrics to an MLflow run and progress to the log."""

    log: Log
    run: RunLogger

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Record metrics at an optimizer step."""
        self.run.metrics(values, step)

    def progress(self, done: int, total: int, what: str) -> None:
        """Say how far training is."""
        self.log.progress(done, total, what)
