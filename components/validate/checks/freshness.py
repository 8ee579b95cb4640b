"""Do the rows reach up to the end of their window?"""

from __future__ import annotations

import pandas as pd

from components.validate.config import ValidateConfig
from components.validate.sample import Sample


def freshness(sample: Sample, config: ValidateConfig) -> dict[str, str]:
    """Return that the newest row is too old, as where a delivery broke off midway."""
    times = pd.to_datetime(
        sample.current["time"], errors="coerce", utc=True, format="ISO8601"
    ).dropna()
    if config.max_age_days is None or not sample.window_end or times.empty:
        return {}
    age_days = (pd.Timestamp(sample.window_end) - times.max()) / pd.Timedelta(days=1)
    if age_days <= config.max_age_days:
        return {}
    return {
        "stale": f"the newest row of window {sample.window} is {age_days:.1f} days older than the "
        f"window's end, validate.max_age_days allows {config.max_age_days:g}"
    }
