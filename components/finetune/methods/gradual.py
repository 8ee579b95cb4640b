"""Gradual unfreezing: from the head down, epoch by epoch, so that little is forgotten.

Howard & Ruder 2018, https://arxiv.org/abs/1801.06146. What is still frozen is computed
once for each stretch of epochs, so that the first ones are cheap.
"""

from __future__ import annotations

import itertools

from components.finetune.job import Job, Outcome
from components.finetune.loop import Phase


def fit(job: Job) -> Outcome:
    """Train the head in the first epoch, and all but ``frozen_layers`` in the last."""
    job.require_layers()
    last = job.cut_at(job.config.frozen_layers or 0)
    cuts = cuts_by_epoch(job.model.network.depth, last, job.config.epochs)
    phases = [Phase(cut, len(list(epochs))) for cut, epochs in itertools.groupby(cuts)]
    # An early epoch that brings nothing is no reason to stop: more is unfrozen next.
    patient = job.with_config(patience_epochs=len(cuts))
    history = patient.training(phases).run()
    return Outcome(job.model, history)


def cuts_by_epoch(depth: int, last: int, epochs: int) -> list[int]:
    """Return the cut of each epoch, from ``depth`` down to ``last`` in even steps."""
    if epochs == 1:
        return [last]
    return [round(depth - (depth - last) * epoch / (epochs - 1)) for epoch in range(epochs)]
