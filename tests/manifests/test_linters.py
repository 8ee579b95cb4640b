"""What other people's tools say of the manifests and the Dockerfile.

They do not live in the project's own environment: `make lint-manifests` installs them into
one of theirs.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OVERLAYS = ("local", "staging", "production", "everything")


def said_by(tool: str, *arguments: str) -> str:
    """Run a linter that must find nothing; return what it said."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not installed; run: make lint-manifests")
    done = subprocess.run(
        [path, *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_schemas_of_kubernetes_accept_it(rendered: Callable[[str], Path], overlay):
    words = said_by("kubernetes-validate", "--strict", str(rendered(overlay)))
    # Objects of others have no schema there; test_models.py looks at KServe's and Trainer's.
    assert "ERROR" not in words


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_checkov_finds_nothing(rendered: Callable[[str], Path], overlay):
    config = str(ROOT / "manifests" / ".checkov.yaml")
    said_by("checkov", "--config-file", config, "--file", str(rendered(overlay)))


def test_hadolint_finds_nothing():
    said_by("hadolint", str(ROOT / "docker" / "Dockerfile"))


def test_shellcheck_finds_nothing():
    scripts = [*(ROOT / "manifests").glob("*.sh"), *(ROOT / "tests" / "docker").glob("*.sh")]
    said_by("shellcheck", *map(str, scripts))
