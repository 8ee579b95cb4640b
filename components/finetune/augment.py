"""Noisy copies of rows whose label stays what it is.

Text: word dropout, swaps and synonyms, as in easy data augmentation (Wei & Zou 2019,
https://arxiv.org/abs/1901.11196). Images: crop, rotation, brightness, random erasing
(Zhong et al. 2020, https://arxiv.org/abs/1708.04896); no mirroring, for digits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.errors import ConfigError
from components.finetune.config import AugmentConfig
from components.packages import locate
from components.tasks.model import Example, Model

Augment = Callable[[str, Example, np.random.Generator], Example]
"""Takes a row's content, its example and a source of chance; returns a noisy example."""


def augmenter(model: Model, config: AugmentConfig) -> Augment | None:
    """Return what makes noisy examples for a model, None if nothing is asked for.

    Raises:
        ConfigError: noise for images asked of texts or the other way, or bad synonyms.
    """
    if model.content != "image" and config.of_images:
        raise ConfigError("crop, rotation, brightness and erasing need a task over images")
    if model.content != "text" and config.of_texts:
        raise ConfigError("word dropout, swaps and synonyms need a task over texts")
    if config.of_texts:
        synonyms = _synonyms(config.synonyms)

        def noisy_text(content: str, example: Example, chance: np.random.Generator) -> Example:
            return model.encode([noisy_words(content, config, synonyms, chance)])[0]

        return noisy_text
    if config.of_images:
        return lambda content, example, chance: noisy_image(example, config, chance)
    return None


def noisy_words(
    text: str, config: AugmentConfig, synonyms: dict[str, list[str]], chance: np.random.Generator
) -> str:
    """Return a text with words left out, swapped and replaced; at least one word stays."""
    words = text.split()
    if not words:
        return text
    for index, word in enumerate(words):
        others = synonyms.get(word.lower())
        if others and chance.random() < config.synonym_share:
            words[index] = others[int(chance.integers(len(others)))]
    kept = chance.random(len(words)) >= config.word_dropout
    if not kept.any():
        kept[int(chance.integers(len(words)))] = True
    words = [word for word, keep in zip(words, kept, strict=True) if keep]
    index = 0
    while index + 1 < len(words):
        if chance.random() < config.word_swap:
            words[index], words[index + 1] = words[index + 1], words[index]
            index += 1  # a word moves by one place at most
        index += 1
    return " ".join(words)


def _synonyms(path: str) -> dict[str, list[str]]:
    if not path:
        return {}
    try:
        table = json.loads(locate(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"finetune.augment.synonyms: {path} is not read: {error}") from error
    shaped = isinstance(table, dict) and all(
        isinstance(others, list) and all(isinstance(other, str) for other in others)
        for others in table.values()
    )
    if not shaped:
        raise ConfigError(
            f'finetune.augment.synonyms: {path} must hold one object like {{"good": ["fine"]}}'
        )
    return {word.lower(): others for word, others in table.items()}


def noisy_image(
    pixels: NDArray[np.uint8], config: AugmentConfig, chance: np.random.Generator
) -> NDArray[np.uint8]:
    """Return a noisy copy of an image ``uint8 [c, h, w]`` of the same shape."""
    from PIL import Image

    _, height, width = pixels.shape
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if config.rotation_degrees:
        angle = chance.uniform(-config.rotation_degrees, config.rotation_degrees)
        corner = tuple(int(value) for value in pixels[:, 0, 0])
        image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=corner)
    if config.crop:
        side = 1 - chance.uniform(0, config.crop)
        left, top = chance.uniform(0, 1 - side, 2)
        box = (left * width, top * height, (left + side) * width, (top + side) * height)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    out = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)
    if config.brightness:
        out = out * chance.uniform(1 - config.brightness, 1 + config.brightness)
    noisy = np.clip(np.round(out), 0, 255).astype(np.uint8)
    if chance.random() < config.erasing:
        high, wide = (max(1, int(size * chance.uniform(0.1, 0.5))) for size in (height, width))
        top, left = chance.integers(height - high + 1), chance.integers(width - wide + 1)
        noisy[:, top : top + high, left : left + wide] = 128
    return noisy


def noisy_copies(
    contents: Sequence[str],
    examples: Sequence[Example],
    augment: Augment,
    copies: int,
    seed: int,
) -> list[Example]:
    """Return ``copies`` noisy forms of every row, copy by copy."""
    return [
        augment(content, example, chance_of(seed, copy, row))
        for copy in range(copies)
        for row, (content, example) in enumerate(zip(contents, examples, strict=True))
    ]


def chance_of(*where: Any) -> np.random.Generator:
    """Return the source of chance of one place in a training: seed, epoch, row.

    It depends on nothing that came before, so that a resumed training draws the same.
    """
    return np.random.default_rng(list(where))
