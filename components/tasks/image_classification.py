"""Image classification: one label out of two or more for an image.

The base is the EfficientNet-lite0 of its package. The network sees images as that was
trained: three channels, scaled to ``task.pixels``, with ImageNet's mean and deviation.
"""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.errors import BundleError, SourceError
from components.tasks.classification import Classifier, Labels, LabelTask
from components.tasks.model import Content, Example, Features, Network, rule_in
from components.tasks.task import Checks
from components.tasks.weights import (
    MODEL_FILE,
    WEIGHTS_FILE,
    loading,
    refuse_unfinite,
    write_weights,
)

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from components.tasks.efficientnet import EfficientNetLite0

_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)[:, None, None]
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)[:, None, None]
MAX_PIXELS = 50_000_000
"""More than any camera's picture: a decompression bomb."""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
"""Pillow reads far more, some of them by starting other programs."""


class ImageClassification(LabelTask):
    """Section ``task`` with ``kind: image-classification``."""

    content: ClassVar[Content] = "image"
    kind: Literal["image-classification"] = "image-classification"
    labels: Labels
    """The classes, in the order of the model's outputs."""
    pixels: int = Field(default=64, ge=32, le=1024)
    """Images are scaled to so many pixels a side; more is slower and sees more."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.labels

    @property
    def input_size(self) -> int:
        """Pixels a side."""
        return self.pixels

    def content_checks(self, max_characters: int) -> Checks:
        """Return that a content is an image, and not too large a one."""
        return {
            "image-too-large": lambda contents: contents.map(_is_small),
            "not-an-image": lambda contents: contents.map(_is_image),
        }

    def readable(self, contents: pd.Series[str]) -> pd.Series[bool]:
        """Tell which contents are images."""
        return contents.map(_is_small).astype(bool) & contents.map(_is_image).astype(bool)


class ImageClassifier(Classifier):
    """A convolutional network with a classification head."""

    content: ClassVar[Content] = "image"
    network: EfficientNetLite0

    def __init__(self, network: EfficientNetLite0, facts: dict[str, Any]) -> None:
        """Put the parts together; see ``from_base`` and ``load``."""
        self.network = network
        self.facts = facts

    @staticmethod
    def facts_of(task: Any) -> dict[str, Any]:
        """Return labels and the size of images."""
        return {"labels": list(task.labels), "pixels": task.pixels}

    @classmethod
    def from_base(cls, base: Path, task: ImageClassification, *, dropout: float) -> Self:
        """Return a new head on the pretrained network in ``base``."""
        from components.tasks.efficientnet import EfficientNetLite0

        network = EfficientNetLite0(cls.outputs_of(task), dropout)
        weights = _pretrained(base)
        for name in ("_fc.weight", "_fc.bias"):
            weights.pop(name, None)
        own = network.state_dict()
        missing = sorted(own.keys() - weights.keys() - {"head.weight", "head.bias"})
        extra = sorted(weights.keys() - own.keys())
        if missing or extra:
            raise BundleError(
                f"the base model in {base} is no EfficientNet-lite0: "
                f"{len(missing)} weights are missing and {len(extra)} unknown "
                f"({', '.join((missing + extra)[:3])}, ...)"
            )
        with loading(f"the base model in {base}"):
            network.load_state_dict(weights, strict=False)
        refuse_unfinite(weights, base)
        network.eval()
        return cls(network, cls.facts_of(task))

    @classmethod
    def load(cls, folder: Path, network: Network | None = None) -> Self:
        """Return the model of a bundle."""
        loaded: Any = network
        with loading(f"the model in {folder}"):
            saved = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
            model = cls(loaded or _load_network(folder, saved), saved["facts"])
            model.rule = rule_in(saved)
            return model

    def save(self, folder: Path) -> None:
        """Write weights and ``model.json`` into ``folder``."""
        write_weights(self.network, folder)
        saved = {
            "architecture": "efficientnet-lite0",
            "dropout": self.network.dropout_share,
            "skipped": list(self.network.skipped),
            "facts": self.facts,
            "rule": self.rule and self.rule.model_dump(mode="json"),
        }
        text = json.dumps(saved, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / MODEL_FILE).write_text(text, encoding="utf-8")

    def configure(self, task: Any, *, dropout: float) -> None:
        """Scale images as the project says."""
        self.rule = None
        self.facts["pixels"] = task.pixels
        self.network.set_dropout(dropout)

    def encode(self, contents: Sequence[str]) -> list[Example]:
        """Return the pixels of each image, ``uint8 [3, pixels, pixels]``.

        Raises:
            SourceError: one is no image, see ``decode``; the message says which.
        """
        examples: list[Example] = []
        for place, content in enumerate(contents):
            try:
                examples.append(_pixels_of(content, self.facts["pixels"]))
            except SourceError as error:
                raise SourceError(f"image {place}: {error}") from error
        return examples

    def edge_contents(self) -> list[str]:
        """Return an image of one black pixel, and a white strip."""
        black, white = np.zeros((1, 1), dtype=np.uint8), np.full((2, 200, 3), 255, dtype=np.uint8)
        return [encode_png(black), encode_png(white)]

    def inputs(self, examples: Sequence[Example]) -> tuple[NDArray[Any], ...]:
        """Return normalised images, ``float32 [n, 3, h, w]``."""
        images = np.stack(examples).astype(np.float32) / np.float32(255)
        return ((images - _MEAN) / _DEVIATION,)

    def input_features(self, contents: Sequence[str]) -> Features:
        """Return size, brightness, contrast and saturation of each image."""
        rows = []
        for content in contents:
            image = decode(content)
            grey = np.asarray(image.convert("L"), dtype=np.float64) / 255
            colours = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
            spread = (colours.max(-1) - colours.min(-1)).mean()
            rows.append((image.width, image.height, grey.mean(), grey.std(), spread))
        names = ("width", "height", "brightness", "contrast", "saturation")
        columns = np.array(rows, dtype=np.float64).reshape(-1, len(names)).T
        return dict(zip(names, columns, strict=True))


def _pixels_of(content: str, side: int) -> NDArray[np.uint8]:
    from PIL import Image

    image = decode(content).convert("RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def decode(content: str) -> Any:
    """Return the PIL image in a row's content, base64 of an image file.

    Raises:
        SourceError: no image, a truncated one, or one too large to be meant.
    """
    from PIL import Image

    image = _opened(content)
    if image.width * image.height > MAX_PIXELS:
        raise SourceError(f"{image.width} x {image.height} pixels are too large")
    try:
        image.load()
    except Exception as error:  # its decoders raise whatever their parsers stumble over
        raise SourceError(f"not an image: {error}") from error
    if image.mode.startswith("I;16"):  # convert would cut off what is brighter than 255
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    # Pillow wants transparency that a palette says in bytes to be kept at first.
    return image.convert("RGBA") if "transparency" in image.info else image


def pixels_in(content: str) -> int:
    """Return how many pixels a content says that it has, without decoding it.

    Raises:
        SourceError: it is no image.
    """
    image = _opened(content)
    return int(image.width * image.height)


def _opened(content: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Of decompression bombs; callers look at the size themselves.
            warnings.simplefilter("ignore")
            data = base64.b64decode(content, validate=True)
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise SourceError(f"not an image: none of {', '.join(FORMATS)}") from error
    except Exception as error:
        raise SourceError(f"not an image: {error}") from error


def _is_small(content: str) -> bool:
    """Tell whether a content is no image that is too large; it may be no image at all."""
    try:
        return pixels_in(content) <= MAX_PIXELS
    except SourceError:
        return True


def _is_image(content: str) -> bool:
    """Tell whether a content is an image; one that is too large is taken at its word."""
    try:
        if pixels_in(content) <= MAX_PIXELS:
            decode(content)
    except SourceError:
        return False
    return True


def encode_png(pixels: NDArray[np.uint8]) -> str:
    """Return pixels ``[h, w]`` or ``[h, w, 3]`` as a row's content, base64 of a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _load_network(folder: Path, saved: dict[str, Any]) -> EfficientNetLite0:
    """Return the network of a bundle with its weights."""
    from safetensors.torch import load_file

    from components.tasks.efficientnet import EfficientNetLite0

    labels = saved["facts"]["labels"]
    network = EfficientNetLite0(len(labels), saved["dropout"], saved["skipped"])
    weights = load_file(folder / WEIGHTS_FILE)
    network.load_state_dict(weights)
    refuse_unfinite(weights, folder)
    return network.eval()


def _pretrained(base: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a folder: safetensors, or a .pth file of tensors only.

    torch reads the latter without running code (``weights_only``): anything in it that
    is not a tensor is refused.
    """
    import torch
    from safetensors.torch import load_file

    safe, plain = sorted(base.glob("*.safetensors")), sorted(base.glob("*.pth"))
    if len(safe) + len(plain) != 1:
        raise BundleError(
            f"{base} must hold one file of weights, *.safetensors or *.pth; "
            f"there are {len(safe) + len(plain)}"
        )
    with loading(f"the base model {(safe + plain)[0]}"):
        if safe:
            return load_file(safe[0])
        weights = torch.load(plain[0], map_location="cpu", weights_only=True)
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise BundleError(f"{plain[0]} holds something else than weights by name")
    return dict(weights)
