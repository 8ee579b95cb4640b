"""Evidently's report of the same rows: a second opinion, in a form that many teams know."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from components.declared_columns import MISSING
from components.errors import ConfigError
from components.page import page, paragraph
from components.profile import Profile

SAMPLE_ROWS = 2000


def evidently_html(profile: Path, current: Path, wanted: bool) -> str:
    """Return Evidently's data-drift and data-summary report as a page.

    It sees a bounded sample, and no components of embeddings. A profile keeps columns
    apart from each other, so that rows of the reference are no rows of the data; Evidently's
    two presets look at columns only.

    Args:
        profile: the champion's bundle.
        current: folder that ``collect`` wrote.
        wanted: whether the project asked for it; otherwise the page says how to.

    Raises:
        ConfigError: the package is not installed.
    """
    if not wanted:
        return page("Evidently's report", paragraph("Set drift.evidently: true to see it here."))
    try:
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset, DataSummaryPreset
    except ImportError as error:
        raise ConfigError(
            "drift.evidently needs the package evidently; "
            "install it with pip install 'tokiwa[evidently]', or set it to false"
        ) from error
    reference = Profile.load(profile)
    frame = pd.read_parquet(current / "current.parquet")
    frame = frame.sample(min(len(frame), SAMPLE_ROWS), random_state=0)
    # Evidently takes no column that is empty, or whose type changed, on one side.
    numbers = [
        name
        for name, then in reference.numbers.items()
        if then.rows
        and name in frame
        and pd.api.types.is_numeric_dtype(frame[name])
        and np.isfinite(frame[name].to_numpy(np.float64)).any()
    ]
    categories = [name for name in reference.categories if name in frame and len(frame)]
    if not numbers and not categories:
        return page("Evidently's report", paragraph("No column has values on both sides."))
    now = frame[numbers].join(frame[categories].fillna(MISSING).astype(str))
    then = _reference(reference, numbers, categories)
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    sides = [Dataset.from_pandas(side, data_definition=definition) for side in (now, then)]
    report = Report([DataDriftPreset(), DataSummaryPreset()]).run(*sides)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "report.html"
        report.save_html(str(place))
        return place.read_text()


def _reference(profile: Profile, numbers: list[str], categories: list[str]) -> pd.DataFrame:
    """Return columns of as many values each, spread as the profile says."""
    rows = SAMPLE_ROWS
    shares = (np.arange(rows) + 0.5) / rows
    columns: dict[str, object] = {}
    for name in numbers:
        columns[name] = np.quantile(profile.numbers[name].values, shares)
    for name in categories:
        kinds, counts = zip(*profile.categories[name].items(), strict=True)
        edges = np.cumsum(counts) / sum(counts)
        columns[name] = np.array(kinds, object)[np.searchsorted(edges, shares)]
    return pd.DataFrame(columns)
