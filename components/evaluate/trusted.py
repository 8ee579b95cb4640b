"""The trusted rows of ``evaluate.holdout``: a file that no source writes to.

Its sha256 is part of the project, so that it is no outside state: the same project reads
the same rows, or stops.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pandas as pd

from components import packages
from components.errors import ConfigError
from components.evaluate.config import HoldoutConfig
from components.split import content_digest
from components.tasks import TaskConfig


def trusted_rows(config: HoldoutConfig, task: TaskConfig) -> pd.DataFrame:
    """Return the trusted rows, each with the columns that every row has.

    Rows without a ``group`` of their own are one if their contents are the same.

    Args:
        config: where the file lies, and its digest.
        task: says which contents and labels are good.

    Raises:
        ConfigError: the file is not there or not the pinned one, or has no such rows.
    """
    path = packages.locate(config.path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"evaluate.holdout: {path} cannot be read: {error}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != config.sha256:
        raise ConfigError(
            f"evaluate.holdout: {path} has the sha256 {found}, not {config.sha256}; "
            "trusted rows never change: put the file back, or pin it anew if you changed it"
        )
    frame = _table(data, path.suffix, str(path))
    lacking = [name for name in (task.content, "label") if name not in frame]
    if lacking:
        raise ConfigError(
            f"evaluate.holdout: {path} has no readable columns {task.content} and label: "
            f"it has {', '.join(map(str, frame))}"
        )
    contents, labels = frame[task.content], frame["label"]
    bad = int(contents.isna().sum() + (~task.readable(contents.dropna())).sum())
    if bad:
        raise ConfigError(f"evaluate.holdout: {path} has {bad} rows without a good {task.content}")
    known = task.known(labels)
    if not known.all():
        raise ConfigError(
            f"evaluate.holdout: {path} has {int((~known).sum())} labels not of the task"
        )
    if frame.empty:
        raise ConfigError(f"evaluate.holdout: {path} has no rows")
    groups = [content_digest(each) for each in contents]
    if "group" in frame:
        groups = [own or other for own, other in zip(frame["group"], groups, strict=True)]
    return pd.DataFrame(
        {
            "id": [f"holdout-{number}" for number in range(len(frame))],
            "group": groups,
            "window": "holdout",
            "split": "holdout",
            "text": contents,
            "label": labels,
        }
    )


def _table(data: bytes, suffix: str, path: str) -> pd.DataFrame:
    """Return a table of strings; what is missing is None."""
    file = io.BytesIO(data)
    readers: dict[str, Any] = {
        ".csv": lambda: pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""]),
        ".jsonl": lambda: pd.read_json(file, lines=True, dtype=False),
        ".parquet": lambda: pd.read_parquet(file),
    }
    if suffix not in readers:
        raise ConfigError(f"evaluate.holdout: {path} is none of {', '.join(readers)}")
    try:
        frame = readers[suffix]().astype(object)
    except ValueError as error:  # also of pandas' and Arrow's own kinds
        raise ConfigError(f"evaluate.holdout: {path} cannot be read: {error}") from error
    return frame.where(frame.notna(), None).map(lambda value: None if value is None else str(value))
