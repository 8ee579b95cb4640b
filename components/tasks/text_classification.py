"""Text classification: one label out of two or more for a text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from components.errors import BundleError
from components.tasks.classification import Classifier, Labels, LabelTask
from components.tasks.text import (
    TextModel,
    TextTask,
    load_pretrained,
    load_tokenizer,
    usable_tokens,
)
from components.tasks.weights import loading


class TextClassification(LabelTask, TextTask):
    """Section ``task`` with ``kind: text-classification``."""

    kind: Literal["text-classification"] = "text-classification"
    labels: Labels
    """The classes, in the order of the model's outputs."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.labels


class TextClassifier(Classifier, TextModel):
    """An encoder with a classification head."""

    @classmethod
    def adopt(cls, folder: Path, task: TextClassification) -> Self:
        """Return the transformers sequence classifier in ``folder`` as it stands.

        Raises:
            BundleError: it does not load, or its labels are not the task's.
        """
        from transformers import AutoModelForSequenceClassification

        from components.tasks.networks import NativeNetwork

        what = f"the classifier in {folder}"
        with loading(what):
            model = load_pretrained(AutoModelForSequenceClassification, folder, what)
            tokenizer = load_tokenizer(folder)
        own = [model.config.id2label[index] for index in range(model.config.num_labels)]
        if set(own) != set(task.labels):
            raise BundleError(
                f"the model in {folder} knows the labels {', '.join(own)}, "
                f"the project {', '.join(task.labels)}"
            )
        limit = usable_tokens(model.config, task.max_tokens)
        return cls(NativeNetwork(model), tokenizer, limit, {"labels": own}, "native", task.clean)
