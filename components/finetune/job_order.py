"""An order to fine-tune as it travels to the pods of a ``TrainJob``."""

from __future__ import annotations

from components.finetune.config import FinetuneConfig
from components.finetune.core import Start
from components.settings import Section
from components.tasks import TaskConfig


class JobOrder(Section):
    """An order as pods read it: what was a folder of the step lies in the storage."""

    start: Start
    """Its pretrained model is in a package of the image, or else lies in the storage."""
    champion: str
    """Digest of the bundle, or empty."""
    task: TaskConfig
    config: FinetuneConfig
    lineage: dict[str, str]
    training: str


def is_in_image(start: Start) -> bool:
    """Tell whether the pods have the pretrained model already, in a package of their image."""
    return ":" in start.base.place
