from __future__ import annotations

import numpy as np
import pytest

from components.evaluate.perturbations import PERTURBATIONS, perturbed
from components.tasks.image_classification import encode_png

TEXTS = [f"The {number} films were really good, and number {number} was best" for number in "3579"]
IMAGES = [
    encode_png(np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8))
    for seed in range(4)
]
RECORDS = [f'{{"age":"{age}.5","job":"a","land":"jp"}}' for age in (31, 42, 53, 64)]
CASES = [
    (content, name, {"text": TEXTS, "image": IMAGES, "record": RECORDS}[content])
    for content, named in PERTURBATIONS.items()
    for name in named
]


@pytest.mark.parametrize(("content", "name", "rows"), CASES)
def test_a_row_changes_the_same_way_in_whatever_company(content, name, rows):
    changed = perturbed(rows, content, name)
    assert len(changed) == len(rows)
    assert all(isinstance(each, str) for each in changed)
    assert perturbed(rows[::-1], content, name) == changed[::-1]
    assert perturbed(rows[2:3], content, name) == changed[2:3]
    assert sum(a != b for a, b in zip(rows, changed, strict=True)) == len(rows)


@pytest.mark.parametrize(("content", "name", "rows"), CASES)
def test_another_seed_changes_otherwise(content, name, rows):
    assert len({tuple(perturbed(rows, content, name, seed=seed)) for seed in range(5)}) > 1


def test_an_unknown_perturbation_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match="no perturbation 'blur' for texts; there are case"):
        perturbed(["a"], "text", "blur")
    assert perturbed([], "text", "case") == []
