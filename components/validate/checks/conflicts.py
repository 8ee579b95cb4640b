"""Do two rows with the same content carry different labels?"""

from __future__ import annotations

import pandas as pd

from components.split import content_digest
from components.validate.config import ValidateConfig
from components.validate.sample import Mask, Sample


def conflicts(sample: Sample, config: ValidateConfig) -> dict[str, Mask]:
    """Return the rows that contradict each other, where labels exclude each other."""
    frame, task = sample.frame, sample.task
    if not task.exclusive or frame.empty:
        return {}
    contents = [content_digest(content or "") for content in frame["text"]]
    known = frame["label"].where(task.known(frame["label"]))
    labels = known.groupby(pd.Series(contents, index=frame.index)).transform("nunique")
    return {"conflicting-labels": ((labels > 1) & frame["text"].notna()).to_numpy(bool)}
