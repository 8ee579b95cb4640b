"""Which words, or which parts of an image, made a model answer as it did.

Each is left out once, and what the answer loses is its weight (leave-one-out, as in Li et
al. 2016, https://arxiv.org/abs/1612.08220). It needs nothing but the model's answers, so it
works for every model, also one without gradients such as ONNX.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.tasks.model import Content

Answer = Callable[[Sequence[str]], NDArray[np.float64]]

_MAX_WORDS = 40
_TILES = 4
"""An image is covered in so many by so many parts."""


def word_weights(text: str, answers: Answer, column: int) -> list[tuple[str, float]]:
    """Return the words of a text, and what the answer loses without each.

    Args:
        text: longer ones are cut.
        answers: of the model, ``[n, k]`` for n contents.
        column: of the answers to look at.
    """
    words = re.findall(r"\S+", text)[:_MAX_WORDS]
    without = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    whole, *others = answers([" ".join(words), *without])[:, column].tolist()
    return [(word, whole - other) for word, other in zip(words, others, strict=True)]


def tile_weights(image: str, answers: Answer, column: int) -> list[list[float]]:
    """Return what the answer loses if each part of an image is greyed ``[4, 4]``."""
    from components.tasks.image_classification import decode, encode_png

    pixels: NDArray[Any] = np.asarray(decode(image).convert("RGB"))
    down, right = (np.linspace(0, side, _TILES + 1).astype(int) for side in pixels.shape[:2])
    covered = []
    for row in range(_TILES):
        for tile in range(_TILES):
            changed = pixels.copy()
            part = slice(down[row], down[row + 1]), slice(right[tile], right[tile + 1])
            changed[part] = pixels.mean((0, 1)).astype(np.uint8)
            covered.append(encode_png(changed))
    whole, *others = answers([encode_png(pixels), *covered])[:, column].tolist()
    losses = [whole - other for other in others]
    return [losses[row * _TILES : (row + 1) * _TILES] for row in range(_TILES)]


def weights(
    content: str, kind: Content, answers: Answer, column: int
) -> tuple[list[tuple[str, float]], list[list[float]]]:
    """Return the weights of words or of parts, whichever the content has."""
    if kind == "text":
        return word_weights(content, answers, column), []
    return [], tile_weights(content, answers, column)
