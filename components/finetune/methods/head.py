"""Feature extraction: the backbone is frozen, its features computed once, the head learns.

A linear head on fixed features is a logistic regression, which mini-batches find in
seconds (Razavian et al. 2014, https://arxiv.org/abs/1403.6382).
"""

from __future__ import annotations

from components.finetune.job import Job, Outcome
from components.finetune.loop import Phase

PATIENCE_SHARE = 1 / 6
"""Cheap epochs are many and bring little each: so many of them may bring nothing."""


def fit(job: Job) -> Outcome:
    """Train the head on frozen features."""
    config = job.config
    patience = max(config.patience_epochs, round(config.head_epochs * PATIENCE_SHARE))
    cheap = job.with_config(patience_epochs=patience)
    history = cheap.training([Phase(job.model.network.depth, config.head_epochs)]).run()
    return Outcome(job.model, history)
