"""Slices of test rows in which a model's errors gather, found without being told where.

A slice is found on one half of the rows and holds rows of the other half only. So whatever
is measured on it is not biased by the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate.slices import Rows, Slice
from components.split import unit_interval

_COMPONENTS = 20
"""Principal components of embeddings to look for slices in."""
_CLUSTERS = 20
_CANDIDATES = 5
"""Slices that are proposed at most: each more costs power when they are checked."""


def search_half(groups: Sequence[str]) -> Rows:
    """Return which rows ``[n]`` slices are searched on: half of the groups, by their hash."""
    return unit_interval(groups, "slices") < 0.5


def error_slices(
    errors: NDArray[np.float64],
    features: Mapping[str, NDArray[np.float64]],
    vectors: NDArray[np.floating[Any]] | None,
    groups: Sequence[str],
    *,
    min_rows: int,
    seed: int = 0,
) -> list[Slice]:
    """Return slices in which errors gather, the worst first; five at most, perhaps none.

    On the search half of the rows a shallow regression tree over the features and the
    principal components of the embeddings, and k-means over those components, propose
    slices (as in Chung et al. 2019, Slice Finder, https://arxiv.org/abs/1807.06068, and
    Eyuboglu et al. 2022, Domino, https://arxiv.org/abs/2203.14960). The slices that are
    returned hold rows of the other half only, and are candidates: many were looked at, so
    that some are bad by chance. ``comparison.family`` says whether they are on those rows.

    Args:
        errors: how wrong the challenger is on each row ``[n]``, or by how much more than
            the champion (then slices that are hard for both do not count).
        features: of the contents, ``[n]`` by name; see ``Model.input_features``.
        vectors: embeddings ``[n, d]``, None if there are none.
        groups: of each row ``[n]``; a group is not torn apart.
        min_rows: fewer rows are no slice.
        seed: of k-means.
    """
    half = search_half(groups)
    columns = _columns(features, vectors)
    if half.sum() < 2 * min_rows or (~half).sum() < 2 * min_rows or not columns:
        return []
    table = np.stack(list(columns.values()), 1)
    # Half as many are enough to propose it; rows by chance fall unevenly into the halves.
    least = max(2, min_rows // 2)
    proposed = _tree_slices(table, list(columns), errors, half, least)
    if vectors is not None:
        components = [place for place, name in enumerate(columns) if name not in features]
        proposed += _cluster_slices(table[:, components], half, least, seed)
    proposed = [each for each in proposed if (each.rows & ~half).sum() >= min_rows]
    excess = {each.name: _excess(errors, each.rows & half, half) for each in proposed}
    kept: list[Slice] = []
    for each in sorted(proposed, key=lambda each: -excess[each.name]):
        # Branches of the tree lie in one another, and clusters may show the same thing.
        overlaps = [
            (each.rows & other.rows).sum() / (each.rows | other.rows).sum() for other in kept
        ]
        if excess[each.name] > 1 and max(overlaps, default=0.0) < 0.8:
            kept.append(each)
    return [Slice(each.name, each.rows & ~half, "errors") for each in kept[:_CANDIDATES]]


def _columns(
    features: Mapping[str, NDArray[np.float64]],
    vectors: NDArray[np.floating[Any]] | None,
) -> dict[str, NDArray[np.float64]]:
    """Return what to search in: features, and principal components of the embeddings."""
    columns = {name: np.asarray(values, float) for name, values in features.items()}
    if vectors is not None and len(vectors):
        centred = vectors.astype(float) - vectors.mean(0, dtype=float)
        # No errors are looked at here, so that all rows may be. The largest come last.
        _, directions = np.linalg.eigh(centred.T @ centred)
        found = centred @ directions[:, ::-1][:, :_COMPONENTS]
        columns |= {f"component {place + 1}": values for place, values in enumerate(found.T)}
    return columns


def _tree_slices(
    table: NDArray[np.float64],
    names: list[str],
    errors: NDArray[np.float64],
    half: Rows,
    least: int,
) -> list[Slice]:
    """Return the branches and leaves of a shallow tree, as rules."""
    from sklearn.tree import DecisionTreeRegressor

    tree = DecisionTreeRegressor(max_depth=3, min_samples_leaf=least, random_state=0)
    tree.fit(table[half], errors[half])
    inside = tree.decision_path(table).toarray().astype(bool)
    rules = _rules(tree.tree_, names)
    return [Slice(rules[node], inside[:, node], "errors") for node in rules]


def _rules(tree: Any, names: list[str]) -> dict[int, str]:
    """Return the way to each node but the root, in words."""
    rules: dict[int, str] = {}
    open_nodes: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    while open_nodes:
        node, way = open_nodes.pop()
        if way:
            rules[node] = " and ".join(way)
        if tree.children_left[node] != -1:
            name, at = names[tree.feature[node]], f"{tree.threshold[node]:.3g}"
            open_nodes.append((int(tree.children_left[node]), (*way, f"{name} <= {at}")))
            open_nodes.append((int(tree.children_right[node]), (*way, f"{name} > {at}")))
    return rules


def _cluster_slices(
    components: NDArray[np.float64], half: Rows, least: int, seed: int
) -> list[Slice]:
    """Return the clusters of embeddings that are large enough."""
    from sklearn.cluster import KMeans

    different = len(np.unique(components, axis=0))
    count = min(_CLUSTERS, int(half.sum()) // (2 * least), different)
    if count < 2:
        return []
    clusters = KMeans(count, n_init=3, random_state=seed).fit_predict(components)
    found = [Slice(f"embedding cluster {k + 1}", clusters == k, "errors") for k in range(count)]
    return [each for each in found if (each.rows & half).sum() >= least]


def _excess(errors: NDArray[np.float64], rows: Rows, among: Rows) -> float:
    """Return by how many standard errors the mean error of some rows is above that of all."""
    spread = errors[among].std()
    above = errors[rows].mean() - errors[among].mean()
    return float(above / spread * np.sqrt(rows.sum())) if spread > 0 else 0.0
