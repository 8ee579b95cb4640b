"""The lower layers are frozen and computed once; the upper ones and the head learn.

Lower layers hold what is common to most texts and images, and change least in full
fine-tuning (Lee et al. 2019, https://arxiv.org/abs/1911.03090).
"""

from __future__ import annotations

from components.finetune.job import Job, Outcome
from components.finetune.loop import Phase

FROZEN_SHARE = 2 / 3


def fit(job: Job) -> Outcome:
    """Train what is above ``frozen_layers``, by default two thirds of the layers."""
    job.require_layers()
    frozen = job.config.frozen_layers
    if frozen is None:
        frozen = round(job.model.network.layers * FROZEN_SHARE)
    history = job.training([Phase(job.cut_at(frozen), job.config.epochs)]).run()
    return Outcome(job.model, history)
