"""In which form a column writes times, told from its values."""

from __future__ import annotations

import pandas as pd

from components.sources.columns import EPOCHS, ISO

_PATTERNS = (
    *("%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S"),
    *("%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S"),
    *("%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S"),
    *("%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S"),
)
SAMPLE_ROWS = 1000
"""A form that reads none of the first so many values is not tried on the others."""
AWARE = f"{ISO} with an offset"
_OFFSET = r"[Tt ]\d.*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"
_EARLIEST, _LATEST = pd.Timestamp("1990-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")
"""Between them a number may be a time."""


def moments_of(column: pd.Series[str], form: str) -> pd.Series[pd.Timestamp]:
    """Return the moments that a form of ``source.columns.time_format`` reads, NaT for none."""
    if form in EPOCHS:
        numbers = pd.to_numeric(column, errors="coerce") * EPOCHS[form]
        moments = pd.to_datetime(numbers, unit="us", errors="coerce", utc=True)
        return moments.where((moments > _EARLIEST) & (moments < _LATEST))
    written = "ISO8601" if form == ISO else form
    return pd.to_datetime(column, format=written, errors="coerce", utc=True)


def forms_of(column: pd.Series[str]) -> dict[str, int]:
    """Return the forms that read some values of a column, with how many; the most first.

    >>> forms_of(pd.Series(["2026-01-05", "06.01.2026", "soon"]))
    {'iso': 1, '%d.%m.%Y': 1}
    """
    there = column.dropna()
    first = there.head(SAMPLE_ROWS)
    likely = [form for form in (ISO, *_PATTERNS) if moments_of(first, form).notna().any()]
    counts = {form: int(moments_of(there, form).notna().sum()) for form in likely}
    aware = int((moments_of(there, ISO).notna() & there.str.contains(_OFFSET)).sum())
    counts |= {ISO: counts.get(ISO, 0) - aware, AWARE: aware}
    if not any(counts.values()):
        counts = {form: int(moments_of(there, form).notna().sum()) for form in EPOCHS}
    return dict(sorted(((f, n) for f, n in counts.items() if n), key=lambda each: -each[1]))


LEAST_SHARE = 0.95
"""So many of a column's values must be times of one form, if it holds times."""


def form_of(column: pd.Series[str]) -> str | None:
    """Return the form that reads nearly each value of a column; None if none or several do.

    >>> form_of(pd.Series(["13/01/2026", "02/03/2026"])), form_of(pd.Series(["02/03/2026"]))
    ('%d/%m/%Y', None)
    """
    counts = forms_of(column)
    most = max(counts.values(), default=0)
    if most < LEAST_SHARE * len(column) or {ISO, AWARE} <= set(counts):
        return None
    first = [form for form, count in counts.items() if count == most]
    if ISO in first or AWARE in first:
        return ISO
    return first[0] if len(first) == 1 else None


def forms_in_words(column: pd.Series[str]) -> str:
    """Say in which forms times are written."""
    counts = [f"{form} in {rows:,} rows" for form, rows in forms_of(column).items()]
    empty = int(column.isna().sum())
    return ", ".join([*counts, *([f"empty in {empty:,}"] if empty else [])]) or "none is known"
