"""Files that lie on a disk or in a bucket, as a step reads and writes them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.errors import BadInput
from components.store import ObjectMissing, Store, open_store


@contextmanager
def local_files(input_address: str, output_address: str) -> Iterator[tuple[Path, Path]]:
    """Give the paths of an input and of an output; what belongs into a bucket is sent after.

    Args:
        input_address: a path, or ``s3://bucket/key``.
        output_address: likewise.

    Raises:
        BadInput: an address names no object, or there is none at the input's.
        StoreError: a bucket cannot be reached.
    """
    sent_to = _place(output_address) if output_address.startswith("s3://") else None
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(input_address), Path(output_address)
        if input_address.startswith("s3://"):
            source = Path(folder) / "input.parquet"
            store, key = _place(input_address)
            try:
                store.download(key, source)
            except ObjectMissing as error:
                raise BadInput(f"there is no file {input_address}") from error
        if sent_to is not None:
            target = Path(folder) / "output.parquet"
        yield source, target
        if sent_to is not None:
            store, key = sent_to
            store.upload(key, target)


def _place(address: str) -> tuple[Store, str]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise BadInput(f"{address} names no object; write s3://bucket/key.parquet")
    return open_store(f"s3://{bucket}"), key
