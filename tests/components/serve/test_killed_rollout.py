"""A server that is killed in the middle of a rollout, and started again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from components.rollout.config import Stage

TEXTS = ["the film was good", "a very dull story"]


@contextmanager
def process(world, until):
    """Run the container's entry; give it and a client once its champion answers."""
    command = [sys.executable, "-m", "components.serve", "--port", "0", "--poll-s", "0.05"]
    place = ["--store", str(world.store.root), "--prefix", world.prefix]
    with subprocess.Popen([*command, *place], stderr=subprocess.PIPE, text=True) as server:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(server.stderr or ()))
        reader.start()
        try:
            until(lambda: any("listening" in line for line in lines), "a server that listens")
            found = re.search(r"http://127\.0\.0\.1:\d+", "".join(lines))
            assert found
            with httpx.Client(base_url=found.group(), timeout=20) as client:
                until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
                yield server, client
        finally:
            server.kill()
            reader.join(20)


def ask(client):
    answer = client.post("/v1/models/demo:predict", json={"instances": TEXTS})
    assert answer.status_code == 200
    return answer.json()


def children_of(pid):
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in found for child in each.read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts processes by /proc")
def test_a_killed_server_has_the_same_champion_and_goes_on_with_the_rollout(world, until):
    world.promote(world.publish(1), version="champion")
    stage = Stage(kind="canary", share=0.5, requests=60)
    limits = {"max_disagreement": 0.99, "max_slowdown": 1000.0, "deadline_ms": 20000.0}
    begun = world.begin(world.publish(2), stage, **limits)

    def seen():
        return world.rollouts.observed(begun).challenger.requests

    with process(world, until) as (server, client):
        until(lambda: {ask(client)["model_version"] for _ in range(20)} >= {"challenger"}, "it")
        until(lambda: ask(client) and seen() >= 10, "requests that are kept")
        (challenger,) = children_of(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        server.wait(20)
        until(lambda: not Path(f"/proc/{challenger}").exists(), "the end of its challenger")
    kept, moves = seen(), world.rollouts.all()
    assert (len(moves), world.ledger.generation) == (1, 1)
    assert 10 <= kept < 60
    with process(world, until) as (_, client):
        assert ask(client)["generation"] == 1
        until(lambda: ask(client) and not world.rollouts.last().is_live, "the end")
        until(lambda: ask(client)["generation"] == 2, "the new champion")
    last = world.rollouts.last()
    assert last.state == "promoted"
    # What the killed server saw counts: the two have other names here, and it is added up.
    assert last.seen.challenger.requests >= 60
