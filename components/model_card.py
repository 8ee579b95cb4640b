"""What the card of a pretrained model says of it: YAML before the text of its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CARD = "README.md"
FENCE = "---"


def licence_of(folder: Path) -> str:
    """Return the licence that a model's card names, empty if it names none."""
    licence = read(folder).get("license", "")
    return licence if isinstance(licence, str) else ""


def read(folder: Path) -> dict[str, Any]:
    """Return what stands before the text of a model's card, nothing where that is unreadable."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    fence, _, rest = text.partition("\n")
    if fence.strip() != FENCE:
        return {}
    try:
        found = yaml.safe_load(rest.split(f"\n{FENCE}", 1)[0])
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
