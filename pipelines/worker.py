"""The process in which kfp runs a compiled graph: ``python -m pipelines.worker JOB.json``.

It is a process of its own so that the whole group of processes below it can be stopped
at once, and so that kfp's output can be read as a stream of events.

Steps are processes, or containers of their images with ``TOKIWA_RUNNER=docker``.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pipelines.nursery import forked_steps


def main() -> int:
    """Run the graph of a job; return the exit code."""
    job = json.loads(Path(sys.argv[1]).read_text())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    from kfp import components, local

    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    graph = components.load_component_from_file(job["graph"])
    try:
        with _runner(job["arguments"]) as runner:
            local.init(
                runner=runner,
                pipeline_root=job["pipeline_root"],
                raise_on_error=True,
                enable_caching=job["caching"],
                cache_root=job["cache_root"],
            )
            graph(**job["arguments"])
    except RuntimeError as error:
        print(error, flush=True)
        return 1
    return 0


def _runner(arguments: Mapping[str, object]) -> AbstractContextManager[Any]:
    """Return what runs the steps, as the environment asks for."""
    match os.environ.get("TOKIWA_RUNNER", "subprocess"):
        case "subprocess":
            return _processes()
        case "docker":
            from pipelines.containers import in_containers

            return in_containers(arguments, os.environ["TOKIWA_RUN"])
        case other:
            raise RuntimeError(f"TOKIWA_RUNNER is {other!r}; it can be subprocess or docker")


@contextmanager
def _processes() -> Iterator[Any]:
    """Yield kfp's runner for processes, which are forked where that can be done."""
    from kfp import local

    with forked_steps():
        yield local.SubprocessRunner(use_venv=False)


def _die_with_parent() -> None:
    """Stop this process and all below it when the parent is gone.

    The parent holds the other end of standard input and never writes to it, so that
    the end of the file means the end of the parent, however it came.
    """
    sys.stdin.read()
    os.killpg(os.getpgrp(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
