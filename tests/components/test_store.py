"""The contract of a store, run on local disk and on a real S3 server."""

from __future__ import annotations

import http.server
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import ConfigError, StoreError
from components.store import (
    DRAFTS,
    LocalStore,
    ObjectMissing,
    OutcomeUnknown,
    S3Store,
    Store,
    checked_key,
    open_store,
)

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../up",
    "a/../b",
    "a/./b",
    "a//b",
    "a/",
    "./a",
    "a\0b",
    "a\\b",
    "a\nb",
    "\ud800",
    f"{DRAFTS}/a",
    f"a/{DRAFTS}",
]

same_store_for_all_examples = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
parts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"),
    min_size=1,
    max_size=12,
).filter(lambda part: part not in (".", "..", DRAFTS))
keys = st.lists(parts, min_size=1, max_size=3).map("/".join)


# --- what every store does


def test_content_comes_back_as_it_was_put(store: Store) -> None:
    for data in (b"", b"one", bytes(range(256)) * 5000):
        store.put("folder/object", data)
        assert store.get("folder/object") == data


@same_store_for_all_examples
@given(key=keys, data=st.binary(max_size=200))
def test_any_valid_key_holds_any_content(store: Store, key: str, data: bytes) -> None:
    key = f"{uuid.uuid4().hex}/{key}"  # no key is ever the folder of another
    assert store.create_if_absent(key, data)
    assert not store.create_if_absent(key, b"other")
    assert store.get(key) == data
    assert store.list(key) == [key]
    assert store.uri(key).startswith(("file:///", "s3://"))


def test_a_missing_object_is_reported_by_its_address(store: Store) -> None:
    store.put("a/b", b"")
    for key in ("nothing", "a", "a/c", "a/b/c"):
        with pytest.raises(ObjectMissing) as caught:
            store.get(key)
        assert store.uri(key) in str(caught.value)
        assert not store.exists(key)
    assert store.exists("a/b")


def test_list_is_sorted_and_goes_by_prefix(store: Store) -> None:
    names = ["b/2", "b/10", "a", "b/1", "bc", "b/x/y", "é", "B"]
    for name in names:
        store.put(name, b"")
    assert store.list() == sorted(names)
    assert store.list("b/") == ["b/1", "b/10", "b/2", "b/x/y"]
    assert store.list("b") == ["b/1", "b/10", "b/2", "b/x/y", "bc"]
    assert store.list("b/1") == ["b/1", "b/10"]
    assert store.list("none/") == store.list("a/") == []


def test_a_hostile_key_is_refused_everywhere(store: Store) -> None:
    calls: list[Callable[[str], object]] = [
        store.get,
        lambda key: store.put(key, b""),
        lambda key: store.create_if_absent(key, b""),
        store.exists,
        store.uri,
        store.local_path,
        lambda key: store.download_directory(key, Path("never")),
    ]
    for call, key in itertools.product(calls, HOSTILE):
        with pytest.raises(ValueError, match=r"key|surrogates"):
            call(key)
    assert store.list() == []


@given(st.text(alphabet="ab./\\\0", max_size=8))
def test_a_checked_key_never_leaves_its_root(key: str) -> None:
    try:
        checked_key(key)
    except ValueError:
        return
    root = Path("/srv/store")
    assert Path(os.path.normpath(root / key)).is_relative_to(root)
    assert os.path.normpath(root / key) == str(root / key)


def test_one_of_many_threads_creates(store: Store) -> None:
    # SeaweedFS makes rival creates of one object wait in steps of a second, so that on S3
    # the races run side by side, and once.
    races, racers = 3, 16
    rounds = 8 if isinstance(store, LocalStore) else 1
    start = threading.Barrier(races * racers)

    def create(who: int) -> bool:
        start.wait(30)
        return store.create_if_absent(f"{turn}/{who % races}", b"%d" % who * 1000)

    with ThreadPoolExecutor(races * racers) as pool:
        for turn in range(rounds):
            won = list(pool.map(create, range(races * racers)))
            winners = [who for who, is_winner in enumerate(won) if is_winner]
            assert sorted(who % races for who in winners) == list(range(races))
            for who in winners:
                assert store.get(f"{turn}/{who % races}") == b"%d" % who * 1000
    assert len(store.list()) == rounds * races


def test_readers_see_whole_objects_only(store: Store) -> None:
    size, stop = 300_000, threading.Event()
    store.put("object", b"a" * size)

    def overwrite() -> None:
        while not stop.is_set():
            for letter in (b"a", b"b"):
                store.put("object", letter * size)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(overwrite)
        try:
            for _ in range(40):
                seen = store.get("object")
                assert seen in (b"a" * size, b"b" * size)
                assert store.list() == ["object"]
        finally:
            stop.set()
        writing.result(10)


def test_a_directory_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    files = {"model.bin": os.urandom(9_000_000), "a/b/c d.json": b"{}", "empty": b""}
    for name, data in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    store.put("bundles/one-more/x", b"")
    store.upload_directory("bundles/one", source)
    assert store.list("bundles/one/") == sorted(f"bundles/one/{name}" for name in files)
    store.download_directory("bundles/one", target)
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert found == set(files)
    assert all((target / name).read_bytes() == data for name, data in files.items())
    with pytest.raises(ObjectMissing):
        store.download_directory("bundles/none", target)
    with pytest.raises(ValueError, match="not a folder"):
        store.upload_directory("bundles/none", tmp_path / "none")


def test_nothing_is_sent_of_a_directory_with_a_hostile_name(store: Store, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(b"")
    (tmp_path / "source" / "b\\c").write_bytes(b"")
    with pytest.raises(ValueError, match="backslash"):
        store.upload_directory("bundles", tmp_path / "source")
    assert store.list() == []


def test_a_failed_download_leaves_no_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing):
        store.download("none", tmp_path / "target" / "file")
    assert list((tmp_path / "target").glob("*")) == []


# --- addresses


def test_addresses_open_the_store_they_name(tmp_path: Path, s3_url: str) -> None:
    odd = tmp_path / "with space & %41"
    for url in (str(odd), odd.as_uri(), odd.as_uri().replace("///", "//localhost/")):
        store = open_store(url)
        assert store.local_path("a/b") == odd / "a/b"
        assert store.uri("a b") == (odd / "a b").as_uri()
    store = open_store(f"{s3_url}/")
    assert store.uri("a/b") == f"{s3_url}/a/b"
    assert store.local_path("a/b") is None


@pytest.mark.parametrize(
    "url",
    ["", "gs://bucket/x", "file://host/x", "s3://", "s3://key:secret@bucket/x", "s3://abc/../x"],
)
def test_other_addresses_are_refused_without_quoting_secrets(url: str) -> None:
    with pytest.raises(ConfigError, match="address of the object store") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


# --- local disk


def processes(count: int, code: str, *arguments: str) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def test_one_of_many_processes_creates(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from components.store import LocalStore
store = LocalStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(*(race for race in range(40) if store.create_if_absent(str(race), sys.argv[2].encode())))
"""
    racers = processes(4, code, str(tmp_path))
    for racer in racers:
        assert racer.stdout and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [racer.communicate(timeout=30)[0].split() for racer in racers]
    assert sorted(int(race) for races in won for race in races) == list(range(40))
    store = LocalStore(tmp_path)
    for number, races in enumerate(won):
        assert all(store.get(race) == str(number).encode() for race in races)


@pytest.mark.parametrize("act", ["put", "create_if_absent"])
@pytest.mark.parametrize("stage", ["copyfileobj", "fsync", "link", "replace", "unlink"])
def test_a_writer_killed_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, act: str, stage: str
) -> None:
    code = """
import os, pathlib, shutil, signal, sys
from components.store import LocalStore
root, act, stage, _ = sys.argv[1:]

def die(*args, **kwargs):
    if stage == "copyfileobj":
        args[1].write(b"half")
        args[1].flush()
    os.kill(os.getpid(), signal.SIGKILL)

owners = {"copyfileobj": shutil, "fsync": os, "link": os}
setattr(owners.get(stage, pathlib.Path), stage, die)
getattr(LocalStore(pathlib.Path(root)), act)("folder/object", b"whole")
"""
    store = LocalStore(tmp_path)
    if act == "put":
        store.put("folder/object", b"before")
    (writer,) = processes(1, code, str(tmp_path), act, stage)
    writer.communicate(timeout=30)
    unused = {("put", "link"), ("create_if_absent", "replace")}
    assert writer.returncode == (0 if (act, stage) in unused else -signal.SIGKILL)
    is_through = stage == "unlink" or (act, stage) in unused
    before = ["folder/object"] if act == "put" else []
    assert store.list() == (["folder/object"] if is_through else before)
    if store.list():
        assert store.get("folder/object") == (b"whole" if is_through else b"before")
    is_there = bool(store.list())
    assert store.create_if_absent("folder/object", b"next") is not is_there


def test_a_writer_killed_at_random_leaves_whole_objects(tmp_path: Path) -> None:
    code = """
import itertools, sys
from pathlib import Path
from components.store import LocalStore
store = LocalStore(Path(sys.argv[1]))
print("ready", flush=True)
for turn in itertools.count():
    data = bytes([turn % 256]) * 2_000_000
    store.put("same", data)
    store.create_if_absent(f"new/{turn % 5}", data)
"""
    store = LocalStore(tmp_path)
    for _ in range(5):
        (writer,) = processes(1, code, str(tmp_path))
        assert writer.stdout and writer.stdout.readline() == "ready\n"
        time.sleep(random.uniform(0.005, 0.08))
        writer.kill()
        writer.communicate(timeout=30)
        for key in store.list():
            data = store.get(key)
            assert data == data[:1] * 2_000_000


def test_drafts_are_tidied_and_never_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"")
    store.create_if_absent("a", b"")
    store.create_if_absent("b", b"")
    assert list((tmp_path / DRAFTS).iterdir()) == []
    (tmp_path / DRAFTS / "left").write_bytes(b"half")
    (tmp_path / "inner" / DRAFTS).mkdir(parents=True)
    (tmp_path / "inner" / DRAFTS / "left").write_bytes(b"half")
    assert store.list() == ["a", "b"]


def test_what_the_disk_refuses_is_a_store_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path)
    store.put("file", b"")
    store.put("folder/file", b"")
    for refused in (
        lambda: store.put("file/below", b""),
        lambda: store.put("folder", b""),
        lambda: store.create_if_absent("folder", b""),
        lambda: store.create_if_absent("file/below", b""),
        lambda: store.put("x" * 300, b""),
        lambda: store.get("x" * 300),
        lambda: store.exists("x" * 300),
    ):
        with pytest.raises(StoreError, match="file:///"):
            refused()
    assert list((tmp_path / DRAFTS).iterdir()) == []

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(StoreError, match="no hard links"):
        store.create_if_absent("new", b"")


# --- S3


def test_what_the_server_refuses_is_one_clear_line(
    s3_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_bucket = S3Store("no-such-bucket")
    for refused in (
        lambda: no_bucket.get("a"),
        lambda: no_bucket.put("a", b""),
        lambda: no_bucket.create_if_absent("a", b""),
        lambda: no_bucket.list(),
    ):
        with pytest.raises(StoreError, match="no such bucket"):
            refused()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-wrong")
    with pytest.raises(StoreError, match="denies access") as caught:
        open_store(s3_url).create_if_absent("a", b"")
    assert "very-wrong" not in str(caught.value) and "\n" not in str(caught.value)
    assert s3_endpoint in str(caught.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="no S3 credentials"):
        open_store(s3_url).get("a")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not a url")
    with pytest.raises(StoreError, match="settings in the environment"):
        open_store(s3_url)


def test_a_listing_of_strangers_cannot_lead_out_of_the_target(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_url)
    assert isinstance(store, S3Store)
    store.put("bundle/good", b"")
    prefix = store.prefix

    class Pages:
        def paginate(self, **_: str) -> list[dict[str, list[dict[str, str]]]]:
            names = ["good", "../../evil", "/evil", "folder/", "a\\b"]
            return [{"Contents": [{"Key": f"{prefix}bundle/{name}"} for name in names]}]

    monkeypatch.setattr(store._client, "get_paginator", lambda _: Pages())
    assert store.list() == ["bundle/good"]
    store.download_directory("bundle", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["good"]


@contextmanager
def server(answers: list[int | None]) -> Iterator[tuple[str, list[str]]]:
    """Run an HTTP server that gives one status after the other; None hangs up instead."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            asked.append(f"{self.command} {self.headers.get('If-None-Match')}")
            if (status := answers.pop(0)) is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://user:hidden@127.0.0.1:{running.server_port}", asked
        finally:
            running.shutdown()
            thread.join(10)


@pytest.mark.usefixtures("s3_url")
@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([200, 412], True),
        ([200, 409, 412], True),
        ([200, None], True),  # the win stands, though the second look failed
        ([200, 403], True),
        ([412], False),
        ([409, 409, 412], False),
        ([409, 200, 412], True),
        ([409, 409, 409, 409, 200], False),
        ([409, 409, 409, 409, 404], StoreError),
        ([200, 200], StoreError),
        ([None], OutcomeUnknown),
        ([500], OutcomeUnknown),
        ([503], OutcomeUnknown),
        ([501], StoreError),
    ],
)
def test_every_answer_to_a_create_has_its_meaning(
    answers: list[int | None], outcome: bool | type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.store.CONFLICT_PAUSES", (0.0,) * 4)
    answers = answers.copy()
    with server(answers) as (url, asked):
        store = S3Store("bucket", endpoint_url=url)
        if isinstance(outcome, bool):
            assert store.create_if_absent("key", b"data") is outcome
        else:
            with pytest.raises(outcome) as caught:
                store.create_if_absent("key", b"data")
            assert caught.type is outcome
            assert "hidden" not in str(caught.value)
        assert answers == []
        assert {line for line in asked if line.startswith("PUT")} == {"PUT *"}


@pytest.mark.usefixtures("s3_url")
def test_a_server_that_is_not_there_is_no_unknown_outcome() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        store = S3Store("bucket", endpoint_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StoreError, match="cannot reach http://127") as caught:
            store.create_if_absent("key", b"")
    assert caught.type is StoreError
