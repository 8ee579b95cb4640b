"""Section ``validate``: what rows must be, and how grave it is if they are not."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from components.settings import Section

Severity = Literal["error", "warn", "off"]
CheckName = Literal[
    "schema",
    "conflicts",
    "characters",
    "injection",
    "pii",
    "times",
    "test_copies",
    "sufficiency",
    "completeness",
    "freshness",
    "row_count",
    "balance",
    "leak",
    "skew",
]
SEVERITY: dict[CheckName, Severity] = {
    "schema": "error",
    "conflicts": "error",
    "characters": "warn",
    "injection": "warn",
    "pii": "warn",
    "times": "warn",
    "test_copies": "warn",
    "sufficiency": "error",
    "completeness": "error",
    "freshness": "error",
    "row_count": "warn",
    "balance": "warn",
    "leak": "warn",
    "skew": "warn",
}
"""How grave a failure is unless a project says otherwise. An error puts a row into quarantine,
or ends the run before anything is trained; a warning is counted and shown."""
ALWAYS: tuple[CheckName, ...] = ("schema", "sufficiency")
"""Rows without a label, or too few of them, can be trained on by no setting."""


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


class ColumnRules(Section):
    """What the values of a column must be; a missing value is judged by the last two alone."""

    min: float | None = None
    max: float | None = None
    """Both ends belong to the range; a value that is no number is outside."""
    allowed: tuple[str, ...] | None = None
    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    """Regular expression that matches the whole value."""
    min_characters: int | None = Field(default=None, ge=0)
    max_characters: int | None = Field(default=None, ge=1)
    unique: bool = False
    max_missing_share: float | None = Field(default=None, ge=0, le=1)
    """Of the current window's rows; more ends the run."""

    @model_validator(mode="after")
    def _ends_are_in_order(self) -> ColumnRules:
        for low, high, what in (
            (self.min, self.max, "min"),
            (self.min_characters, self.max_characters, "min_characters"),
        ):
            if low is not None and high is not None and low > high:
                raise ValueError(f"{what} must not be above its {what.replace('min', 'max')}")
        return self


class RowCountConfig(Section):
    """Key ``row_count``: what makes a window suspiciously small or large."""

    min_windows: int = Field(default=4, ge=3)
    """Earlier windows that it takes to know what is usual."""
    max_p_value: float = Field(default=0.001, gt=0, lt=0.5)
    min_change: float = Field(default=0.5, ge=0)
    """A change by a smaller share of what is usual is never reported."""


class BalanceConfig(Section):
    """Key ``balance``: what makes the labels of a window suspicious."""

    max_p_value: float = Field(default=0.001, gt=0, lt=0.5)
    min_change: float = Field(default=0.15, ge=0, le=1)
    """Share of rows that would have to change their label; less is never reported."""


class SkewConfig(Section):
    """Key ``skew``: what makes a window suspiciously unlike what the server is asked."""

    max_p_value: float = Field(default=0.001, gt=0, lt=0.5)
    """Of all that is compared together."""
    min_change: float = Field(default=0.25, gt=0, le=1)
    """Distance of two distributions, 0 to 1; less is never reported."""
    min_rows: int = Field(default=100, ge=20)
    """Different contents on either side that it takes to say so."""


class ValidateConfig(Section):
    """Section ``validate``."""

    min_rows: int = Field(default=50, ge=10)
    """Fewer good rows in the current window are nothing to train on."""
    min_groups: int = Field(default=30, ge=10)
    """Fewer groups in the current window cannot be split three ways; a row without a
    declared group is one by itself."""
    min_rows_per_class: int = Field(default=5, ge=1)
    """A class with fewer rows in the current window counts as absent."""
    max_characters: int = Field(default=20_000, ge=1)
    """Of a text: as long as the server accepts."""
    columns: dict[str, ColumnRules] = {}
    """Rules by column: ``id``, ``group``, ``time``, ``text``, ``label``, and further ones that
    the source declares. ``tokiwa draft-schema`` drafts them."""
    max_age_days: float | None = Field(default=None, gt=0)
    """The newest row of a window may be so much older than the window's end."""
    row_count: RowCountConfig = RowCountConfig()
    balance: BalanceConfig = BalanceConfig()
    skew: SkewConfig = SkewConfig()
    max_label_given_away: float = Field(default=0.98, gt=0.5, le=1)
    """One column or word that tells a label as well as this (F1) is a leak."""
    severity: dict[CheckName, Severity] = {}
    """``error``, ``warn`` or ``off`` by check, where it is to be other than usual."""
    evidently: bool = False
    """Whether Evidently's data summary is made, too; needs the extra ``evidently``."""

    @model_validator(mode="after")
    def _some_checks_are_not_optional(self) -> ValidateConfig:
        for name in ALWAYS:
            if self.severity.get(name, "error") != "error":
                raise ValueError(f"severity: {name} is always an error: nothing learns without it")
        return self

    def severity_of(self, check: CheckName) -> Severity:
        """Return how grave a failure of a check is."""
        return self.severity.get(check, SEVERITY[check])
