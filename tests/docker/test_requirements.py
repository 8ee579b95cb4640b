"""What the images install: pinned, and no more names than the project knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTS = ("base", "train", "serve", "mlflow")


def names_in(file: Path) -> list[str]:
    lines = [line.strip() for line in file.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def pinned() -> set[str]:
    return {name.partition("==")[0] for name in names_in(ROOT / "constraints.txt")}


@pytest.mark.parametrize("kind", LISTS)
def test_every_image_installs_pinned_packages_in_order(kind):
    names = names_in(ROOT / "docker" / f"{kind}.txt")
    assert {name for name in names if "==" not in name} <= pinned()
    assert len(names) == len(set(names))


def test_the_dockerfile_builds_every_list():
    content = (ROOT / "docker" / "Dockerfile").read_text()
    for kind in LISTS:
        assert f"-r {kind}.txt" in content
        assert f"AS {kind}\n" in content


def test_only_what_the_dockerfile_copies_is_sent_to_the_engine():
    sent = {
        line.removeprefix("!") for line in names_in(ROOT / ".dockerignore") if line.startswith("!")
    }
    copied = {
        word.partition("/")[0]
        for line in (ROOT / "docker" / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == sent


def test_bake_and_make_build_the_same():
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    bake = (ROOT / "docker" / "docker-bake.hcl").read_text()
    make = (ROOT / "Makefile").read_text()
    targets = [re.findall(r'"(\w+)"', each) for each in re.findall(r"= (\[[^]]*\]) ?[}\n]", bake)]
    kinds = re.findall(r"^KINDS \?= (.*)$", make, re.M)[0].split()
    assert kinds == list(LISTS) and targets.count(kinds) == 2  # the group and the matrix
    arguments = set(re.findall(r"^ARG (\w+)", dockerfile, re.M))
    assert set(re.findall(r"^    (\w+) += ", bake, re.M)) == arguments
    assert set(re.findall(r"--build-arg (\w+)=", make)) == arguments
    assert "tokiwa-python-${kind}:${TAG}" in bake and "tokiwa-python-$$kind:$(TAG)" in make
