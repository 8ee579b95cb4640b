"""Run the steps of a local run in their images, as a cluster does: kfp's DockerRunner, mended.

kfp 2.17 lets the engine remove a container as soon as it ends, and takes one that is gone
before it was asked how it ended for a success (kubeflow/pipelines#13332). Here a container is
removed once its exit code is known.

A container is as narrow as a pod: the root file system cannot be written, no capabilities,
the user of this process. It sees the folder of the run, the home folder, and read-only what
the arguments of the graph name on this disk, all under their own paths.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components import home

RUN_LABEL = "tokiwa.run"
SHARED_MEMORY = "1g"
"""For loaders with several processes; the engine's own default is 64 MiB."""
ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "OMP_NUM_THREADS",
)
"""Variables that the steps get beside those of Tokiwa."""


@contextmanager
def in_containers(arguments: Mapping[str, object], run: str) -> Iterator[Any]:
    """Yield a runner for ``kfp.local``; afterwards no container of the run is left.

    Args:
        arguments: of the graph.
        run: id of the run, a label of its containers.

    Raises:
        RuntimeError: there is no Docker engine.
    """
    from docker.client import DockerClient
    from docker.errors import DockerException
    from kfp import local
    from kfp.local import docker_task_handler

    try:
        engine = DockerClient.from_env()
        engine.ping()
    except DockerException as error:
        raise RuntimeError(
            "there is no Docker engine for TOKIWA_RUNNER=docker; start it, or unset the "
            f"variable to run the steps as processes ({error})"
        ) from error
    docker_task_handler.run_docker_container = _container_of(arguments, run)
    # A container is no child of this process: who stops the run does not reach it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield local.DockerRunner()
    finally:
        for left in engine.containers.list(all=True, filters={"label": f"{RUN_LABEL}={run}"}):
            left.remove(force=True)
        engine.close()


def _container_of(arguments: Mapping[str, object], run: str) -> Callable[..., int]:
    """Return what takes the place of kfp's own function."""
    folders = {str(home.home()): "rw"}
    if "://" not in home.store_url():
        folders[str(Path(home.store_url()).resolve())] = "rw"
    for path in _paths_in(arguments):
        folders.setdefault(path, "ro")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("TOKIWA_") or name in ENVIRONMENT
    } | {"TOKIWA_HOME": str(home.home())}

    def run_container(
        client: Any,
        image: str,
        command: list[str],
        volumes: dict[str, dict[str, str]],
        **given: Any,
    ) -> int:
        """Run a step to its end and return its exit code."""
        seen = {path: {"bind": path, "mode": mode} for path, mode in folders.items()}
        container = client.containers.run(
            image,
            command,
            detach=True,
            volumes=seen | volumes,
            environment=environment | given.pop("environment", {}),
            labels={RUN_LABEL: run},
            network_mode="host",
            user=f"{os.getuid()}:{os.getgid()}",
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},
            shm_size=SHARED_MEMORY,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            **given,
        )
        try:
            for chunk in container.logs(stream=True):
                # Bytes: a chunk may end within a character.
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            return int(container.wait()["StatusCode"])
        finally:
            container.remove(force=True)

    return run_container


def _paths_in(arguments: Mapping[str, object]) -> set[str]:
    """Return the files and folders of this disk that the arguments name.

    Sections are strings of JSON; a path in them is absolute.
    """
    found: set[str] = set()
    waiting: list[object] = list(arguments.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value[:1] in ("{", "["):
            try:
                waiting.append(json.loads(value))
            except ValueError:
                continue
        elif isinstance(value, str) and value.startswith("/") and Path(value).exists():
            found.add(value)
    return found
