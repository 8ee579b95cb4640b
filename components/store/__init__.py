"""Objects on local disk or S3, with one primitive to decide races by.

``create_if_absent`` is what the ledger and the triggers stand on: of any number of
callers, in threads, processes or pods, exactly one creates the object, and nobody
ever sees half of it. On disk a finished draft is hard-linked to its name; on S3 the
request says ``If-None-Match: *``.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from components.errors import ConfigError
from components.store.local import LocalStore
from components.store.objects import (
    DRAFTS,
    ObjectMissing,
    OutcomeUnknown,
    Store,
    checked_key,
)
from components.store.s3 import S3Store, explained_s3, s3_client

__all__ = [
    "DRAFTS",
    "LocalStore",
    "ObjectMissing",
    "OutcomeUnknown",
    "S3Store",
    "Store",
    "checked_key",
    "explained_s3",
    "open_store",
    "s3_client",
]


def open_store(url: str) -> Store:
    """Open ``s3://bucket/prefix``, ``file:///folder`` or the path of a folder.

    The S3 endpoint, region and credentials come from the environment that boto3 reads
    (``AWS_ENDPOINT_URL_S3``, ``AWS_ACCESS_KEY_ID``, …). ``ConfigError`` on other addresses.
    """
    scheme, separator, rest = url.partition("://")
    if not separator and url:
        return LocalStore(Path(url).expanduser())
    if scheme == "file" and rest.removeprefix("localhost").startswith("/"):
        return LocalStore(Path(unquote(rest.removeprefix("localhost"))))
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        try:
            return S3Store(bucket, prefix.rstrip("/"))
        except ValueError as error:
            raise ConfigError(f"the address of the object store is wrong: {error}") from error
    # The address itself is not quoted: a wrong one may carry a password.
    raise ConfigError(
        "the address of the object store must be s3://bucket/prefix, file:///folder or a path"
    )
