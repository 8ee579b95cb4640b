"""Fixtures that many tests share: a real S3 server, and a store of each kind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sysconfig
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from components.store import LocalStore, Store, open_store

BUCKET = "tokiwa-tests"
ACCESS_KEY = "tokiwa"
SECRET_KEY = "only-for-tests"
START_S = 60


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run SeaweedFS on loopback for the session; its bucket is there and takes objects."""
    home = tmp_path_factory.mktemp("seaweedfs")
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (home / "s3.json").write_text(json.dumps({"identities": [identity]}))
    roles = ["master", "volume", "filer", "s3"]
    names = [f"-{role}.port{kind}" for role in roles for kind in ("", ".grpc")]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"),
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={home}",
        "-filer",
        "-s3",
        "-s3.config=s3.json",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        # Else an admin's typing error in a bucket's name makes a new bucket.
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=200",
        *(f"-{role}.localSocket={home}/{role}.sock" for role in ("filer", "s3")),
        *(f"{name}={port}" for name, port in ports.items()),
    ]
    log = home / "log.txt"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=home,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "GOMEMLIMIT": "250MiB"},
        )
    try:
        endpoint = f"http://127.0.0.1:{ports['-s3.port']}"
        _await_bucket(endpoint, server, log)
        yield endpoint
    finally:
        server.kill()  # on SIGTERM it takes its time, and its data goes anyway
        server.wait(10)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _await_bucket(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )
    steps = [
        lambda: client.create_bucket(Bucket=BUCKET),
        lambda: client.put_object(Bucket=BUCKET, Key="ready", Body=b"1"),
    ]
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            steps[0]()
        except (BotoCoreError, ClientError):
            time.sleep(0.1)
            continue
        del steps[0]
        if not steps:
            return
    pytest.fail(f"SeaweedFS did not start:\n{log.read_text(errors='replace')[-3000:]}")


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address that no other test uses, with the environment that opens it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    # Nothing of the developer's own account may take part.
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: each test that takes it runs on disk and on S3."""
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    return open_store(request.getfixturevalue("s3_url"))
