"""The store and MLflow as the manifests start them, in a real engine, on a read-only root."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.containers]

ROOT = Path(__file__).parents[2]
BASE = ROOT / "manifests" / "base"
IDENTITIES = ROOT / "manifests" / "overlays" / "local" / "s3.json"
NARROW = {
    "user": "65532:65532",
    "read_only": True,
    "cap_drop": ["ALL"],
    "network_mode": "none",
}
WAIT = """
import sys, time, urllib.request
for _ in range(240):
    try:
        sys.exit(urllib.request.urlopen(sys.argv[1]).status != 200)
    except OSError:
        time.sleep(0.5)
sys.exit(1)
"""
ASK = """
import json, sys
import boto3
from botocore.exceptions import ClientError
s3, answers = boto3.client("s3"), {}
def ask(name, question):
    try:
        question()
        answers[name] = "yes"
    except ClientError as error:
        answers[name] = error.response["Error"]["Code"]
for bucket in ("tokiwa", "tokiwa-mlflow"):
    ask(f"write {bucket}", lambda: s3.put_object(Bucket=bucket, Key="key", Body=b"x"))
    ask(f"list {bucket}", lambda: s3.list_objects_v2(Bucket=bucket))
for key in ("projects/sentiment/servers/one.json", "bundles/one/weights"):
    ask(f"write {key}", lambda: s3.put_object(Bucket="tokiwa", Key=key, Body=b"x"))
ask("create", lambda: s3.create_bucket(Bucket="another"))
print(json.dumps(answers))
"""
OBJECTS = ("write projects/sentiment/servers/one.json", "write bundles/one/weights")
HOST = """
import sys, urllib.error, urllib.request
address = "http://127.0.0.1:5000/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
request = urllib.request.Request(address, headers={"Host": sys.argv[1]})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def container_of(file: Path, kind: str) -> dict[str, Any]:
    """Return the container of the first object of a kind in a file of the base."""
    objects = yaml.safe_load_all(file.read_text())
    found = next(each for each in objects if each["kind"] == kind)
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return dict(container)


def said(container: Any, *command: str, **environment: str) -> str:
    done = container.exec_run(list(command), environment=environment)
    assert done.exit_code == 0, done.output.decode() + container.logs().decode()[-2000:]
    return str(done.output.decode()).strip()


def test_the_store_gives_each_identity_its_own(engine: Any, image_of: Callable[[str], Any]):
    weed = Path(sysconfig.get_path("scripts")) / "weed"
    store = container_of(BASE / "store" / "seaweedfs.yaml", "StatefulSet")
    buckets = container_of(BASE / "store" / "buckets.yaml", "Job")
    container = engine.containers.run(
        image_of("base").id,
        [*store["command"], *store["args"]],
        detach=True,
        volumes={
            str(weed): {"bind": "/usr/local/bin/weed", "mode": "ro"},
            str(IDENTITIES): {"bind": "/etc/tokiwa/s3.json", "mode": "ro"},
        },
        tmpfs={"/tmp": "mode=1777", "/data": "mode=1777"},
        **NARROW,
    )
    place = {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:8333",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    keys = {
        each["name"]: {
            "AWS_ACCESS_KEY_ID": each["credentials"][0]["accessKey"],
            "AWS_SECRET_ACCESS_KEY": each["credentials"][0]["secretKey"],
        }
        for each in json.loads(IDENTITIES.read_text())["identities"]
    }
    try:
        said(container, "python3", "-c", WAIT, "http://127.0.0.1:8333/status")
        said(container, "python3", "-c", WAIT, "http://127.0.0.1:9327/metrics")
        for _ in range(2):
            said(container, *buckets["command"], *buckets["args"], **place, **keys["admin"])
        may = {
            name: json.loads(said(container, "python3", "-c", ASK, **place, **keys[name]))
            for name in ("steps", "server", "mlflow")
        }
        listening = said(container, "cat", "/proc/net/tcp").splitlines()[1:]
    finally:
        container.remove(force=True)
    allowed = {
        name: {act for act, answer in acts.items() if answer == "yes"} for name, acts in may.items()
    }
    assert allowed == {
        "steps": {"write tokiwa", "list tokiwa", *OBJECTS},
        # Its sign of life, rollouts, requests and costs, and no weights.
        "server": {"list tokiwa", OBJECTS[0]},
        "mlflow": {"write tokiwa-mlflow", "list tokiwa-mlflow"},
    }
    # The ports that know of no identities are those of the pod alone; 0A is LISTEN.
    addresses = {line.split()[1] for line in listening if line.split()[3] == "0A"}
    assert all(address.startswith("0100007F:") for address in addresses)


def test_mlflow_answers_under_its_own_names_only(engine: Any, image_of: Callable[[str], Any]):
    described = container_of(BASE / "mlflow" / "mlflow.yaml", "Deployment")
    environment = {each["name"]: each["value"] for each in described["env"] if "value" in each}
    container = engine.containers.run(
        image_of("mlflow").id,
        detach=True,
        tmpfs={"/tmp": "mode=1777"},
        environment=environment
        | {
            "MLFLOW_BACKEND_STORE_URI": "sqlite:////tmp/mlflow.db",
            "MLFLOW_ARTIFACTS_DESTINATION": "/tmp/artifacts",
        },
        **NARROW,
    )
    try:
        said(container, "python3", "-c", WAIT, "http://127.0.0.1:5000/health")
        for name in ("tokiwa-mlflow:5000", "tokiwa-mlflow.tokiwa.svc:5000", "localhost:5000"):
            assert said(container, "python3", "-c", HOST, name) == "200", name
        assert said(container, "python3", "-c", HOST, "evil.example.com") == "403"
    finally:
        container.remove(force=True)
