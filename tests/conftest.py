"""Fixtures that many tests share: real, small parts instead of mocks. See ``tests/fixtures``."""

from __future__ import annotations

import os

import pytest

pytest_plugins = (
    "tests.fixtures.servers",
    "tests.fixtures.models",
    "tests.fixtures.toy",
    "tests.fixtures.cases",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each of two workers begin with half of the tests that run whole pipelines.

    pytest-xdist gives each a half of the list, and the one that is done first takes over
    from the end of the other's; long tests at the end would be waited for.
    """
    long = [item for item in items if "desk" in getattr(item, "fixturenames", ())]
    short = [item for item in items if item not in set(long)]
    middle = len(items) // 2 - len(long[::2])
    items[:] = [*long[::2], *short[:middle], *long[1::2], *short[middle:]]


# Read by OpenMP when torch is loaded: threads that spin starve the other test processes.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
