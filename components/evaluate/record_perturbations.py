"""Changes to a record that should not change what it says much."""

from __future__ import annotations

import json

import numpy as np

from components.settings import canonical_json
from components.tasks.columns import number_in

_SHARE = 0.01
"""By which a number may change."""


def rounding(content: str, chance: np.random.Generator) -> str:
    """Change each number that is no whole one by up to a hundredth."""
    fields: dict[str, str | None] = json.loads(content)
    for name, value in fields.items():
        number = number_in(value)
        if number == number and not number.is_integer():
            fields[name] = f"{number * (1 + chance.uniform(-_SHARE, _SHARE)):.6g}"
    return canonical_json(fields)


def left_out(content: str, chance: np.random.Generator) -> str:
    """Leave out one value, as where a field was not filled in."""
    fields: dict[str, str | None] = json.loads(content)
    there = [name for name, value in fields.items() if value is not None]
    if len(there) < 2:
        return content
    return canonical_json({**fields, there[int(chance.integers(len(there)))]: None})
