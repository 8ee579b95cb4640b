r"""Are there characters that no reader sees, or that came of a wrong encoding?

``bidi-control`` are the marks that show a text in another order than it is stored (Boucher &
Anderson 2021, Trojan Source, https://arxiv.org/abs/2111.00169); some Hebrew and Arabic texts
use them rightly. ``mojibake`` is UTF-8 that was read as Windows-1252, such as ``Ã©`` for ``é``.
"""

from __future__ import annotations

import re

from components.validate.config import ValidateConfig
from components.validate.sample import Mask, Sample, matching

PATTERNS = {
    "control-character": r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]",
    "bidi-control": "[\u202a-\u202e\u2066-\u2069]",
    "lone-surrogate": "[\ud800-\udfff]",
    "replacement-character": "\ufffd",
}
_LIKELY = "[\u00c2\u00c3\u00e2]"
_MOJIBAKE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf\u20ac\u2018-\u2022\u0152\u0153\u0160\u0161]|\u00e2\u20ac"
)
CODES = (*PATTERNS, "mojibake")


def characters(sample: Sample, config: ValidateConfig) -> dict[str, Mask]:
    """Return the rows with such characters, by kind."""
    found = {code: matching(sample, pattern) for code, pattern in PATTERNS.items()}
    found["mojibake"] = matching(sample, _LIKELY)
    for place in found["mojibake"].nonzero()[0]:
        row = sample.frame.iloc[place]
        values = (row[name] for name in sample.texts())
        found["mojibake"][place] = any(_is_mojibake(value) for value in values if value)
    return found


def _is_mojibake(text: str) -> bool:
    """Tell whether some of a text becomes fewer characters if its bytes are read as UTF-8."""
    for match in _MOJIBAKE.finditer(text):
        piece = text[match.start() : match.start() + 3]
        for length in (2, 3):
            try:
                if len(piece[:length].encode("cp1252").decode()) == 1:
                    return True
            except UnicodeError:
                continue
    return False
