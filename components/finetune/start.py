"""Where a training starts: from the champion or from a pretrained base, and from which.

Starts are compared by what a linear probe makes of their features on a sample of the
rows: the cheapest look that says something about this task.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components import bundle
from components.finetune.batches import Examples
from components.settings import Section
from components.tasks import TASKS, TaskConfig
from components.tasks.model import Model

PROBE_ROWS = 600
"""Training rows that a probe sees at most, and validation rows that judge it."""
LENGTH_ROWS = 64
"""Rows that tell how long features are."""
TIE = 0.005
"""A champion's probe may be so much worse and still win: it has learned more than it shows."""


class Candidate(Section):
    """One place to start from, as a probe sees it."""

    name: str
    score: float
    """Of a linear probe on the validation rows, by the task's own metric."""
    log_evidence: float
    """LogME of the features and training targets; more is better."""
    parameters: int
    rows_per_second: float


@dataclass(frozen=True)
class Start:
    """Where training starts, and why there."""

    model: Model
    name: str
    reason: str
    candidates: tuple[Candidate, ...] = ()


def fitting_champion(
    champion: Path | None, task: TaskConfig, base_digest: str
) -> tuple[Model | None, str]:
    """Return the champion as a model to continue, or None and the reason why not.

    A champion that answers in other terms, or grew from another base, is not continued.
    """
    if champion is None:
        return None, "there is no champion yet"
    description = bundle.describe(champion)
    if description.task.kind != task.kind:
        return None, f"the champion is for {description.task.kind}"
    if description.lineage.get("base", base_digest) != base_digest:
        return None, "the champion grew from another base"
    model = TASKS[task.kind].load(champion)
    if not model.can_continue(task):
        return None, "the champion answers in other terms"
    model.configure(task)
    return model, "it continues what the champion knows"


def probe(name: str, model: Model, train: Examples, valid: Examples) -> Candidate:
    """Return what a linear probe makes of a model's features."""
    import time

    started_s = time.perf_counter()
    features = features_of(model, train)
    seconds = max(1e-9, time.perf_counter() - started_s)
    valid_features = features_of(model, valid)
    score = probe_score(model, features, train.targets, valid_features, valid.targets)
    return Candidate(
        name=name,
        score=score,
        log_evidence=log_evidence(features, train.targets),
        parameters=sum(weight.numel() for weight in model.network.parameters()),
        rows_per_second=len(train) / seconds,
    )


def start_head(
    model: Model, train: Examples, vectors: NDArray[np.float32], targets: NDArray[Any]
) -> None:
    """Give a new head the weights of a linear probe.

    Linear probing, then fine-tuning: Kumar et al. 2022, https://arxiv.org/abs/2202.10054.

    Args:
        model: with a linear head on what its base makes of rows.
        train: rows, a few of which tell how long the features are.
        vectors: the base's features of the rows to fit, of length one, ``[n, d]``.
        targets: of these rows, ``[n]``.
    """
    import torch

    few = features_of(model, sample(train, LENGTH_ROWS, 0))
    length = float(np.linalg.norm(few, axis=1).mean())
    weights, bias = model.probe_head(vectors, targets)
    head: Any = model.network.get_submodule("head")
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights / length))
        head.bias.copy_(torch.from_numpy(bias))


def sample(rows: Examples, count: int, seed: int) -> Examples:
    """Return at most ``count`` of the rows, drawn at random."""
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(len(rows))[:count]] = True
    return rows.where(chosen)


def features_of(model: Model, rows: Examples) -> NDArray[np.float64]:
    """Return what a model's head reads, ``[n, d]``."""
    import torch

    from components.finetune.loop import frozen_states

    device = next(model.network.parameters()).device
    off = torch.autocast(device.type, enabled=False)
    depth = model.network.depth
    states = frozen_states(model, rows.examples, depth, device, off)
    if states and states[0].ndim > 1:  # a head of its own reads token states
        states = [state.mean(0) for state in states]
    return torch.stack(states).double().numpy()


def probe_score(
    model: Model,
    train: NDArray[np.float64],
    targets: NDArray[np.float64] | NDArray[np.int64],
    valid: NDArray[np.float64],
    valid_targets: NDArray[np.float64] | NDArray[np.int64],
) -> float:
    """Return the score of a linear model on features, by the task's own metric."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    train, valid = scaler.transform(train), scaler.transform(valid)
    if model.fits_head:
        distance = np.square(valid).sum(1)
        limit = np.quantile(np.square(train).sum(1), 0.95)
        score = distance / (distance + limit)
        return model.scores(valid_targets, np.stack([1 - score, score], 1))[model.metric]
    if np.issubdtype(targets.dtype, np.floating):
        values = Ridge(alpha=10.0).fit(train, targets).predict(valid)
        return model.scores(valid_targets, values[:, None])[model.metric]
    fitted = LogisticRegression(C=0.1, max_iter=300, random_state=0).fit(train, targets)
    answers = np.zeros((len(valid), len(model.answer_names)))
    answers[:, fitted.classes_] = fitted.predict_proba(valid)
    return model.scores(valid_targets, answers)[model.metric]


def log_evidence(
    features: NDArray[np.float64], targets: NDArray[np.float64] | NDArray[np.int64]
) -> float:
    """Return LogME: the log evidence of a Bayesian linear model per row, mean over targets.

    You et al. 2021, https://arxiv.org/abs/2102.11005, by the fixed point of its
    algorithm 1 on the singular values of the features.
    """
    columns = (
        targets[:, None].astype(np.float64)
        if np.issubdtype(targets.dtype, np.floating)
        else (targets[:, None] == np.unique(targets)).astype(np.float64)
    )
    rows, width = features.shape
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    squares = np.square(singular)
    evidences = []
    for column in columns.T:
        onto = np.square(left.T @ column)
        rest = max(float(column @ column - onto.sum()), 0.0)
        alpha, beta = 1.0, 1.0
        for _ in range(100):
            ratio = alpha / beta
            gamma = float((squares / (squares + ratio)).sum())
            weight = float((squares * onto / np.square(squares + ratio)).sum())
            residual = rest + float((onto / np.square(1 + squares / ratio)).sum())
            new_alpha = gamma / max(weight, 1e-12)
            new_beta = (rows - gamma) / max(residual, 1e-12)
            settled = abs(new_alpha / new_beta - ratio) <= 1e-3 * ratio
            alpha, beta = new_alpha, new_beta
            if settled:
                break
        evidence = (
            width * np.log(alpha)
            + rows * np.log(beta)
            - float(np.log(alpha + beta * squares).sum())
            - (width - len(squares)) * np.log(alpha)
            - beta * residual
            - alpha * weight
            - rows * np.log(2 * np.pi)
        ) / 2
        evidences.append(evidence / rows)
    return float(np.mean(evidences))


def choose_start(
    champion: Model, base: Model, train: Examples, valid: Examples, seed: int
) -> Start:
    """Return champion or base, whichever serves a linear probe better on a sample."""
    rows, judges = sample(train, PROBE_ROWS, seed), sample(valid, PROBE_ROWS, seed)
    mine = probe("champion", champion, rows, judges)
    other = probe("base", base, rows, judges)
    wins = mine.score >= other.score - TIE
    word = "at least as well as" if wins else "worse than"
    reason = (
        f"a linear probe on the champion's features scores {mine.score:.3f}, "
        f"{word} {other.score:.3f} on those of the base"
    )
    chosen = (champion, "champion") if wins else (base, "base")
    return Start(*chosen, reason, (mine, other))
