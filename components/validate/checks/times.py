"""Can a row have happened when it says?"""

from __future__ import annotations

import pandas as pd

from components.validate.config import ValidateConfig
from components.validate.sample import Mask, Sample

EPOCH = pd.Timestamp("1970-01-01", tz="UTC")


def times(sample: Sample, config: ValidateConfig) -> dict[str, Mask]:
    """Return the rows of before 1970, of after the run began, and of no time that can be read.

    A moment before the epoch is mostly a zero that was read as a date in another time zone.
    """
    if "time" not in sample.frame:
        return {}
    given = sample.frame["time"]
    moments = pd.to_datetime(given, errors="coerce", utc=True, format="ISO8601")
    found = {
        "unreadable-time": (given.notna() & moments.isna()).to_numpy(bool),
        "pre-epoch-time": (moments < EPOCH).to_numpy(bool),
    }
    if sample.horizon:
        found["future-time"] = (moments > pd.Timestamp(sample.horizon)).to_numpy(bool)
    return found
