"""Where a training starts: from the champion or from a pretrained base, and from which.

Starts are compared by what a linear probe makes of their features on a sample of the
rows: the cheapest look that says something about this task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components import bundle
from components.errors import ConfigError
from components.finetune.batches import Examples
from components.finetune.config import CHAMPION, ChooseBaseConfig, FinetuneConfig
from components.finetune.history import Watcher
from components.model_card import licence_of
from components.plan import Base
from components.settings import Section
from components.tasks import TASKS, TaskConfig
from components.tasks.model import Model

PROBE_ROWS = 600
"""Training rows that a probe sees at most, and validation rows that judge it."""
CLASS_ROWS = 10
"""Rows of each class that a probe sees at least, where there are so many."""
LENGTH_ROWS = 64
"""Rows that tell how long features are."""
LATENCY_ROWS = 20
"""Rows that are answered one at a time to see how long one takes."""
WARM_UP_ROWS = 3
ALONG = 0.999
"""Cosine above which two vectors are the same but for rounding."""


class Candidate(Section):
    """One place to start from, and what was found out about it."""

    name: str
    """``champion``, or the place of a pretrained model."""
    licence: str = ""
    megabytes: float | None = None
    """Of the weights on disk."""
    parameters: int | None = None
    score: float | None = None
    """Of a linear probe on the validation rows, by the task's own metric."""
    log_evidence: float | None = None
    """LogME of the features and training targets; more is better."""
    rows_per_second: float | None = None
    latency_ms: float | None = None
    """To answer one row, in the median."""
    left_out: str = ""
    """Why it may not be chosen."""


class Start(Section):
    """Where a training starts, and why there."""

    name: Literal["base", "champion"]
    base: Base
    """The pretrained model that is behind it either way."""
    reason: str
    candidates: tuple[Candidate, ...] = ()
    """What was compared, empty if nothing was."""


def choose(
    prepared: Path,
    bases: Sequence[Base],
    champion: Path | None,
    task: TaskConfig,
    config: FinetuneConfig,
    watcher: Watcher,
) -> Start:
    """Return where to start; the rows are looked at only where there is a choice.

    Args:
        prepared: folder that ``prepare`` wrote.
        bases: the pretrained models that may be taken.
        champion: bundle in production, or None.
        task: what to learn.
        config: the section ``finetune``.
        watcher: told how far the comparison is.

    Raises:
        BundleError: a base or the champion does not load.
        ConfigError: none of the bases may be taken.
    """
    grown, reason = None, "finetune.start says so"
    if config.start != "base":
        grown, reason = fitting_champion(champion, task, bases)
    if grown is not None and config.start == "champion":
        return Start(name="champion", base=grown, reason=reason)
    if grown is None and len(bases) == 1 and not _has_limits(config.choose_base):
        return Start(name="base", base=bases[0], reason=reason)
    return _compared(prepared, bases, champion, grown, task, config, watcher)


def fitting_champion(
    champion: Path | None, task: TaskConfig, bases: Sequence[Base]
) -> tuple[Base | None, str]:
    """Return the base that the champion grew from, or None if it is not to be continued, and why.

    A champion that answers in other terms, or grew from none of the bases, is not continued;
    one that was adopted grew from an unknown one, and counts as one of the first.
    """
    if champion is None:
        return None, "there is no champion yet"
    description = bundle.describe(champion)
    if description.task.kind != task.kind:
        return None, f"the champion is for {description.task.kind}"
    grown_from = description.lineage.get("base", "")
    fitting = [base for base in bases if grown_from in ("", base.digest)]
    if not fitting:
        return None, "the champion grew from another base"
    if not TASKS[task.kind].load(champion).can_continue(task):
        return None, "the champion answers in other terms"
    return fitting[0], "it continues what the champion knows"


def continued(champion: Path, task: TaskConfig, config: FinetuneConfig) -> Model:
    """Return the champion as a model to go on training, as the project now says.

    Raises:
        BundleError: it does not load.
    """
    model = TASKS[task.kind].load(champion)
    model.configure(task, dropout=config.dropout)
    return model


def _has_limits(config: ChooseBaseConfig) -> bool:
    limits = (config.max_megabytes, config.max_latency_ms)
    return bool(config.licences) or any(limit is not None for limit in limits)


def _compared(
    prepared: Path,
    bases: Sequence[Base],
    champion: Path | None,
    grown: Base | None,
    task: TaskConfig,
    config: FinetuneConfig,
    watcher: Watcher,
) -> Start:
    """Return the champion or the base that serves a linear probe best, within the limits."""
    frame = pd.read_parquet(prepared / "rows.parquet")
    parts = [frame[frame["split"].isin(names)] for names in (("train", "rehearsal"), ("valid",))]

    def seen(load: Callable[[], Model], said: Candidate) -> Candidate:
        model = load()
        rows = [Examples.of(model, part) for part in parts]
        learnt = rows[0].where(model.trains_on(rows[0].targets))
        samples = [sample(each, PROBE_ROWS, config.seed) for each in (learnt, rows[1])]
        return probe(said, model, *samples)

    steps = len(bases) + (grown is not None)
    candidates: list[Candidate] = []
    if grown is not None and champion is not None:
        said = Candidate(name=CHAMPION, megabytes=megabytes_of(champion))
        candidates.append(seen(lambda: continued(champion, task, config), said))
        watcher.progress(1, steps, "comparing where to start")
    for base in bases:
        candidates.append(_looked_at(base, task, config, seen))
        watcher.progress(len(candidates), steps, "comparing where to start")
    places = [grown, *bases] if grown is not None else list(bases)
    allowed = [candidate for candidate in candidates if not candidate.left_out]
    if not allowed:
        reasons = "; ".join(f"{each.name}: {each.left_out}" for each in candidates)
        raise ConfigError(f"no model of finetune.base keeps to finetune.choose_base: {reasons}")
    chosen, reason = preferred(allowed, config.choose_base)
    base = places[candidates.index(chosen)]
    assert base is not None
    name: Literal["base", "champion"] = "champion" if chosen.name == CHAMPION else "base"
    return Start(name=name, base=base, reason=reason, candidates=tuple(candidates))


def _looked_at(
    base: Base,
    task: TaskConfig,
    config: FinetuneConfig,
    seen: Callable[[Callable[[], Model], Candidate], Candidate],
) -> Candidate:
    """Return what is found out about a base; the costly part only if it may be taken."""
    limits, folder = config.choose_base, base.locate()
    licence = base.licence or licence_of(folder)
    said = Candidate(name=base.place, licence=licence, megabytes=megabytes_of(folder))
    if limits.licences and licence.lower() not in map(str.lower, limits.licences):
        reason = (
            f"its licence {licence} is none of {', '.join(limits.licences)}"
            if licence
            else "no model card tells its licence; say it in finetune.base"
        )
        return said.model_copy(update={"left_out": reason})
    if limits.max_megabytes is not None and (said.megabytes or 0) > limits.max_megabytes:
        reason = f"{said.megabytes:.0f} MB are more than {limits.max_megabytes:g}"
        return said.model_copy(update={"left_out": reason})
    said = seen(lambda: TASKS[task.kind].from_base(folder, task, dropout=0.0), said)
    if limits.max_latency_ms is not None and (said.latency_ms or 0) > limits.max_latency_ms:
        reason = f"{said.latency_ms:.1f} ms for a row are more than {limits.max_latency_ms:g}"
        return said.model_copy(update={"left_out": reason})
    return said


def preferred(candidates: Sequence[Candidate], config: ChooseBaseConfig) -> tuple[Candidate, str]:
    """Return the candidate to start from, and why.

    Of those within ``tolerance`` of the best: the champion, which has learned more than a
    probe shows, or else the one with the fewest parameters.
    """

    def worth(candidate: Candidate) -> float:
        found = candidate.score if config.by == "probe" else candidate.log_evidence
        return -np.inf if found is None else found

    best = max(candidates, key=worth)
    good = [each for each in candidates if worth(each) >= worth(best) - config.tolerance]
    chosen = min(good, key=lambda each: (each.name != CHAMPION, each.parameters or 0))
    what = "a linear probe's score" if config.by == "probe" else "LogME"
    if chosen is best:
        beside = ", ".join(f"{each.name} {worth(each):.3f}" for each in candidates if each != best)
        rest = f"; the others: {beside}" if beside else ""
        return chosen, f"{what} on its features is the best, {worth(chosen):.3f}{rest}"
    why = "it continues what the champion knows" if chosen.name == CHAMPION else "it is smaller"
    return chosen, (
        f"{what} on its features is {worth(chosen):.3f}, about as good as the best "
        f"({best.name}, {worth(best):.3f}), and {why}"
    )


def probe(said: Candidate, model: Model, train: Examples, valid: Examples) -> Candidate:
    """Return a candidate with what a linear probe makes of its features, and how fast it is."""
    started_s = time.perf_counter()
    features = features_of(model, train)
    seconds = max(1e-9, time.perf_counter() - started_s)
    valid_features = features_of(model, valid)
    return said.model_copy(
        update={
            "score": probe_score(model, features, train.targets, valid_features, valid.targets),
            "log_evidence": log_evidence(features, train.targets),
            "parameters": sum(weight.numel() for weight in model.network.parameters()),
            "rows_per_second": len(train) / seconds,
            "latency_ms": latency_ms(model, valid.contents or train.contents),
        }
    )


def latency_ms(model: Model, contents: Sequence[str]) -> float:
    """Return the median milliseconds to answer one row, from content to answer."""
    took_s = []
    for content in [*contents[:WARM_UP_ROWS], *contents[:LATENCY_ROWS]]:
        started_s = time.perf_counter()
        model.predict([content])
        took_s.append(time.perf_counter() - started_s)
    return float(np.median(took_s[WARM_UP_ROWS:] or took_s)) * 1e3


def megabytes_of(folder: Path) -> float:
    """Return the size of the weights in a folder."""
    files = [path for kind in ("*.safetensors", "*.pth") for path in folder.glob(kind)]
    return sum(path.stat().st_size for path in files) / 1e6


def start_head(model: Model, train: Examples, vectors: NDArray[np.float32]) -> None:
    """Give a new head the weights of a linear probe.

    Linear probing, then fine-tuning: Kumar et al. 2022, https://arxiv.org/abs/2202.10054.

    Args:
        model: with a linear head on what its base makes of rows.
        train: rows to fit.
        vectors: what a base made of them, each of length one, ``[n, d]``. Where that was
            another base, the model's own features are computed.
    """
    import torch

    first = np.arange(len(train)) < LENGTH_ROWS
    few = features_of(model, train.where(first))
    lengths = np.linalg.norm(few, axis=1)
    if not _are_along(few / lengths[:, None], vectors[first]):
        own = features_of(model, train)
        vectors = (own / np.linalg.norm(own, axis=1, keepdims=True)).astype(np.float32)
    weights, bias = model.probe_head(vectors, train.targets)
    head: Any = model.network.get_submodule("head")
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weights / lengths.mean()))
        head.bias.copy_(torch.from_numpy(bias))


def _are_along(features: NDArray[np.float64], vectors: NDArray[np.float32]) -> bool:
    """Tell whether vectors of length one point where features do, up to rounding."""
    if features.shape != vectors.shape:
        return False
    return float((features * vectors).sum(1).min()) > ALONG


def sample(rows: Examples, count: int, seed: int) -> Examples:
    """Return at most ``count`` of the rows, drawn at random with each class by its share.

    The first ``CLASS_ROWS`` of a class go before its share: a probe that sees none of a rare
    class could not be judged by it.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    numbers = np.issubdtype(rows.targets.dtype, np.floating)  # which are no classes
    drawn = np.zeros(len(rows)) if numbers else rows.targets[order]
    turns = np.zeros(len(rows))
    for each in np.unique(drawn):
        places = np.flatnonzero(drawn == each)
        place = np.arange(len(places))
        turns[places] = np.where(place < CLASS_ROWS, place, CLASS_ROWS + place / len(places))
    chosen = np.zeros(len(rows), dtype=bool)
    chosen[order[np.argsort(turns, kind="stable")[:count]]] = True
    return rows.where(chosen)


def features_of(model: Model, rows: Examples) -> NDArray[np.float64]:
    """Return what a model's head reads, ``[n, d]``."""
    import torch

    from components.finetune.feed import frozen_states

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
    answers = np.zeros((len(valid), len(model.answer_names)))
    classes = np.unique(targets)
    if len(classes) == 1:  # nothing is told apart, so that it is always the answer
        answers[:, classes] = 1.0
    else:
        fitted = LogisticRegression(C=0.1, max_iter=300, random_state=0).fit(train, targets)
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
