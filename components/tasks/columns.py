"""What is learnt of the columns of a table before a network reads them.

A number that is missing is marked as such, and otherwise takes the median's place; numbers are
scaled, so that no unit and no outlier outweighs the rest. The commonest values of a category
have a place each; rarer ones share one, and so do those that come later. All of this is learnt
from training rows alone, and kept in the bundle.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.errors import SourceError
from components.settings import Section, canonical_json

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["number", "category"]
Scaling = Literal["quantile", "standard"]
MISSING, OTHER = 0, 1
"""Places of a category that is not there, and of one that is none of the commonest."""
PLACES = 64
"""Places that each category has, with these two."""
QUANTILES = 101
_WHOLE = re.compile(r"(-?\d+)\.0+", re.ASCII)
_LARGE = 1e100
CLIPPED = 0.005
"""With scaling ``standard``, numbers beyond this quantile on either side are taken for it."""


class ColumnState(Section):
    """What was learnt of one column."""

    kind: Kind
    quantiles: list[float] = []
    """Of a number: from the smallest to the largest, evenly spaced."""
    mean: float = 0.0
    deviation: float = 1.0
    """Of a number, after clipping."""
    values: list[str] = []
    """Of a category: the commonest values, in the order of their places."""

    @classmethod
    def of(cls, kind: Kind, values: Sequence[str | None]) -> ColumnState:
        """Return what is learnt of the values of a column; nothing of an empty one."""
        there = [value for value in values if value is not None]
        if kind == "category":
            spelled = Counter(map(spelling, there))
            counts = sorted(spelled.items(), key=lambda each: (-each[1], each[0]))
            return cls(kind=kind, values=[value for value, _ in counts[: PLACES - 2]])
        numbers = np.array([number_in(value) for value in there], dtype=np.float64)
        numbers = numbers[np.isfinite(numbers)]
        if not len(numbers):
            return cls(kind=kind)
        # What is squared below must not overflow, or one such number is the end of the column.
        largest = float(np.abs(numbers).max())
        unit = largest if largest > _LARGE else 1.0
        numbers = numbers / unit
        low, high = np.quantile(numbers, [CLIPPED, 1 - CLIPPED])
        clipped = numbers.clip(low, high)
        return cls(
            kind=kind,
            quantiles=(np.quantile(numbers, np.linspace(0, 1, QUANTILES)) * unit).tolist(),
            mean=float(clipped.mean() * unit),
            deviation=float(clipped.std() * unit) or 1.0,
        )

    def place(self, value: str | None) -> int:
        """Return the place of a category; before anything was learnt, one by its hash."""
        if value is None:
            return MISSING
        value = spelling(value)
        if not self.values:
            digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
            return 2 + int.from_bytes(digest[:4]) % (PLACES - 2)
        # Older bundles hold whole numbers as their tables wrote them.
        known = next((each for each in (value, f"{value}.0") if each in self.values), None)
        return OTHER if known is None else 2 + self.values.index(known)

    def scaled(self, numbers: NDArray[np.float64], scaling: Scaling) -> NDArray[np.float64]:
        """Return numbers ``[n]`` as a network reads them, about from -3 to 3; NaN stays NaN.

        With ``quantile`` they get the distribution of a standard normal: their rank among the
        training rows decides (Gorishniy et al. 2021 do the same).
        """
        if not self.quantiles:
            return np.arcsinh(numbers)
        if scaling == "standard":
            steps = QUANTILES - 1
            low, high = np.interp(
                [CLIPPED * steps, (1 - CLIPPED) * steps], np.arange(QUANTILES), self.quantiles
            )
            return (numbers.clip(low, high) - self.mean) / self.deviation
        from scipy.special import ndtri

        # Equal quantiles share the middle of their ranks, from either side.
        ranks = np.linspace(0, 1, QUANTILES)
        upward = np.interp(numbers, self.quantiles, ranks)
        downward = 1 - np.interp(-numbers, [-each for each in self.quantiles[::-1]], ranks)
        return np.asarray(ndtri(((upward + downward) / 2).clip(0.001, 0.999)))


def spelling(value: str) -> str:
    """Return a category with one spelling of whole numbers.

    A table writes a code as ``1.0`` as soon as one is missing, and a client sends ``1``.

    Examples:
        >>> spelling("1.0"), spelling("-2.00"), spelling("1.5"), spelling("v1.0")
        ('1', '-2', '1.5', 'v1.0')
    """
    found = _WHOLE.fullmatch(value)
    return found[1] if found else value


def number_in(value: str | None) -> float:
    """Return a text as a finite number, NaN for anything else."""
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def record_of(values: Mapping[str, Any]) -> str:
    """Return the content of a row of a table: JSON with a text or null for each column.

    Examples:
        >>> record_of({"age": 34, "state": " MA ", "income": 1.5, "job": None, "self": True})
        '{"age":"34","income":"1.5","job":null,"self":"true","state":"MA"}'
    """
    return canonical_json({name: _text(value) for name, value in values.items()})


def records_of(frame: pd.DataFrame) -> list[str]:
    """Return the content of each row of a table, see ``record_of``.

    Columns hold few different values, so that each is written once.
    """
    parts = []
    for name in sorted(frame):
        key = canonical_json(str(name))
        written = {value: f"{key}:{canonical_json(_text(value))}" for value in frame[name].unique()}
        parts.append([written[value] for value in frame[name]])
    return ["{" + ",".join(row) + "}" for row in zip(*parts, strict=True)]


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def fields_of(content: str, columns: Sequence[str]) -> dict[str, str | None]:
    """Return the values of a record by column; what it does not name is missing.

    Raises:
        SourceError: it is no JSON object, names other columns, or holds more than values.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SourceError("not a JSON object") from error
    if not isinstance(found, dict):
        raise SourceError("not a JSON object")
    if unknown := sorted(set(found) - set(columns)):
        raise SourceError(f"no such column: {unknown[0]!r}; there are {', '.join(columns)}")
    if nested := [name for name, value in found.items() if isinstance(value, list | dict)]:
        raise SourceError(f"the value of {nested[0]!r} is no text, number or null")
    return {name: _text(found.get(name)) for name in columns}
