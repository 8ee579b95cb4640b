from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def load_stand_in(name: str) -> Any:
    """Load a stand-in, which no package holds."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, Path(__file__).parents[2] / f"{name}.py"
        )
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def kserve_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster with KServe, which the SDK is led to."""
    kserve_api = load_stand_in("kserve_api").api_of(load_stand_in("kubernetes_api"))
    with kserve_api() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        yield server


@pytest.fixture
def prometheus() -> Iterator[Any]:
    """A Prometheus that knows what a test tells it."""
    with load_stand_in("kserve_api").Prometheus() as server:
        yield server
