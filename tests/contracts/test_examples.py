"""Every example in a docstring gives what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITH_EXAMPLES = sorted(
    path.relative_to(ROOT).with_suffix("")
    for folder in ("components", "pipelines")
    for path in (ROOT / folder).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_there_are_examples():
    assert len(WITH_EXAMPLES) > 10


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=str)
def test_what_an_example_shows_is_so(path):
    module = importlib.import_module(".".join(path.parts))
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
