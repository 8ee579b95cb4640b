"""Which words, or which parts of an image, made a model answer as it did.

Each is left out once, and what the answer loses is its weight (leave-one-out, as in Li et
al. 2016, https://arxiv.org/abs/1612.08220). It needs nothing but the model's answers, so it
works for every model, also one without gradients such as ONNX.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.tasks.model import Content

Answer = Callable[[Sequence[str]], NDArray[np.float64]]

_MAX_WORDS = 40
_UNSPACED = (
    "\u3005\u3400-\u4dbf\u4e00-\u9fff",  # Han
    "\u3041-\u309f",  # Hiragana
    "\u30a0-\u30ff\uff66-\uff9f",  # Katakana
    "\u0e00-\u0eff",  # Thai and Lao
    "\u1000-\u109f",  # Burmese
    "\u1780-\u17ff",  # Khmer
)
"""Scripts that are written without spaces between words."""
_MARKS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b6-\u17d3"
)
"""Signs that belong to the letter before them."""
_STOPS = "\u3001-\u3004\u3006-\u303f\uff01-\uff0f\uff1a-\uff20"
_WORD = re.compile(
    "|".join(f"[{signs}]{{1,4}}[{_MARKS}]*[{_STOPS}]*" for signs in _UNSPACED)
    + rf"|[^\s{''.join(_UNSPACED)}]+"
)
_TILES = 4
"""An image is covered in so many by so many parts."""


def word_weights(text: str, answers: Answer, column: int) -> list[tuple[str, float]]:
    """Return the words of a text, and what the answer loses without each.

    Where a script knows no spaces, a few letters of one script stand for a word.

    Args:
        text: longer ones are cut.
        answers: of the model, ``[n, k]`` for n contents.
        column: of the answers to look at.
    """
    found = list(itertools.islice(_WORD.finditer(text), _MAX_WORDS))
    end = found[-1].end() if found else 0
    whole_text, *without = (
        " ".join(each.split())
        for each in (text[:end], *(text[: one.start()] + text[one.end() : end] for one in found))
    )
    words = [one.group() for one in found]
    whole, *others = answers([whole_text, *without])[:, column].tolist()
    return [(word, whole - other) for word, other in zip(words, others, strict=True)]


def field_weights(record: str, answers: Answer, column: int) -> list[tuple[str, float]]:
    """Return what the answer loses without each value of a record, as ``name=value``."""
    fields: dict[str, str | None] = json.loads(record)
    there = [name for name, value in fields.items() if value is not None]
    without = [json.dumps({**fields, name: None}) for name in there]
    whole, *others = answers([record, *without])[:, column].tolist()
    return [
        (f"{name}={fields[name]}", whole - other) for name, other in zip(there, others, strict=True)
    ]


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
    if kind == "record":
        return field_weights(content, answers, column), []
    return [], tile_weights(content, answers, column)
