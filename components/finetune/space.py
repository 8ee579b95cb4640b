"""Section ``finetune.search``: which hyperparameters to try, and how."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from components.settings import Section

Scalar = bool | int | float | str | None

FIXED = (
    "base",
    "calibrate",
    "checkpoint_steps",
    "choose_base",
    "device",
    "export",
    "metric",
    "nodes",
    "operating_point",
    "price_per_device_hour",
    "processes",
    "search",
    "seed",
    "sharded",
    "threads",
    "trainjob",
)
"""Keys of ``finetune`` that no search may vary: they say what is compared, and where."""


class Axis(Section):
    """The values that one key may take: some choices, or a range."""

    choices: tuple[Scalar, ...] | None = Field(default=None, min_length=1)
    low: float | None = None
    high: float | None = None
    """Included."""
    log: bool = False
    """Draw the logarithm evenly, as fits a learning rate."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Axis:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is None:
            if self.low is None or self.high is None:
                raise ValueError("a range needs both low and high")
            if self.low >= self.high:
                raise ValueError("low should be below high")
            if self.log and self.low <= 0:
                raise ValueError("with log, low should be above 0")
        elif self.log:
            raise ValueError("log is for a range, not for choices")
        elif len(set(map(repr, self.choices))) < len(self.choices):
            raise ValueError("a choice is given twice")
        return self

    def values(self) -> Iterator[tuple[tuple[str | int, ...], Scalar]]:
        """Yield the values that are written down, each with its place in this section."""
        if self.choices is not None:
            for index, choice in enumerate(self.choices):
                yield ("choices", index), choice
        else:
            for name in ("low", "high"):
                value = getattr(self, name)
                yield (name,), int(value) if value == int(value) else value


class SearchConfig(Section):
    """A search for good hyperparameters, by the score on the validation rows."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """``tpe`` learns from the trials before (Bergstra et al. 2011), ``grid`` tries every
    combination of the choices once."""
    trials: int = Field(default=12, ge=1, le=10_000)
    """Trainings to try, pruned and failed ones included; of a grid, all of it at least."""
    parallel: int = Field(default=1, ge=1, le=16)
    """Trials at a time. On one machine, two at most run at once."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Ends a trial early: when it is worse than the median of the others at the same epoch,
    or by successive halving (Li et al. 2018, https://arxiv.org/abs/1603.06560)."""
    space: dict[str, Axis] = Field(min_length=1)
    """Key of ``finetune``, dotted if it is within a section, to its values."""

    @model_validator(mode="after")
    def _grid_has_an_end(self) -> SearchConfig:
        if self.sampler == "grid":
            for key, axis in self.space.items():
                if axis.choices is None:
                    raise ValueError(f"a grid needs choices, and space.{key} is a range")
            if self.grid_size > self.trials:
                raise ValueError(
                    f"the grid has {self.grid_size} combinations, and trials is {self.trials}"
                )
        return self

    @property
    def grid_size(self) -> int:
        """How many combinations of choices there are."""
        return math.prod(len(axis.choices or ()) for axis in self.space.values())
