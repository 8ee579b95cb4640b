"""Evidently's data summary of the good rows: the same look, in a form that many teams know."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

from components.errors import ConfigError
from components.page import page, paragraph
from components.tasks import TaskConfig

SAMPLE_ROWS = 2000


def evidently_html(good: Path, window: str, task: TaskConfig, wanted: bool) -> str:
    """Return Evidently's data summary of the current window as a page.

    It sees a bounded sample; of a content its length alone.

    Args:
        good: folder that ``validate`` wrote.
        window: name of the current window.
        task: says what a label is.
        wanted: whether the project asked for it; otherwise the page says how to.

    Raises:
        ConfigError: the package is not installed.
    """
    if not wanted:
        return page("Evidently's summary", paragraph("Set validate.evidently: true to see it."))
    try:
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataSummaryPreset
    except ImportError as error:
        raise ConfigError(
            "validate.evidently needs the package evidently; "
            "install it with pip install 'tokiwa[evidently]', or set it to false"
        ) from error
    frame = pd.read_parquet(good / "rows.parquet")
    frame = frame[frame["window"] == window]
    if frame.empty:
        return page("Evidently's summary", paragraph(f"Window {window} has no good rows."))
    frame = frame.sample(min(len(frame), SAMPLE_ROWS), random_state=0)
    frame = frame.assign(characters=frame["text"].str.len())
    if not task.label_names:
        frame["label"] = pd.to_numeric(frame["label"])
    numbers = [name for name in frame if pd.api.types.is_numeric_dtype(frame[name])]
    further = [name for name in frame if name not in ("id", "group", "time", "text", "window")]
    kinds = [name for name in further if name not in numbers and frame[name].notna().any()]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=kinds)
    rows = frame[numbers + kinds].astype({name: str for name in kinds})
    report = Report([DataSummaryPreset()]).run(Dataset.from_pandas(rows, definition), None)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "report.html"
        report.save_html(str(place))
        return place.read_text()
