from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from components.request_log import RequestLog, row_id


def process(world, *more):
    """Run the container's entry."""
    command = [sys.executable, "-W", "error", "-m", "components.serve", "--port", "0"]
    place = ["--store", str(world.store.root), "--prefix", world.prefix, "--poll-s", "0.05"]
    return running([*command, *place, *more])


@contextmanager
def running(command):
    """Run a server's process; give it and its log, and end it whatever happens."""
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(server.stderr or ()))
        reader.start()
        try:
            yield server, lines
        finally:
            if server.poll() is None:
                server.kill()
            reader.join(20)


@contextmanager
def client_of(lines, until):
    until(lambda: any("listening" in line for line in lines), "a server that listens")
    found = re.search(r"http://127\.0\.0\.1:\d+", "".join(lines))
    assert found, "loopback is the default"
    with httpx.Client(base_url=found.group(), timeout=20) as client:
        yield client


def check_log(lines):
    log = "".join(lines)
    assert "stopped" in log
    assert "Traceback" not in log
    assert "Warning" not in log


def test_sigterm_ends_a_serving_server_cleanly(world, until):
    world.promote(world.publish(1))
    with process(world) as (server, lines), client_of(lines, until) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        answer = client.post("/v1/models/demo:predict", json={"instances": ["good"]})
        assert answer.json()["generation"] == 1
        until(lambda: any("try: curl" in line for line in lines), "a command to try")
        (tried,) = (line.partition("try: ")[2] for line in lines if "try: curl" in line)
        asked = subprocess.run(["bash", "-c", tried], capture_output=True, text=True)
        assert json.loads(asked.stdout)["generation"] == 1
        assert any("loading generation 1, version v1" in line for line in lines)
        # The client's connection is still open: it must not hold up the end.
        server.terminate()
        assert server.wait(20) == 0
    check_log(lines)


def test_a_server_drains_on_sigterm_and_ends_at_once_on_the_next(world, until):
    with (
        process(world, "--config", '{"limits": {"drain_s": 600}}') as (server, lines),
        client_of(lines, until) as client,
    ):
        server.terminate()
        until(lambda: client.get("/v2/health/ready").json()["state"] == "draining", "the news")
        server.terminate()
        assert server.wait(20) == 0
    check_log(lines)


HANGING = """
import sys, threading
from components.store import LocalStore
put = LocalStore.put
def hang(self, key, data):
    if "/requests/" in key:
        print("hangs", file=sys.stderr, flush=True)
        threading.Event().wait()
    return put(self, key, data)
LocalStore.put = hang
from components.serve.__main__ import main
sys.exit(main())
"""


@pytest.mark.slow
def test_a_store_that_hangs_does_not_hold_up_the_end(world, until):
    world.promote(world.publish(1))
    config = '{"requests": {"sample": 1.0, "flush_s": 0.1}}'
    command = [sys.executable, "-c", HANGING, "--port", "0", "--config", config]
    place = ["--store", str(world.store.root), "--prefix", world.prefix, "--poll-s", "0.05"]
    with running([*command, *place]) as (server, lines), client_of(lines, until) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        client.post("/v1/models/demo:predict", json={"instances": ["good"]})
        until(lambda: "hangs\n" in lines, "a write")
        server.terminate()
        assert server.wait(120) == 0
    check_log(lines)


def test_ctrl_c_ends_a_waiting_server_cleanly(world, until):
    with process(world) as (server, lines), client_of(lines, until) as client:
        assert client.get("/v2/health/ready").status_code == 503
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    check_log(lines)


def test_a_killed_server_comes_back_with_its_champion_and_every_acknowledged_label(world, until):
    world.promote(world.publish(1))
    config = ["--config", '{"requests": {"sample": 1.0, "flush_s": 600}}']
    log, acknowledged = RequestLog(world.store, world.prefix), {}
    for life in range(2):
        with process(world, *config) as (server, lines), client_of(lines, until) as client:
            until(lambda c=client: c.get("/v2/health/ready").status_code == 200, "a champion")
            for _ in range(10):
                asked = {"instances": ["good"]}
                answer = client.post("/v1/models/demo:predict", json=asked).json()
                assert (answer["generation"], answer["model_version"]) == (1, "v1")
                label = {"request_id": answer["request_id"], "label": "positive"}
                kept = client.post("/v1/feedback", json={"feedback": [label]})
                assert kept.status_code == 200, kept.text
                acknowledged[row_id(answer["request_id"], 0)] = "positive"
            server.kill()
            server.wait(20)
        assert log.feedback() == acknowledged, life
    now = datetime.now(UTC)
    frame = log.read(now - timedelta(hours=1), now + timedelta(hours=1))
    assert dict(zip(frame["id"], frame["label"], strict=True)) == acknowledged


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_while_a_champion_is_loaded_end_the_server_cleanly(world, until, number):
    world.promote(world.publish(1))
    with process(world) as (server, lines):
        until(lambda: any("loading" in line for line in lines), "a load")
        until(lambda: any("listening" in line for line in lines), "a server that listens")
        while server.poll() is None:  # impatient, as people are
            server.send_signal(number)
            time.sleep(0.02)
        assert server.wait(20) == 0
    check_log(lines)
    assert lines[-1].endswith("stopped\n"), "nothing is said after the end"


def test_a_signal_before_the_server_listens_ends_it_cleanly():
    code = """
import os, signal
from components import serve, store
store.open_store = lambda url: os.kill(os.getpid(), signal.SIGTERM)
serve.serve("x", "demo", "demo", "127.0.0.1", 0, 1.0, None)
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--port", "70000"], 2, "a port is 0 to 65535"),
        (["--poll-s", "0"], 2, "more than 0 seconds"),
        (["--name", "a/b"], 2, "cannot stand in an address"),
        (["--store", "ftp://x"], 2, "the address of the object store"),
        (["--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1:0"),
        (["--config", '{"form": "x"}'], 2, "form: Input should be"),
        (["--config", '{"access": {"tokens_file": "absent"}}'], 2, "serve.access: absent"),
    ],
)
def test_what_cannot_start_says_why(world, more, code, says):
    with process(world, *more) as (server, lines):
        assert server.wait(20) == code
    assert says in "".join(lines)
    assert "Traceback" not in "".join(lines)


def test_a_canary_serves_its_bundle_whatever_the_ledger_says(world, until):
    world.promote(world.publish(1), version="champion")
    other = world.publish(2)
    with (
        process(world, "--bundle", other, "--version", "canary") as (server, lines),
        client_of(lines, until) as client,
    ):
        until(lambda: client.get("/v2/health/ready").status_code == 200, "its bundle")
        answer = client.post("/v1/models/demo:predict", json={"instances": ["good"]}).json()
        assert (answer["model_version"], answer["generation"]) == ("canary", 1)
        assert 'status="200",version="canary"' in client.get("/metrics").text
        assert not world.rollouts.servers(datetime.now(UTC))
        server.terminate()
        assert server.wait(20) == 0
