from __future__ import annotations

import json
import os
import shutil
import tempfile

import pytest

from components import bundle
from components.errors import BundleError, StoreError
from components.store import LocalStore


@pytest.fixture
def folder(make_bundle, tmp_path):
    """A sealed bundle that a test may spoil."""
    return shutil.copytree(make_bundle(1), tmp_path / "bundle")


def test_a_sealed_bundle_verifies_and_tells_what_it_is(folder):
    digest = bundle.digest_of_folder(folder)
    description = bundle.verify(folder, digest)
    assert description.task.label_names == ("negative", "positive")
    assert description.recipe == {"seed": 1}
    assert description.test_share == 0.2


def test_equal_content_gives_an_equal_digest_and_other_content_another(
    folder, make_bundle, seal_bundle
):
    same = bundle.digest_of_folder(make_bundle(1))
    (folder / bundle.MANIFEST).unlink()
    assert seal_bundle(folder, recipe={"seed": 1}) == same
    (folder / bundle.MANIFEST).unlink()
    assert seal_bundle(folder, recipe={"seed": 2}) != same
    assert bundle.digest_of_folder(make_bundle(2)) != same


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "bundle.json", "tokenizer.json"]
)
def test_one_flipped_bit_in_any_file_is_noticed(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match="altered"):
        bundle.verify(folder)


def test_a_missing_file_is_noticed(folder):
    (folder / "config.json").unlink()
    with pytest.raises(BundleError, match=r"config\.json is missing"):
        bundle.verify(folder)


def test_a_file_that_was_slipped_in_is_noticed(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "extra.bin").write_bytes(b"pickle")
    with pytest.raises(BundleError, match=r"deep/extra\.bin"):
        bundle.verify(folder)


def test_a_folder_without_a_manifest_is_no_bundle(folder, tmp_path):
    (folder / bundle.MANIFEST).unlink()
    for place in (folder, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match="not a complete bundle"):
            bundle.verify(place)
        with pytest.raises(BundleError, match="not a complete bundle"):
            bundle.digest_of_folder(place)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"schema_version": 1}',
        b'{"schema_version": null, "files": {}}',
        b'{"schema_version": 1, "files": null}',
        b'{"schema_version": 1, "files": {"config.json": ""}}',
    ],
)
def test_a_damaged_manifest_is_a_bundle_error(folder, manifest):
    (folder / bundle.MANIFEST).write_bytes(manifest)
    with pytest.raises(BundleError, match="damaged"):
        bundle.verify(folder)


def test_a_bundle_of_a_newer_schema_asks_for_an_upgrade(folder):
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["schema_version"] = bundle.SCHEMA_VERSION + 1
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="upgrade"):
        bundle.verify(folder)


def test_another_bundle_than_the_one_asked_for_is_refused(folder, make_bundle):
    other = bundle.digest_of_folder(make_bundle(2))
    with pytest.raises(BundleError, match=f"not {other[:12]}"):
        bundle.verify(folder, other)


def test_a_description_with_unknown_fields_is_refused(folder, tmp_path):
    content = json.loads((folder / bundle.DESCRIPTION).read_text())
    (folder / bundle.DESCRIPTION).write_text(json.dumps({**content, "surprise": 1}))
    manifest = json.loads((folder / bundle.MANIFEST).read_text())
    manifest["files"][bundle.DESCRIPTION] = bundle._sha256(folder / bundle.DESCRIPTION)
    (folder / bundle.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.verify(folder)


def test_what_is_published_can_be_fetched_anywhere(store, make_bundle, tmp_path):
    digest = bundle.publish(store, make_bundle(1))
    for _ in range(2):  # the second time from the cache
        fetched = bundle.fetch(store, digest, tmp_path / "cache")
        assert bundle.verify(fetched, digest).recipe == {"seed": 1}


def test_publishing_again_changes_nothing(store, make_bundle):
    digest = bundle.publish(store, make_bundle(1))
    keys = store.list()
    assert bundle.publish(store, make_bundle(1)) == digest
    assert store.list() == keys


def test_an_interrupted_publication_is_no_bundle_and_can_be_finished(
    tmp_path, make_bundle, monkeypatch
):
    store = LocalStore(tmp_path / "objects")
    upload = store.upload
    sent: list[str] = []

    def breaks_down(key, file):
        if len(sent) == 3:
            raise StoreError("the connection broke")
        sent.append(key)
        upload(key, file)

    monkeypatch.setattr(store, "upload", breaks_down)
    with pytest.raises(StoreError):
        bundle.publish(store, make_bundle(1))
    monkeypatch.undo()
    digest = bundle.digest_of_folder(make_bundle(1))
    with pytest.raises(BundleError):
        bundle.fetch(store, digest)
    bundle.publish(store, make_bundle(1))
    bundle.verify(bundle.fetch(store, digest), digest)


def test_an_absent_bundle_is_a_bundle_error(store, tmp_path):
    with pytest.raises(BundleError):
        bundle.fetch(store, "0" * 64, tmp_path / "cache")


def test_a_bundle_that_was_altered_in_the_store_is_refused(store, make_bundle, tmp_path):
    digest = bundle.publish(store, make_bundle(1))
    store.put(f"{bundle.key_of(digest)}/config.json", b"{}")
    with pytest.raises(BundleError):
        bundle.fetch(store, digest, tmp_path / "cache")


def test_a_damaged_copy_in_the_cache_is_fetched_anew(s3_url, make_bundle, tmp_path):
    from components.store import open_store

    store, cache = open_store(s3_url), tmp_path / "cache"
    digest = bundle.publish(store, make_bundle(1))
    fetched = bundle.fetch(store, digest, cache)
    (fetched / "config.json").write_text("{}")
    (fetched / "model.safetensors").unlink()
    bundle.verify(bundle.fetch(store, digest, cache), digest)
    assert [path.name for path in cache.iterdir()] == [digest]


def test_a_copy_of_a_bundle_that_is_gone_from_the_store_is_not_used(
    s3_url, make_bundle, tmp_path, monkeypatch
):
    from components.store import open_store

    store, cache = open_store(s3_url), tmp_path / "cache"
    digest = bundle.publish(store, make_bundle(1))
    bundle.fetch(store, digest, cache)
    monkeypatch.setattr(store, "exists", lambda key: False)
    with pytest.raises(BundleError, match="the store holds no bundle"):
        bundle.fetch(store, digest, cache)


def test_copies_do_not_fill_the_disk(s3_url, make_bundle, tmp_path):
    from components.store import open_store

    store, cache = open_store(s3_url), tmp_path / "cache"
    for number in range(8):
        (cache / f"old-{number}").mkdir(parents=True)
        os.utime(cache / f"old-{number}", (number, number))
    (cache / "new").mkdir()
    digest = bundle.publish(store, make_bundle(1))
    for _ in range(2):
        bundle.fetch(store, digest, cache)
    assert {path.name for path in cache.iterdir()} == {digest, "new", "old-5", "old-6", "old-7"}


def test_a_folder_for_copies_that_others_can_write_into_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = bundle._own_cache()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(BundleError, match="can be written by others"):
        bundle._own_cache()


def test_no_champion_is_none_but_a_lost_one_is_an_error(tmp_path, make_bundle):
    store = LocalStore(tmp_path / "objects")
    assert bundle.fetch_champion(store, "") is None
    digest = bundle.publish(store, make_bundle(1))
    assert bundle.fetch_champion(store, digest) == store.local_path(bundle.key_of(digest))
    with pytest.raises(BundleError):
        bundle.fetch_champion(store, "0" * 64)
