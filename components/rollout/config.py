"""Section ``deploy.rollout``: through which stages a challenger goes, and what it may not do."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from components.settings import Section

Kind = Literal["shadow", "canary", "ab"]


class Stage(Section):
    """One stage; it is passed when enough was seen and nothing is wrong."""

    kind: Kind
    """``shadow``: the champion answers, copies of requests go to the challenger. ``canary``:
    the challenger answers its share. ``ab``: likewise, but to its end, and then people decide."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Of the requests that the challenger gets. In a canary as many again are answered by
    both, in the background, so that answers and latencies go on being compared."""
    requests: int = Field(default=500, ge=1)
    """So many have to be seen by the challenger."""
    minutes: float = Field(default=0.0, ge=0)
    """So long it lasts at least."""


class RolloutConfig(Section):
    """Part ``rollout`` of the section ``deploy``."""

    stages: list[Stage] = Field(min_length=1)
    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """Probability that a stage turns down a challenger that keeps within all limits."""
    max_error_share: float = Field(default=0.01, gt=0, lt=1)
    """Of the challenger's requests may fail: no answer, a wrong one, or one too late."""
    max_slowdown: float = Field(default=0.5, ge=0)
    """By so much of the champion's latency the challenger may be slower, on geometric
    average: 0.5 is half as much again."""
    slack_ms: float = Field(default=5.0, ge=0)
    """Added to both latencies before they are compared, so that trifles are no slowdown."""
    max_disagreement: float = Field(default=0.25, gt=0, lt=1)
    """Of the rows may be answered otherwise than by the champion."""
    deadline_ms: float = Field(default=1000.0, gt=0)
    """After so long the champion answers a request of the challenger."""
    start_s: float = Field(default=120.0, gt=0)
    """Within so many seconds the challenger has to be loaded."""
    memory_mib: int = Field(default=4096, ge=1)
    """Resident memory of the challenger's process; above it the process is ended."""
    restarts: int = Field(default=1, ge=0)
    """So often a challenger that died is started again."""
    patience_hours: float = Field(default=72.0, gt=0)
    """A stage that has not seen enough by then is given up."""

    @model_validator(mode="after")
    def _the_share_grows(self) -> RolloutConfig:
        if any(stage.kind == "ab" for stage in self.stages[:-1]):
            raise ValueError("a stage ab is the last one: after it people decide")
        canaries = [stage.share for stage in self.stages if stage.kind == "canary"]
        if any(later <= earlier for earlier, later in pairwise(canaries)):
            raise ValueError("the shares of canary stages grow from stage to stage")
        kinds = [stage.kind for stage in self.stages]
        if kinds != sorted(kinds, key=["shadow", "canary", "ab"].index):
            raise ValueError("stages are in the order shadow, canary, ab")
        return self
