"""What is done to a text before a model reads it, in training and in service alike.

The rules belong to the model: they are kept in its bundle and applied by ``encode``, which is
the only way from a text into a network. None of them learns anything from rows.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Literal

Rule = Literal["unicode", "html", "control", "whitespace", "case"]

_BLOCKS = re.compile(r"(?is)<!--.*?-->|<(script|style)\b[^>]*>.*?</\1\s*>")
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>")
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]"
)


def _without_html(text: str) -> str:
    return html.unescape(_TAGS.sub(" ", _BLOCKS.sub(" ", text)))


CLEANING: dict[Rule, Callable[[str], str]] = {
    "html": _without_html,
    "unicode": lambda text: unicodedata.normalize("NFKC", text),
    "control": lambda text: _CONTROL.sub("", text),
    "case": str.lower,
    "whitespace": lambda text: " ".join(text.split()),
}
"""Rule to what it does, in the order in which they are applied whatever order a project has:
without tags and entities, one form of each character (Unicode NFKC), nothing that no reader
sees, small letters, single spaces."""


def cleaned(text: str, rules: Sequence[Rule]) -> str:
    """Return a text as a model with these rules reads it.

    Examples:
        >>> cleaned("<p>Ｎot&nbsp;&amp;  GOOD</p>", ("whitespace", "unicode", "html", "case"))
        'not & good'
    """
    for rule, clean in CLEANING.items():
        if rule in rules:
            text = clean(text)
    return text
