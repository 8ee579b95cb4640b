"""One file per kind of model: how to load, encode, predict and score it."""

from __future__ import annotations

from components.tasks.text_classification import TextClassification, TextClassifier

TaskConfig = TextClassification
"""What the ``task`` section of a project may be."""

TASKS = {"text-classification": TextClassifier}
"""Kind of task to the class of its models. To add one: a file here and a line."""
