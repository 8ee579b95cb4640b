"""The profile: what a champion remembers of the window it was trained on.

Features of contents and embeddings come from training rows; answers, confidence and
errors from validation rows, because a model is surer of rows that it has seen. Rows
rehearsed from earlier windows stay out: production is compared with the world as it
was last, not with a mixture of all worlds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.declared_columns import as_known, common_kinds
from components.distribution import Distribution, effective_category_rows, effective_rows
from components.errors import BundleError

SCHEMA_VERSION = 2
EMBEDDING = "embedding_"
"""The names of the features that are components of the embedding begin so."""
PROBABILITY, DECIDED = "probability_", "decided"
"""What columns of a classifier's answers are called, or how their names begin."""
VECTOR_ROWS = 2000
"""Embeddings of no more rows are remembered; enough to see what is worth seeing."""

_NO_VECTORS = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class Answers:
    """What a classifier answered for rows.

    Attributes:
        probabilities: of each class ``[n, k]``.
        decided: index of the class that was answered ``[n]``.
        targets: index of the true class ``[n]``, or None where labels have not come.
        groups: number of the group of each row ``[n]``; rows of a group are alike.
    """

    probabilities: NDArray[np.float64]
    decided: NDArray[np.int64]
    targets: NDArray[np.int64] | None
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """What can be watched of some rows.

    Attributes:
        numbers: an array ``[n]`` per name.
        categories: a list ``[n]`` per name.
        groups: number of each row's group ``[n]``.
    """

    numbers: Mapping[str, NDArray[np.float64]]
    categories: Mapping[str, Sequence[str]]
    groups: NDArray[np.int64]


@dataclass(frozen=True)
class Profile:
    """What a champion remembers.

    Attributes:
        window: name of the window.
        error_rate: mean error on the validation rows.
        error_rows: how many rows that mean is of.
        numbers: distribution of every feature that is a number, by name.
        independent: share of a feature's rows that count as independent, by name; see
            ``effective_rows`` of the detectors. Absent is 1.
        categories: rows by category, by name.
        vectors: embeddings of a sample of the training rows ``[s, d]``.
        vector_groups: number of the group of each of them ``[s]``.
        answers: on the validation rows; None where answers are no probabilities, or the
            profile was written by a version that did not keep them.
        kind_errors: mean error and number of validation rows of each kind of a declared
            column, by column and kind.
    """

    window: str
    error_rate: float
    error_rows: int
    numbers: dict[str, Distribution]
    independent: dict[str, float] = field(default_factory=dict)
    categories: dict[str, dict[str, int]] = field(default_factory=dict)
    vectors: NDArray[np.float32] = field(default_factory=lambda: _NO_VECTORS)
    vector_groups: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    answers: Answers | None = None
    kind_errors: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        window: str,
        *,
        inputs: Columns,
        outputs: Columns,
        errors: NDArray[np.float64],
        vectors: NDArray[np.float32],
        answers: Answers | None,
        kinds: Mapping[str, Sequence[str]] | None = None,
    ) -> Self:
        """Return the profile of a champion.

        Args:
            window: name of the window that it was trained on.
            inputs: of the training rows ``[n]``.
            outputs: of the answers to validation rows ``[v]``.
            errors: on the validation rows ``[v]``, 0 to 1.
            vectors: embeddings of the training rows ``[n, d]``.
            answers: to the validation rows, if they are probabilities.
            kinds: declared columns of the validation rows, a list ``[v]`` per name.
        """
        numbers, categories, independent = {}, {}, {}
        for side in (inputs, outputs):
            for name, values in side.numbers.items():
                numbers[name] = Distribution(values)
                finite = np.isfinite(values)
                if numbers[name].rows:
                    worth = effective_rows(values[finite], side.groups[finite])
                    independent[name] = worth / numbers[name].rows
            for name, kinds_of in side.categories.items():
                common = common_kinds(kinds_of)
                categories[name] = counts_of(common)
                worth = effective_category_rows(common, side.groups)
                independent[name] = worth / max(1, len(common))
        chosen = sampled(len(vectors))
        return cls(
            window,
            float(errors.mean()),
            len(errors),
            numbers,
            independent,
            categories,
            vectors[chosen],
            inputs.groups[: len(vectors)][chosen],
            answers,
            {
                name: errors_by_kind(as_known(values, categories.get(name, {})), errors)
                for name, values in (kinds or {}).items()
            },
        )

    def save(self, folder: Path) -> None:
        """Write ``profile.json`` and ``profile.safetensors``."""
        from safetensors.numpy import save_file

        description = {
            "schema_version": SCHEMA_VERSION,
            "window": self.window,
            "error_rate": self.error_rate,
            "error_rows": self.error_rows,
            "missing": {name: each.missing for name, each in self.numbers.items()},
            "independent": self.independent,
            "categories": self.categories,
            "kind_errors": self.kind_errors,
        }
        tensors: dict[str, NDArray[Any]] = {
            f"number/{name}": each.to_tensor() for name, each in self.numbers.items()
        }
        tensors["vectors"] = self.vectors
        tensors["vector_groups"] = self.vector_groups
        if self.answers is not None:
            assert self.answers.targets is not None
            tensors["answers/probabilities"] = self.answers.probabilities
            tensors["answers/decided"] = self.answers.decided
            tensors["answers/targets"] = self.answers.targets
            tensors["answers/groups"] = self.answers.groups
        (folder / "profile.json").write_text(json.dumps(description, sort_keys=True))
        # safetensors writes memory as it lies, and takes no notice of strides.
        tensors = {name: np.ascontiguousarray(each) for name, each in tensors.items()}
        save_file(tensors, folder / "profile.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Profile:
        """Read a profile; one of an older schema says less.

        Raises:
            BundleError: there is none, or it has a newer schema.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            description = json.loads((folder / "profile.json").read_text())
            version = int(description["schema_version"])
            if version > SCHEMA_VERSION:
                raise BundleError(
                    f"the profile in {folder} has schema {version}, which needs a newer Tokiwa; "
                    "upgrade to read it"
                )
            tensors = load_file(folder / "profile.safetensors")
            return _READERS[version](description, tensors)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise BundleError(f"the bundle in {folder} has no readable profile") from error


def _read_1(description: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Profile:
    """Read the first schema: sorted columns, components of embeddings among them."""
    return Profile(
        description["window"],
        description["error_rate"],
        description["error_rows"],
        {name: Distribution.from_tensor(values) for name, values in tensors.items()},
    )


def _read_2(description: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Profile:
    answers = None
    if "answers/targets" in tensors:
        names = ("probabilities", "decided", "targets", "groups")
        answers = Answers(*(tensors[f"answers/{name}"] for name in names))
    return Profile(
        description["window"],
        description["error_rate"],
        description["error_rows"],
        {
            name: Distribution.from_tensor(tensors[f"number/{name}"], missing)
            for name, missing in description["missing"].items()
        },
        description["independent"],
        description["categories"],
        tensors["vectors"],
        tensors["vector_groups"],
        answers,
        {
            name: {kind: (float(mean), int(rows)) for kind, (mean, rows) in kinds.items()}
            for name, kinds in description.get("kind_errors", {}).items()
        },
    )


_READERS = {1: _read_1, 2: _read_2}
"""Schema to what reads it: a profile outlives the version that wrote it."""


def counts_of(values: Sequence[str]) -> dict[str, int]:
    """Return rows by category, by name of the category."""
    return dict(sorted(Counter(values).items()))


def errors_by_kind(
    kinds: Sequence[str], errors: NDArray[np.float64]
) -> dict[str, tuple[float, int]]:
    """Return mean error and number of rows by kind.

    Args:
        kinds: of each row ``[n]``.
        errors: of each row ``[n]``, 0 to 1.
    """
    by_kind = pd.Series(errors).groupby(np.asarray(kinds, dtype=object))
    found = by_kind.agg(["mean", "size"])
    return {str(kind): (float(mean), int(rows)) for kind, mean, rows in found.itertuples()}


def group_numbers(groups: Sequence[Any]) -> NDArray[np.int64]:
    """Return the number of each row's group ``[n]``."""
    return np.asarray(pd.factorize(np.asarray(groups, dtype=object))[0], dtype=np.int64)


def sampled(rows: int) -> NDArray[np.int64]:
    """Return which rows' embeddings are remembered, always the same for as many rows."""
    chosen = np.random.default_rng(0).permutation(rows)[:VECTOR_ROWS]
    return np.sort(chosen).astype(np.int64)


def embedding_features(vectors: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return one feature per component of the embeddings."""
    return {
        f"{EMBEDDING}{index:03d}": vectors[:, index].astype(np.float64)
        for index in range(vectors.shape[1])
    }


def as_frame(features: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """Return features as one column each."""
    return pd.DataFrame(dict(features))
