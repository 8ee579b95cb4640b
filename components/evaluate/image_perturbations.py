"""Changes to an image that leave it what it shows.

An image is base64 of a file, as ``image_classification.decode`` reads it. Grey images stay
grey, others become RGB, which is what a model sees of them; the size stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from components.tasks.image_classification import decode, encode_png

_NOISE = 10.0
"""Standard deviation, of 255 levels."""
_WEAKEST, _STRONGEST = 0.15, 0.3
"""By what part of itself brightness or contrast changes."""
_SHIFT = 1 / 16
"""Of a side, at most; at least one pixel."""


def noise(content: str, chance: np.random.Generator) -> str:
    """Return an image with Gaussian noise in every pixel and channel."""
    pixels = _pixels(content)
    return _content(pixels + chance.normal(0, _NOISE, pixels.shape))


def brightness(content: str, chance: np.random.Generator) -> str:
    """Return a darker or brighter image."""
    return _content(_pixels(content) * _factor(chance))


def contrast(content: str, chance: np.random.Generator) -> str:
    """Return an image with weaker or stronger contrast, as bright on the whole."""
    pixels = _pixels(content)
    return _content(pixels.mean() + (pixels - pixels.mean()) * _factor(chance))


def shift(content: str, chance: np.random.Generator) -> str:
    """Return an image moved by a few pixels; its edge fills the gap."""
    pixels = _pixels(content)
    height, width = pixels.shape[:2]
    most = [max(1, int(side * _SHIFT)) for side in (height, width)]
    down, right = (int(chance.choice([-1, 1])) * int(chance.integers(1, m + 1)) for m in most)
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return _content(pixels[rows][:, columns])


def _factor(chance: np.random.Generator) -> float:
    return 1 + float(chance.choice([-1, 1]) * chance.uniform(_WEAKEST, _STRONGEST))


def _pixels(content: str) -> NDArray[np.float64]:
    """Return levels from 0 to 255, ``[h, w]`` or ``[h, w, 3]``."""
    image = decode(content)
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"), dtype=float)


def _content(pixels: NDArray[np.float64]) -> str:
    return encode_png(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
