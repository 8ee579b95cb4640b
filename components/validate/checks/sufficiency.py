"""Is there enough to train on?"""

from __future__ import annotations

from components.validate.config import ValidateConfig
from components.validate.sample import Sample


def sufficiency(sample: Sample, config: ValidateConfig) -> dict[str, str]:
    """Return the first thing that is lacking: rows, labels, groups."""
    current, window = sample.current, sample.window
    if len(current) == 0:
        return {"no-rows": f"window {window} has no usable rows"}
    if len(current) < config.min_rows:
        return {
            "too-few-rows": f"window {window} has {len(current)} usable rows, "
            f"validate.min_rows asks for {config.min_rows}"
        }
    if lacking := sample.task.lacking(current["label"], config.min_rows_per_class):
        return {"labels-lacking": f"window {window} {lacking}"}
    groups = current["group"].nunique()
    if groups < config.min_groups:
        return {
            "too-few-groups": f"the rows of window {window} form {groups} groups, "
            f"validate.min_groups asks for {config.min_groups}"
        }
    return {}
