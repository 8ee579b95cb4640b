"""Changes to a row's content that leave its label what it is, to see whether answers stay.

A user types in capitals, slips on the keyboard, pastes text with odd spaces and letters; a
camera sees a darker, noisier, shifted scene. Ribeiro et al. 2020 (CheckList,
https://arxiv.org/abs/2005.04118) call these invariance tests; the changes of images are
mild forms of those of Hendrycks & Dietterich 2019 (https://arxiv.org/abs/1903.12261).

A row's chance comes from its content, so that a row changes the same way in every run, in
whatever company, and for both models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from components.evaluate.image_perturbations import brightness, contrast, noise, shift
from components.evaluate.record_perturbations import left_out, rounding
from components.evaluate.text_perturbations import case, numbers, typos, unicode_forms, whitespace
from components.tasks.model import Content

Perturbation = Callable[[str, np.random.Generator], str]
"""From a content and a source of chance to a content with the same meaning."""

PERTURBATIONS: dict[Content, dict[str, Perturbation]] = {
    "text": {
        "case": case,
        "typos": typos,
        "whitespace": whitespace,
        "unicode": unicode_forms,
        "numbers": numbers,
    },
    "record": {
        "rounding": rounding,
        "left_out": left_out,
    },
    "image": {
        "noise": noise,
        "brightness": brightness,
        "contrast": contrast,
        "shift": shift,
    },
}
"""What can be done to each kind of content. To add one: a function and its line here."""


def perturbed(contents: Sequence[str], content: Content, name: str, *, seed: int = 0) -> list[str]:
    """Return the contents changed in one way, in order.

    A content that the change does not apply to (a text without numbers) stays as it is:
    compare the answers of the rows that did change.

    Args:
        contents: texts, records, or images as base64.
        content: which of these.
        name: one of ``PERTURBATIONS[content]``.
        seed: another gives other changes.

    Raises:
        ValueError: there is no such perturbation.
        SourceError: an image cannot be read.
    """
    known = PERTURBATIONS[content]
    if name not in known:
        raise ValueError(f"no perturbation {name!r} for {content}s; there are {', '.join(known)}")
    return [known[name](each, _chance_of(each, name, seed)) for each in contents]


def _chance_of(content: str, name: str, seed: int) -> np.random.Generator:
    key = f"{seed}\0{name}\0{content}".encode("utf-8", "surrogatepass")
    return np.random.default_rng(list(hashlib.sha256(key).digest()))
