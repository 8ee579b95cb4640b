"""A bundle as the server answers with it; needs no server and no KServe.

The deploy step checks a challenger with this very code before anybody sees it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from components import bundle, signature
from components.decision_rule import DecisionRule
from components.errors import BundleError, SourceError
from components.settings import canonical_json
from components.store import Store
from components.tasks import TASKS
from components.tasks.image_classification import MAX_PIXELS, pixels_in
from components.tasks.model import Content, Example, Model, length_order
from components.tasks.onnx_runtime import INT8_FILE, ONNX_FILE, OnnxNetwork

MAX_CONTENTS = 256
"""Texts or images in one request; one request may not keep all others waiting."""

MAX_CHARACTERS = 20_000
"""Characters in one text: far more than any model reads, but all of them are tokenized."""

MAX_BATCH = 64
"""Examples that a network answers at once."""

Prediction = dict[str, Any]
"""The answer to one content, see ``components.tasks.model.Model.responses``."""

Form = Literal["int8", "onnx", "safetensors"]
_FILES: dict[Form, str] = {"int8": INT8_FILE, "onnx": ONNX_FILE}
"""Forms that run without torch, the fastest first."""

_PADDING = 0.25
"""A batch is cut where padding would make its shortest example so much longer: ONNX Runtime
takes as long for a token of padding as for one of text."""


@dataclass(frozen=True)
class Predicted:
    """What a model says of some contents.

    Attributes:
        predictions: one for each content, in order.
        truncated: places of contents of which it read the beginning only.
    """

    predictions: list[Prediction]
    truncated: list[int]


class TooMuch(ValueError):
    """More or larger contents than one request may carry."""


def checked_texts(values: Sequence[object], content: Content = "text") -> list[str]:
    """Return the values if they are texts that a model can be asked about.

    Raises:
        TooMuch: too many, or one is too long.
        ValueError: none at all, or one is not a text; the message says which.
    """
    texts = _strings(values, content)
    for place, text in enumerate(texts):
        if len(text) > MAX_CHARACTERS:
            raise TooMuch(
                f"{content} {place} has {len(text)} characters; "
                f"a {content} may have {MAX_CHARACTERS}"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{content} {place} is not valid Unicode: it has a lone surrogate"
            ) from error
    return texts


def checked_images(values: Sequence[object]) -> list[str]:
    """Return the values if they look like base64 of images that a model can be asked about.

    Images are not decoded here; a damaged one is found when it is.

    Raises:
        TooMuch: too many, or too many pixels in all.
        ValueError: none at all, or one is no image; the message says which.
    """
    images = _strings(values, "image")
    pixels = 0
    for place, image in enumerate(images):
        try:
            pixels += pixels_in(image)
        except SourceError as error:
            raise ValueError(f"image {place}: {error}") from error
        if pixels > MAX_PIXELS:
            raise TooMuch(f"the images have more than {MAX_PIXELS:,} pixels, which are too many")
    return images


def require_few(values: Sequence[object], content: Content) -> None:
    """Refuse more contents than one request may carry, before anything is done with them.

    Raises:
        TooMuch: there are more.
    """
    if len(values) > MAX_CONTENTS:
        raise TooMuch(
            f"{len(values)} {content}s are too many; one request may carry {MAX_CONTENTS}"
        )


def _strings(values: Sequence[object], content: Content) -> list[str]:
    if not values:
        raise ValueError(f"there is no {content} to answer")
    require_few(values, content)
    strings = []
    for place, value in enumerate(values):
        if not isinstance(value, str):
            kind = _KINDS.get(type(value), "a value")
            raise ValueError(f"{content} {place} is not a string but {kind}")
        strings.append(value)
    return strings


def checked_records(values: Sequence[object]) -> list[str]:
    """Return the values as contents if they are records: objects, or JSON of such.

    Columns are not looked at here; an unknown one is found when a record is read.

    Raises:
        TooMuch: too many, or one is too long.
        ValueError: none at all, or one is no record; the message says which.
    """
    objects: list[object] = [
        canonical_json(value) if isinstance(value, dict) else value for value in values
    ]
    return checked_texts(objects, "record")


_CHECKED: dict[Content, Callable[[Sequence[object]], list[str]]] = {
    "text": checked_texts,
    "image": checked_images,
    "record": checked_records,
}

_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
}


class BundleModel:
    """A verified bundle, loaded and ready to predict, from several threads at once.

    Attributes:
        description: what the bundle says of itself.
        form: what answers: int8 or plain ONNX without torch, or torch.
        threads: how many callers at once are answered faster than one after another.
    """

    def __init__(
        self, description: bundle.Description, model: Model, form: Form = "safetensors"
    ) -> None:
        """Put the parts together; see ``load``."""
        self.description = description
        self.form = form
        # ONNX Runtime loses less in threads of its callers than it does in its own.
        self.threads = 1 if form == "safetensors" else _cores()
        self._model = model
        # A tokenizer keeps settings of the call in itself.
        self._encoding = threading.Lock()
        # An adopted model may have its labels in another order than the task.
        own = model.answer_names
        self._order = [own.index(name) for name in description.task.answer_names]

    @classmethod
    def load(
        cls, store: Store, digest: str, form: Form | None = None, trusted: Sequence[str] = ()
    ) -> Self:
        """Return the model of a published bundle.

        Args:
            store: where it is published.
            digest: which bundle.
            form: what is to answer; by default the fastest that the bundle carries.
            trusted: public keys of which one must have signed it; none: nobody must.

        Raises:
            BundleError: it is absent, altered, not signed, does not load or lacks the form.
            StoreError: the store cannot be reached.
        """
        signature.require(store, digest, trusted)
        folder = bundle.fetch(store, digest)
        description = bundle.Description.from_json((folder / bundle.DESCRIPTION).read_text())
        chosen = form or _fastest(description.exports)
        model = _loaded(folder, TASKS[description.task.kind], chosen)
        described = description.task.answer_names
        if set(model.answer_names) != set(described):
            raise BundleError(
                f"bundle {digest[:12]} describes the answers {', '.join(described)}, "
                f"but its model gives {', '.join(model.answer_names)}"
            )
        return cls(description, model, chosen)

    @property
    def content(self) -> Content:
        """What the model is asked about."""
        return self._model.content

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the task, none where answers are numbers."""
        return self.description.task.label_names

    @property
    def answer_names(self) -> tuple[str, ...]:
        """What the columns of ``answers`` are."""
        return self.description.task.answer_names

    @property
    def answer_range(self) -> float:
        """How far apart two answers can be."""
        return self._model.answer_range

    @property
    def rule(self) -> DecisionRule | None:
        """How it decides; None for the most probable label, and where answers are numbers."""
        return self._model.rule

    @property
    def sample(self) -> Prediction:
        """A prediction of nothing, to tell the form of all others."""
        return self._predictions(np.zeros((1, len(self.answer_names))))[0]

    def checked(self, values: Sequence[object]) -> list[str]:
        """Return the values if they are contents that one request may carry.

        Raises:
            ValueError, TooMuch: see ``checked_texts`` and ``checked_images``.
        """
        return _CHECKED[self.content](values)

    def accepts(self, content: str) -> bool:
        """Tell whether a request may carry a good content; one may be too large."""
        try:
            self.checked([content])
        except TooMuch:
            return False
        return True

    def answers(self, contents: Sequence[str]) -> NDArray[np.float64]:
        """Return the answers to contents ``[n, answers]``, in the order of the task.

        Raises:
            BundleError: the model gives something other than numbers.
            SourceError: one is an image that cannot be decoded; the message says which.
        """
        return self._answers(self._encoded(contents))[:, self._order]

    def respond(self, contents: Sequence[str]) -> Predicted:
        """Return one prediction for each content, and which were too long to be read whole.

        Raises:
            BundleError, SourceError: see ``answers``.
        """
        with self._encoding:
            examples = self._model.encode(contents)
            truncated = self._model.truncated(contents, examples)
        return Predicted(self._predictions(self._answers(examples)), truncated)

    def predict(self, contents: Sequence[str]) -> list[Prediction]:
        """Return one prediction for each content, in order.

        Raises:
            BundleError, SourceError: see ``answers``.
        """
        return self.respond(contents).predictions

    def warm_up(self) -> None:
        """Predict the bundle's examples, so that the first real request is not the slow one.

        Raises:
            BundleError: the model does not answer them.
        """
        try:
            self.predict(self.description.examples[:MAX_CONTENTS])
        except (ValueError, RuntimeError, IndexError, SourceError) as error:
            raise BundleError(f"the model does not answer its own examples: {error}") from error

    def _encoded(self, contents: Sequence[str]) -> list[Example]:
        with self._encoding:
            return self._model.encode(contents)

    def _answers(self, examples: Sequence[Example]) -> NDArray[np.float64]:
        if not examples:
            return np.zeros((0, len(self.answer_names)))
        order = length_order(examples)
        outputs = [
            self._model.network.infer(*self._model.inputs([examples[place] for place in places]))
            for places in _alike([len(example) for example in examples], order.tolist())
        ]
        answers = np.empty((len(examples), len(self._model.answer_names)))
        answers[order] = self._model.answers(np.concatenate(outputs))
        if not np.isfinite(answers).all():
            raise BundleError("the model's answers are not all finite numbers")
        return answers

    def _predictions(self, answers: NDArray[np.float64]) -> list[Prediction]:
        predictions = self._model.responses(answers)
        for prediction in predictions:
            for key, value in prediction.items():
                if isinstance(value, dict):
                    prediction[key] = {name: value[name] for name in self.answer_names}
        return predictions


def loader(
    form: Form | Literal["fastest"], trusted: Sequence[str] = ()
) -> Callable[[Store, str], BundleModel]:
    """Return what loads bundles in one form, or in the fastest that each carries.

    Args:
        form: which one.
        trusted: see ``BundleModel.load``.
    """
    return partial(BundleModel.load, form=None if form == "fastest" else form, trusted=trusted)


def _fastest(exports: Sequence[str]) -> Form:
    for form, file in _FILES.items():
        if file in exports:
            return form
    return "safetensors"


def _loaded(folder: Path, kind: type[Model], form: Form) -> Model:
    if form != "safetensors":
        return kind.load(folder, OnnxNetwork(folder / _FILES[form], threads=1))
    import torch

    model = kind.load(folder)
    if torch.cuda.is_available():
        model.network.to("cuda")
    return model


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _alike(lengths: Sequence[int], order: Sequence[int]) -> Iterator[list[int]]:
    """Yield places in ``order`` in batches of like lengths, see ``_PADDING``."""
    batch = [order[0]]
    for place in order[1:]:
        if lengths[place] > lengths[batch[0]] * (1 + _PADDING) or len(batch) == MAX_BATCH:
            yield batch
            batch = []
        batch.append(place)
    yield batch
