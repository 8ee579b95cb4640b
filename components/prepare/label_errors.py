"""Which labels are likely wrong: confident learning on embeddings, or on a table's columns.

A linear model answers for rows that it did not learn from. A row is suspected if the model is
as sure of another label as it usually is of rows that carry that label, and less sure of the
row's own. Of each label as many rows are suspected as the confident joint counts.

References:
    Northcutt, Jiang & Chuang (2021), Confident learning: estimating uncertainty in dataset
    labels, https://arxiv.org/abs/1911.00068; the method ``both`` of its section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from components.tasks.columns import fields_of, number_in

FOLDS = 5
RANGES = 10
"""Of a column of numbers, with as many rows each."""
CATEGORIES = 50
"""Of a column, the commonest; all others are one."""


def out_of_fold(
    vectors: NDArray[np.float32], targets: NDArray[np.int64], groups: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the probability of each label by a model that did not see the row ``[n, k]``.

    Args:
        vectors: embeddings ``[n, d]``.
        targets: index of the label ``[n]``, 0 to k - 1, each there at least once.
        groups: number of each row's group ``[n]``; a group is in one fold.
    """
    from sklearn.linear_model import LogisticRegression

    kinds = int(targets.max()) + 1
    answers = np.full((len(targets), kinds), 1 / kinds)
    chance = np.random.default_rng(0)
    fold_of = chance.permutation(np.arange(groups.max() + 1) % FOLDS)[groups]
    for fold in range(FOLDS):
        learnt, judged = fold_of != fold, fold_of == fold
        if len(np.unique(targets[learnt])) < 2 or not judged.any():
            continue
        # Vectors of length one need little shrinkage to be told apart.
        model = LogisticRegression(C=10.0, max_iter=300).fit(vectors[learnt], targets[learnt])
        answers[judged] = 0
        answers[np.ix_(judged, model.classes_)] = model.predict_proba(vectors[judged])
    return answers


def table_vectors(contents: Sequence[str], columns: Mapping[str, str]) -> NDArray[np.float32]:
    """Return a place for each range of a number and each common category ``[n, d]``, length one.

    A table's base has no weights: its embeddings say nothing of a row. A linear model on these
    can weigh every part of a column by itself.

    Args:
        contents: records, as rows hold them.
        columns: ``number`` or ``category`` by name.
    """
    rows = [fields_of(content, tuple(columns)) for content in contents]
    parts = []
    for name, kind in columns.items():
        values = [row[name] for row in rows]
        if kind == "number":
            numbers = np.array([number_in(value) for value in values])
            known = numbers[np.isfinite(numbers)]
            cuts = np.quantile(known, np.arange(1, RANGES) / RANGES) if len(known) else known
            place = np.where(np.isfinite(numbers), np.searchsorted(cuts, numbers), RANGES)
        else:
            common = [each for each, _ in Counter(values).most_common(CATEGORIES)]
            places = {each: place for place, each in enumerate(common)}
            place = np.array([places.get(value, len(common)) for value in values])
        parts.append(np.eye(place.max() + 1, dtype=np.float32)[place])
    return np.hstack(parts) / np.float32(np.sqrt(len(parts)))


def likely_label_errors(
    answers: NDArray[np.float64], targets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the places of rows whose label is likely wrong, the likeliest first.

    Args:
        answers: probability of each label, out of fold ``[n, k]``.
        targets: index of the label that each row carries ``[n]``.

    Examples:
        >>> answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.85, 0.15]])
        >>> likely_label_errors(answers, np.array([0, 0, 1, 1, 1]))
        array([4])
    """
    rows, kinds = answers.shape
    own = answers[np.arange(rows), targets]
    usual = np.array(
        [
            own[targets == kind].mean() if (targets == kind).any() else np.inf
            for kind in range(kinds)
        ]
    )
    confident = answers >= usual - 1e-6
    said = np.where(confident, answers, -1.0).argmax(1)
    counted = confident.any(1)
    joint = np.zeros((kinds, kinds))
    np.add.at(joint, (targets[counted], said[counted]), 1)
    margin = own - np.where(np.arange(kinds) == targets[:, None], -np.inf, answers).max(1)
    by_class, by_pair = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    for kind in range(kinds):
        here = np.flatnonzero(targets == kind)
        total = joint[kind].sum()
        if not len(here) or not total:
            continue
        # The joint counts confident rows only; its shares are taken for all rows of the label.
        expected = joint[kind] * len(here) / total
        wrong = round(expected.sum() - expected[kind])
        by_class[here[np.argsort(own[here], kind="stable")[:wrong]]] = True
        for other in range(kinds):
            lead = answers[here, other] - own[here]
            most = here[np.argsort(-lead, kind="stable")[: round(expected[other])]]
            if other != kind:
                by_pair[most] = True
    found = np.flatnonzero(by_class & by_pair & (margin < 0))
    return found[np.argsort(margin[found], kind="stable")]
