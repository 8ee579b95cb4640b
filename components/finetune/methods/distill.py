"""A smaller student learns from a larger teacher's answers, and from the labels.

Hinton et al. 2015, https://arxiv.org/abs/1503.02531; the student starts from every
n-th layer of the network that it is cut out of, as DistilBERT does (Sanh et al. 2019,
https://arxiv.org/abs/1910.01108).
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace

import numpy as np
import torch

from components.errors import ConfigError
from components.finetune.feed import PREDICT_ROWS
from components.finetune.history import Watcher
from components.finetune.job import Job, Outcome
from components.finetune.loop import Phase
from components.finetune.optimization import device_of
from components.tasks.model import Model, length_order

STUDENT_SHARE = 1 / 2


def fit(job: Job) -> Outcome:
    """Train a student of ``distill.layers``.

    The teacher is the one given, if it is larger than the student; otherwise method
    ``full`` trains one from the base first. A champion that is as small as the student
    is where the student starts.

    Raises:
        ConfigError: no network of so many layers can be made, or the teacher that the
            project names cannot be one.
    """
    job.require_layers()
    start, base = job.model, functools.cache(job.fresh)
    layers = job.config.distill.layers
    if layers is None:
        layers = max(1, round(base().network.layers * STUDENT_SHARE))
    source = start if start.network.layers >= layers else base()
    student = _cut(source, layers)
    teacher, note = job.teacher, "learned from the given teacher"
    if teacher is not None and (reason := _unfit(teacher, student)):
        if job.config.distill.teacher != "champion":
            raise ConfigError(
                f"finetune.distill.teacher: {job.config.distill.teacher} {reason}; name a "
                "larger one, or none, and one is trained"
            )
        teacher = None
    learner, rows, tokens = job.with_model(source), 0, 0
    if teacher is None:
        note = "learned from a teacher trained for it"
        teacher = source
        if student is source:
            teacher = base() if source is start else job.fresh()
            if teacher.network.layers <= layers:
                note = "the base has no more layers than the student: learned from its equal"
        tutor = replace(job.with_model(teacher), watcher=_Apart(job.watcher))
        taught = tutor.training([Phase(0, job.config.epochs)], name="teacher", keep_end=True).run()
        rows, tokens = taught.rows, taught.tokens
        if teacher is source:  # its layers have learned meanwhile
            student = _cut(source, layers)
    network = student.network
    if student.fits_head:
        own, tutors = network.get_submodule("head"), teacher.network.get_submodule("head")
        own.load_state_dict(tutors.state_dict())
    learner = replace(learner, model=student)
    outputs = teacher_outputs(teacher, learner)
    history = learner.training([Phase(0, job.config.epochs)], teacher=outputs).run()
    history.rows += rows
    history.tokens += tokens
    return Outcome(student, history, note=note)


def _cut(source: Model, layers: int) -> Model:
    """Return a model with so many of the layers of another, which stays as it is.

    Raises:
        ConfigError: the network has fewer, or cannot do without so many.
    """
    has = source.network.layers
    if has == layers:
        return source
    student = copy.copy(source)
    student.facts = dict(source.facts)
    student.network = source.network.shrunk(min(layers, has))
    if student.network.layers != layers:
        fewest = student.network.layers
        reason = f"cannot be cut down to fewer than {fewest}" if fewest < has else "has no more"
        raise ConfigError(
            f"finetune.distill.layers is {layers}, but the network it is cut out of has {has} "
            f"layers and {reason}"
        )
    return student


def _unfit(teacher: Model, student: Model) -> str:
    """Say why a model cannot teach a student; empty if it can."""
    if teacher.network.outputs != student.network.outputs:
        return (
            f"has outputs of width {teacher.network.outputs}, and the student of "
            f"{student.network.outputs}"
        )
    # A network in one piece says nothing of its layers, and may be as large as it likes.
    if 0 < teacher.network.layers <= student.network.layers:
        return f"has {teacher.network.layers} layers, and the student {student.network.layers}"
    return ""


def teacher_outputs(teacher: Model, job: Job) -> torch.Tensor:
    """Return a teacher's outputs for the training rows, in the student's order, ``[n, k]``.

    The teacher reads the rows in its own way: its tokens, its size of images.
    """
    examples = teacher.encode(job.train.contents)
    order = length_order(examples)
    device = device_of(job.config)
    teacher.network.to(device).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), PREDICT_ROWS):
            rows = [examples[row] for row in order[start : start + PREDICT_ROWS]]
            inputs = (each.to(device) for each in teacher.collate(rows))
            parts.append(teacher.network(*inputs).float().cpu())
    teacher.network.to("cpu")  # the student needs the room
    outputs = torch.cat(parts)[torch.from_numpy(np.argsort(order))].clone()
    if len(teacher.answer_names) == outputs.shape[1]:
        place = [teacher.answer_names.index(name) for name in job.model.answer_names]
        outputs = outputs[:, place]
    return outputs


@dataclass(frozen=True)
class _Apart:
    """Tells of a teacher under other names than of its student."""

    watcher: Watcher

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.watcher.metrics({f"teacher_{name}": each for name, each in values.items()}, step)

    def progress(self, done: int, total: int, what: str) -> None:
        self.watcher.progress(done, total, f"teacher: {what}")
