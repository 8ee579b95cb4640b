"""One file per kind of model: how to load, encode, predict and score it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from components.tasks.image_classification import ImageClassification, ImageClassifier
from components.tasks.model import Model
from components.tasks.tabular_classification import TabularClassification, TabularClassifier
from components.tasks.text_anomaly import TextAnomaly, TextAnomalyDetector
from components.tasks.text_classification import TextClassification, TextClassifier
from components.tasks.text_regression import TextRegression, TextRegressor

TaskConfig = Annotated[
    TextClassification | TextRegression | TextAnomaly | ImageClassification | TabularClassification,
    Field(discriminator="kind"),
]
"""What the ``task`` section of a project may be."""

TASKS: dict[str, type[Model]] = {
    "text-classification": TextClassifier,
    "text-regression": TextRegressor,
    "text-anomaly": TextAnomalyDetector,
    "image-classification": ImageClassifier,
    "tabular-classification": TabularClassifier,
}
"""Kind of task to the class of its models. To add one: a file here and two lines."""

_TASK: TypeAdapter[TaskConfig] = TypeAdapter(TaskConfig)


def parse_task(text: str) -> TaskConfig:
    """Return the task in a JSON string; pydantic's ``ValidationError`` names every problem."""
    return _TASK.validate_json(text)
