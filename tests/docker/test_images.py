"""The images, in a real engine: narrow, pinned, and at home under a strange user.

`make images` builds them; without a Docker engine, or without them, all of this is skipped.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.containers]

ROOT = Path(__file__).parents[2]
KINDS = ("base", "train", "serve", "mlflow")
STRANGER = "48213:0"
"""A user without an entry in /etc/passwd."""
SENTENCE = {
    "base": "import kfp.dsl.executor_main, components.resolve.core, components.drift.core, mlflow",
    "train": "import kfp.dsl.executor_main, components.finetune.core, torch, transformers, peft",
    "serve": "import components.serve.server, components.serve.model, torch, onnxruntime",
    "mlflow": "import mlflow.server, psycopg2, boto3",
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(kind: str, engine: Any, image_of: Any) -> Any:
    return image_of(kind)


@pytest.fixture
def said(engine: Any, image: Any) -> Any:
    """Run a command in the image as narrowly as a pod does, and return its exit code and words."""

    def run(*command: str) -> tuple[int, str]:
        container = engine.containers.run(
            image.id,
            entrypoint=list(command),
            command=[],
            detach=True,
            user=STRANGER,
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode="none",
            # As kfp starts a step; without it, kfp imports its compiler.
            environment={"_KFP_RUNTIME": "true"},
        )
        try:
            code = container.wait()["StatusCode"]
            return code, container.logs().decode()
        finally:
            container.remove(force=True)

    return run


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_a_stranger_runs_it_on_a_root_that_cannot_be_written(said, kind):
    code, words = said("python3", "-W", "ignore", "-c", SENTENCE[kind])
    assert code == 0, words


def test_nothing_but_tmp_can_be_written(said):
    places = "/ /app /app/components /opt/tokiwa /usr /etc /root"
    refused = f"for p in {places}; do touch $p/x 2>/dev/null && echo $p && exit 1; done"
    code, words = said("sh", "-c", f"{refused}; touch /tmp/x")
    assert code == 0, words


def test_it_holds_no_tool_that_builds_or_installs(said):
    tools = "pip pip3 gcc cc g++ make ld git curl wget"
    code, words = said("sh", "-c", f"for t in {tools}; do command -v $t && exit 1; done; exit 0")
    assert code == 0, words
    code, words = said("python3", "-c", "import pip")
    assert code == 1 and "ModuleNotFoundError" in words


def test_it_holds_no_cache_and_no_secret_of_its_build(said):
    places = "~root/.cache /run/secrets /etc/pip.conf /build /tmp/* /var/cache/apt/archives/*.deb"
    code, words = said("sh", "-c", f"for p in {places}; do [ -e $p ] && echo $p; done; exit 0")
    assert (code, words) == (0, "")


def test_what_is_installed_is_pinned(said):
    program = (
        "from importlib import metadata; "
        "print(*(f'{d.name}=={d.version}' for d in metadata.distributions()), sep='\\n')"
    )
    code, words = said("python3", "-c", program)
    assert code == 0, words
    pinned, found = pins(), 0
    for line in words.split():
        name, _, version = line.partition("==")
        name = re.sub("[-_.]+", "-", name).lower()
        if name in pinned:
            assert version.partition("+")[0] == pinned[name], name
            found += 1
    assert found > 20


def test_its_bill_of_materials_names_what_is_in_it(said):
    code, words = said("cat", "/opt/tokiwa/sbom.cdx.json")
    assert code == 0, words
    bill = json.loads(words)
    assert bill["bomFormat"] == "CycloneDX"
    named = {part["name"]: part["version"] for part in bill["components"]}
    assert named["boto3"] == pins()["boto3"]
    assert all(part.get("purl", "").startswith("pkg:pypi/") for part in bill["components"])


def test_its_labels_and_user_are_set(image, kind):
    config = image.attrs["Config"]
    assert config["User"] == "65532:65532"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"tokiwa-python-{kind}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {"org.opencontainers.image.version", "org.opencontainers.image.revision"} <= set(labels)
    assert bool(config.get("Healthcheck")) == (kind in ("serve", "mlflow"))


def test_the_server_is_alive_and_waits_for_a_champion(engine, image_of, tmp_path):
    port = 18080
    container = engine.containers.run(
        image_of("serve").id,
        ["--prefix", "projects/sentiment", "--port", str(port), "--store", "/tmp/objects"],
        detach=True,
        user=STRANGER,
        read_only=True,
        tmpfs={"/tmp": "mode=1777"},
        cap_drop=["ALL"],
        network_mode="host",
    )
    try:
        address = f"http://127.0.0.1:{port}/v2/health"
        while status_of(f"{address}/live") != 200:
            container.reload()
            assert container.status == "running", container.logs().decode()
            time.sleep(0.2)
        assert status_of(f"{address}/ready") == 503
        container.stop(timeout=30)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0
    finally:
        container.remove(force=True)


def status_of(address: str) -> int:
    """Return the status of an answer, 0 if nobody listens."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0
