"""One file per check: what a row must be, and what a window must be.

A check is a pure function of a sample and the section ``validate``. It names what it found by
reason codes; how grave that is, is for the section ``severity`` to say.
"""

from __future__ import annotations

from components.validate.checks.balance import balance
from components.validate.checks.characters import characters
from components.validate.checks.completeness import completeness
from components.validate.checks.conflicts import conflicts
from components.validate.checks.freshness import freshness
from components.validate.checks.injection import injection
from components.validate.checks.leak import leak
from components.validate.checks.pii import pii
from components.validate.checks.row_count import row_count
from components.validate.checks.schema import schema
from components.validate.checks.skew import skew
from components.validate.checks.sufficiency import sufficiency
from components.validate.checks.test_copies import test_copies
from components.validate.checks.times import times
from components.validate.config import CheckName
from components.validate.sample import RowCheck, WindowCheck

CHECKS: dict[CheckName, RowCheck] = {
    "schema": schema,
    "conflicts": conflicts,
    "characters": characters,
    "injection": injection,
    "pii": pii,
    "times": times,
    "test_copies": test_copies,
}
"""Name to check of rows. To add one: a file here, its line, its name in ``CheckName`` and how
grave it is in ``SEVERITY``."""

WINDOW_CHECKS: dict[CheckName, WindowCheck] = {
    "sufficiency": sufficiency,
    "completeness": completeness,
    "freshness": freshness,
    "row_count": row_count,
    "balance": balance,
    "leak": leak,
    "skew": skew,
}
"""Name to check of the current window as a whole, of its good rows; added in the same way."""
