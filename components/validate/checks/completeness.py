"""Are more values missing than a project allows?"""

from __future__ import annotations

from components.validate.config import ValidateConfig
from components.validate.sample import Sample


def completeness(sample: Sample, config: ValidateConfig) -> dict[str, str]:
    """Return the columns of the current window with too large a share of missing values."""
    current, found = sample.current, {}
    for name, rules in config.columns.items():
        if rules.max_missing_share is None or name not in current or current.empty:
            continue
        share = float(current[name].isna().mean())
        if share > rules.max_missing_share:
            found[f"missing-share-{name}"] = (
                f"{share:.1%} of the rows of window {sample.window} have no {name}, "
                f"validate.columns.{name}.max_missing_share allows {rules.max_missing_share:.1%}"
            )
    return found
