"""Objects as files: races between processes, and writers that are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.errors import StoreError
from components.store import (
    DRAFTS,
    LocalStore,
)

ROOT = Path(__file__).parents[3]


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
