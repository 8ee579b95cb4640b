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

import numpy as np
from numpy.typing import NDArray

TEST_SHARE = 0.2
"""Share of all groups whose rows are only ever used to test. Fixed for ever."""


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
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(folded.encode("utf-8", "surrogatepass")).hexdigest()
