"""A smaller student learns from a larger teacher's answers, and from the labels.

Hinton et al. 2015, https://arxiv.org/abs/1503.02531; the student starts from every
n-th layer of the network that it is cut out of, as DistilBERT does (Sanh et al. 2019,
https://arxiv.org/abs/1910.01108).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from components.finetune.job import Job, Outcome
from components.finetune.loop import Phase
from components.finetune.methods import full
from components.tasks.model import Model, length_order

STUDENT_SHARE = 1 / 2


def fit(job: Job) -> Outcome:
    """Train a student of ``distill.layers``.

    The teacher is the one given, if it is larger than the student; otherwise method
    ``full`` trains one from the base first. A champion that is as small as the student
    is where the student starts.
    """
    job.require_layers()
    start, teacher = job.model, job.teacher
    layers = job.config.distill.layers
    size = start.network.layers
    if layers is None:
        layers = max(1, round(job.fresh().network.layers * STUDENT_SHARE))
    note = "learned from the given teacher"
    if teacher is None or teacher.network.layers <= layers:
        larger = start if size > layers else job.fresh()
        if larger.network.layers <= layers:
            note = "the base has no more layers than the student: learned from its equal"
        else:
            note = "learned from a teacher trained for it"
        tutor = replace(job, model=larger, checkpoints=lambda name: job.checkpoints("teacher"))
        teacher = full.fit(tutor).model
    student = start if size <= layers else _student(job, layers)
    network = student.network
    if student.fits_head:
        own, tutors = network.get_submodule("head"), teacher.network.get_submodule("head")
        own.load_state_dict(tutors.state_dict())
    outputs = teacher_outputs(teacher, student, job)
    learner = replace(job, model=student)
    history = learner.training([Phase(0, job.config.epochs)], teacher=outputs).run()
    return Outcome(student, history, note=note)


def _student(job: Job, layers: int) -> Model:
    """Return a model with some of the layers of the job's own, which stays as it is."""
    student = job.fresh()
    student.facts = dict(job.model.facts)
    student.network = job.model.network.shrunk(layers)
    return student


def teacher_outputs(teacher: Model, student: Model, job: Job) -> torch.Tensor:
    """Return the teacher's outputs for the training rows, in the student's order ``[n, k]``."""
    examples = job.train.examples
    order = length_order(examples)
    device = next(teacher.network.parameters()).device
    teacher.network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            rows = [examples[row] for row in order[start : start + 64]]
            inputs = (each.to(device) for each in teacher.collate(rows))
            parts.append(teacher.network(*inputs).float().cpu())
    outputs = torch.cat(parts)[torch.from_numpy(np.argsort(order))].clone()
    if len(teacher.answer_names) == outputs.shape[1]:
        place = [teacher.answer_names.index(name) for name in student.answer_names]
        outputs = outputs[:, place]
    return outputs
