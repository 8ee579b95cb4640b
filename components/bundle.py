"""A bundle: one model directory with everything that serving it needs.

::

    bundle.json          what it is: task, labels, recipe, lineage, scores
    model.safetensors    weights, beside model.json and what reads inputs; model.json also
                         holds the temperature and the operating point that it decides with
    model.onnx           the model as ONNX, and with weights of eight bits, where asked for
    model.int8.onnx      and where they answer as it does
    profile.json         what the drift step remembers of the training data,
    profile.safetensors  its numbers
    manifest.json        sha256 of every other file, written last

A directory without a manifest is not a bundle, so a half-written one can never be
served. The digest of the manifest names the bundle, in the store and in the ledger.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.errors import BundleError
from components.settings import Section, canonical_json
from components.store import ObjectMissing, Store
from components.tasks import TaskConfig

MANIFEST = "manifest.json"
DESCRIPTION = "bundle.json"
SCHEMA_VERSION = 1

KEPT_COPIES = 4
"""Bundles that stay on this disk however long ago they were used."""
COPY_S = 3600.0
"""Others stay so long after their last use; whoever has just fetched one still reads it."""

_MLFLOW_NOTE = "registered_model_meta"
"""MLflow leaves this file in a local folder that ``mlflow.pyfunc.load_model`` reads."""


class Description(Section):
    """The content of ``bundle.json``; nothing in it depends on when or where it ran."""

    schema_version: int = SCHEMA_VERSION
    task: TaskConfig
    recipe: dict[str, Any]
    """The configuration that trained the model; empty for an adopted one."""
    lineage: dict[str, str]
    """Digests of what it was made from: ``data``, ``base``, ``champion``, ``code``."""
    scores: dict[str, float]
    """Metrics on the validation rows."""
    exports: list[str] = []
    """Files with other forms of the model, each checked against it."""
    test_share: float
    """The hash interval ``[0, test_share)`` that was kept out of training."""
    examples: list[str]
    """A few inputs, to warm a server and to show the format."""


def seal(folder: Path, description: Description) -> str:
    """Write ``bundle.json`` and, last, the manifest; return the bundle's digest."""
    (folder / DESCRIPTION).write_text(description.to_json())
    files = {name: _sha256(folder / name) for name in _names(folder)}
    manifest = canonical_json({"schema_version": SCHEMA_VERSION, "files": files})
    (folder / MANIFEST).write_text(manifest)
    return hashlib.sha256(manifest.encode()).hexdigest()


def verify(folder: Path, digest: str | None = None) -> Description:
    """Check every file against the manifest and return the description.

    Args:
        folder: the bundle.
        digest: the digest it must have, if known.

    Raises:
        BundleError: incomplete, altered, of a newer schema, or another bundle.
    """
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder} is not a complete bundle: no {MANIFEST}") from error
    found = hashlib.sha256(manifest).hexdigest()
    if digest is not None and found != digest:
        raise BundleError(f"{folder} holds bundle {found[:12]}, not {digest[:12]}")
    try:
        content = json.loads(manifest)
        version, files = int(content["schema_version"]), dict(content["files"])
        files[DESCRIPTION]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST} is damaged") from error
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{folder} was written by a newer Tokiwa (schema {version}); upgrade to read it"
        )
    extra = set(_names(folder)) - set(files)
    if extra:
        raise BundleError(f"{folder} holds files that its manifest does not: {sorted(extra)}")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise BundleError(f"{path} is missing or was altered after the bundle was sealed")
    return describe(folder)


def describe(folder: Path) -> Description:
    """Return what a bundle says of itself, without checking its files.

    Raises:
        BundleError: it says nothing that can be read.
    """
    try:
        return Description.from_json((folder / DESCRIPTION).read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{folder / DESCRIPTION} cannot be read: {error}") from error


def digest_of_folder(folder: Path) -> str:
    """Return the digest of a sealed bundle without checking its files."""
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"{folder} is not a complete bundle: no {MANIFEST}") from error


def key_of(digest: str) -> str:
    """Return where the store keeps a bundle."""
    return f"bundles/{digest}"


def publish(store: Store, folder: Path) -> str:
    """Copy a sealed bundle into the store, manifest last; return its digest."""
    digest = digest_of_folder(folder)
    if not store.exists(f"{key_of(digest)}/{MANIFEST}"):
        for name in _names(folder):
            store.upload(f"{key_of(digest)}/{name}", folder / name)
        store.upload(f"{key_of(digest)}/{MANIFEST}", folder / MANIFEST)
    return digest


def fetch(store: Store, digest: str, cache: Path | None = None) -> Path:
    """Return a verified local folder with a bundle of the store.

    Objects on local disk are used where they lie; others are downloaded once, and deleted when
    they have not been used for a while, so that the disk of a server does not fill up.

    Args:
        store: where bundles are published.
        digest: which one.
        cache: where downloads are kept; a temporary folder of this user by default.

    Raises:
        BundleError: the store has no such bundle, or it does not verify.
        StoreError: the store cannot be reached.
    """
    local = store.local_path(key_of(digest))
    if local is not None:
        verify(local, digest)
        return local
    if not store.exists(f"{key_of(digest)}/{MANIFEST}"):
        raise BundleError(f"the store holds no bundle {digest[:12]}")
    cache = cache or _own_cache()
    folder = cache / digest
    with suppress(OSError):
        os.utime(folder)  # used now: nobody deletes it meanwhile
    try:
        verify(folder, digest)
    except BundleError:
        # Absent, or damaged here; a bad copy says nothing about the bundle itself.
        shutil.rmtree(folder, ignore_errors=True)
    else:
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    _tidy(cache)
    arriving = Path(tempfile.mkdtemp(dir=cache))
    try:
        store.download_directory(key_of(digest), arriving)
        verify(arriving, digest)
        arriving.replace(folder)
    except ObjectMissing as error:
        raise BundleError(f"the store holds no bundle {digest[:12]}") from error
    except OSError:
        # Another process may have put the same bundle there first.
        verify(folder, digest)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return folder


def _own_cache() -> Path:
    """Return a folder that nobody else can write into, or a copy could change once verified."""
    cache = Path(tempfile.gettempdir()) / f"tokiwa-bundles-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    about = cache.lstat()
    if about.st_uid != os.getuid() or not stat.S_ISDIR(about.st_mode) or about.st_mode & 0o022:
        raise BundleError(f"{cache} can be written by others; delete it, or set TMPDIR")
    return cache


def _tidy(cache: Path) -> None:
    """Delete old copies, and what broken downloads left."""
    used = {}
    for path in cache.iterdir():
        with suppress(OSError):  # another process may have deleted it
            used[path] = path.stat().st_mtime
    for path in sorted(used, key=lambda each: -used[each])[KEPT_COPIES:]:
        if used[path] < time.time() - COPY_S:
            shutil.rmtree(path, ignore_errors=True)


def fetch_champion(store: Store, digest: str) -> Path | None:
    """Return a verified folder with the champion's bundle, None if there is no champion.

    A champion whose bundle is missing or altered is an error, never "no champion".
    """
    return fetch(store, digest) if digest else None


def _names(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in paths)
    return sorted(name for name in names if name not in (MANIFEST, _MLFLOW_NOTE))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
