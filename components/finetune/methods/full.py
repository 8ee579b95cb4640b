"""Full fine-tuning: every weight learns."""

from __future__ import annotations

from components.finetune.job import Job, Outcome
from components.finetune.loop import Phase


def fit(job: Job) -> Outcome:
    """Train all weights."""
    history = job.training([Phase(0, job.config.epochs)]).run()
    return Outcome(job.model, history)
