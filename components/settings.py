"""Base of every configuration section and report: frozen, strict, JSON in and out."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen record that refuses unknown keys and travels as one JSON string.

    A pipeline hands each section to its step as a JSON string parameter, because
    kfp turns the numbers inside lists and dicts into floats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse a section; pydantic's ``ValidationError`` names every problem."""
        return cls.model_validate_json(text)

    def to_json(self) -> str:
        """Return the canonical JSON: sorted keys, no spaces, the same for equal values."""
        return canonical_json(self.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """Return JSON that is equal for equal values, so that it can be hashed and compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """Return the sha256 (hex) of a JSON-able value's canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
