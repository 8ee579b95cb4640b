"""A bundle as the server answers with it; needs no server and no KServe.

The deploy step checks a challenger with this very code before anybody sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from components import bundle
from components.errors import BundleError
from components.store import Store
from components.tasks import TASKS
from components.tasks.text_classification import TextClassifier

MAX_TEXTS = 256
"""Texts in one request; one request may not keep all others waiting."""

MAX_CHARACTERS = 20_000
"""Characters in one text: far more than any model reads, but all of them are tokenized."""


class Prediction(NamedTuple):
    """The answer to one text."""

    label: str
    confidence: float
    """The probability of the label."""
    probabilities: dict[str, float]
    """By label, in the order of the task."""


class TooMuch(ValueError):
    """More or longer texts than one request may carry."""


def checked_texts(values: Sequence[object]) -> list[str]:
    """Return the values if they are texts that a model can be asked about.

    Raises:
        TooMuch: too many, or one is too long.
        ValueError: none at all, or one is not a text; the message says which.
    """
    if not values:
        raise ValueError("there is no text to classify")
    if len(values) > MAX_TEXTS:
        raise TooMuch(f"{len(values)} texts are too many; one request may carry {MAX_TEXTS}")
    texts = []
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(
                f"text {place} is not a string but {_KINDS.get(type(value), 'a value')}"
            )
        if len(value) > MAX_CHARACTERS:
            raise TooMuch(
                f"text {place} has {len(value)} characters; a text may have {MAX_CHARACTERS}"
            )
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text {place} is not valid Unicode: it has a lone surrogate"
            ) from error
        texts.append(value)
    return texts


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
    """A verified bundle, loaded and ready to predict.

    Not for several threads at once: a tokenizer keeps settings of the call in itself.
    """

    def __init__(self, description: bundle.Description, classifier: TextClassifier) -> None:
        """Put the parts together; see ``load``."""
        self.description = description
        self._classifier = classifier

    @classmethod
    def load(cls, store: Store, digest: str) -> Self:
        """Return the model of a published bundle.

        Raises:
            BundleError: it is absent, altered or does not load.
            StoreError: the store cannot be reached.
        """
        folder = bundle.fetch(store, digest)
        description = bundle.Description.from_json((folder / bundle.DESCRIPTION).read_text())
        classifier = TASKS[description.task.kind].load(folder)
        if set(classifier.labels) != set(description.task.labels):
            raise BundleError(
                f"bundle {digest[:12]} describes the labels {', '.join(description.task.labels)}, "
                f"but its model knows {', '.join(classifier.labels)}"
            )
        return cls(description, classifier)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes in the order of the task."""
        return self.description.task.labels

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Return one prediction for each text, in order.

        Raises:
            ValueError: see ``checked_texts``.
            BundleError: the model gives something other than numbers.
        """
        # tolist: plain floats go into JSON as they are.
        rows = self._classifier.predict(checked_texts(texts)).tolist()
        predictions = []
        for row in rows:
            by_label = dict(zip(self._classifier.labels, row, strict=True))
            probabilities = {label: by_label[label] for label in self.labels}
            label = max(probabilities, key=probabilities.__getitem__)
            # A comparison with NaN is false, so this catches it too.
            if not abs(sum(row) - 1) < 1e-6:
                raise BundleError(f"the model's probabilities do not add up to 1: {row}")
            predictions.append(Prediction(label, probabilities[label], probabilities))
        return predictions

    def warm_up(self) -> None:
        """Predict the bundle's examples, so that the first real request is not the slow one.

        Raises:
            BundleError: the model does not answer them.
        """
        try:
            self.predict(self.description.examples[:MAX_TEXTS] or ["warm-up"])
        except (ValueError, RuntimeError, IndexError) as error:
            raise BundleError(f"the model does not answer its own examples: {error}") from error
