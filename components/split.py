"""The split that never moves: a row's place is a hash of its group.

A group is what must not be torn apart, such as a document, a customer or a
patient; a row without one is its own group by the digest of its content. Because
the interval of the test set never changes, a test row of today was never a
training row of any champion.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEST_SHARE = 0.2
"""Share of all groups whose rows are only ever used to test. Fixed for ever."""
_BATCH = 1 << 14
_SPACE, _DELETE = 32, 127
_CONTROLS = bytes([*range(_SPACE), _DELETE])


def unit_interval(keys: Iterable[str], salt: str) -> NDArray[np.float64]:
    """Map each key to a number in ``[0, 1)``, uniform and the same on every machine.

    Different salts give independent numbers, so that sampling a window and
    splitting it do not interact.
    """
    return np.array(
        [
            int.from_bytes(hashlib.sha256(f"{salt}\0{key}".encode()).digest()[:8]) / 2**64
            for key in keys
        ],
        dtype=np.float64,
    )


def is_test(groups: Iterable[str]) -> NDArray[np.bool_]:
    """Tell for each group whether its rows belong to the test set."""
    return unit_interval(groups, "test") < TEST_SHARE


def content_digest(text: str) -> str:
    """Return the digest of a text as a reader sees it: case, spaces and form folded."""
    return hashlib.sha256(_folded(text).encode("utf-8", "surrogatepass")).hexdigest()


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def content_digests(texts: Any) -> list[bytes]:
    """Return the ``content_digest`` of each of an Arrow column's strings, as bytes.

    What holds nothing counts as empty.
    """
    digests: list[bytes] = []
    for start in range(0, len(texts), _BATCH):
        seen = folded(texts.slice(start, _BATCH))
        bounds = np.frombuffer(seen.buffers()[1], np.int64)[: len(seen) + 1].tolist()
        data = bytes(seen.buffers()[2] or b"")
        digests += [hashlib.sha256(data[a:b]).digest() for a, b in pairwise(bounds)]
    return digests


def folded(texts: Any) -> Any:
    """Return an Arrow column's strings as a reader sees them: case, spaces and form folded.

    What holds nothing counts as empty. Texts in ASCII whose words one space separates are
    folded together, all others one by one.

    Returns:
        an array of large strings in one piece, without an offset.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.fill_null(texts, "").cast(pa.large_binary())
    if isinstance(texts, pa.ChunkedArray):
        texts = pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], texts.type)
    bounds = np.frombuffer(texts.buffers()[1] or bytes(8), np.int64)[texts.offset :]
    bounds = bounds[: len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[bounds[0] : bounds[-1]]
    bounds = bounds - bounds[0]
    lower = data.tobytes().lower()
    plain = _is_plain(data, lower, bounds)
    if not plain.all():
        parts = [lower[start:end] for start, end in pairwise(bounds.tolist())]
        for place in np.flatnonzero(~plain).tolist():
            text = data[bounds[place] : bounds[place + 1]].tobytes().decode()
            parts[place] = _folded(text).encode("utf-8", "surrogatepass")
        bounds = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        lower = b"".join(parts)
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(lower)]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


def _is_plain(
    data: NDArray[np.uint8], content: bytes, bounds: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which texts are ASCII with one space between words, and none around them.

    Args:
        data: the texts in one piece.
        content: the same, in whatever case.
        bounds: where each begins, and the last one ends ``[n + 1]``.
    """
    starts, ends = bounds[:-1], bounds[1:]
    plain = np.ones(len(starts), bool)
    if not len(data):
        return plain
    # Most are; looking for one that is not takes a fifth of the time of finding all of those.
    is_odd = not content.isascii() or b"  " in content
    if is_odd or len(content.translate(None, _CONTROLS)) < len(content):
        odd = (data < _SPACE) | (data >= _DELETE)
        odd[1:] |= (data[1:] == _SPACE) & (data[:-1] == _SPACE)
        before = np.concatenate([[0], np.cumsum(odd)])
        plain = before[ends] == before[starts]
    filled = ends > starts
    plain[filled] &= (data[starts[filled]] != _SPACE) & (data[ends[filled] - 1] != _SPACE)
    return plain
