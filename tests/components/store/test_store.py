"""The contract of a store, run on local disk and on a real S3 server."""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import ConfigError
from components.store import (
    DRAFTS,
    LocalStore,
    ObjectMissing,
    Store,
    checked_key,
    open_store,
)

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
