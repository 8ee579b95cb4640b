"""Changes to a text that a reader hardly notices."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

_SHARE = 0.1
"""Of the words, or gaps, that can be changed; at least one is."""
_LATIN_WORD = re.compile(r"[A-Za-z]{4,}")  # a slip in a shorter one makes another word of it
_WORD = re.compile(r"\S+")
_GAP = re.compile(r"(?<=\S)\s+(?=\S)")
_NUMBER = re.compile(r"[0-9]+")
_SPACES = ("  ", "\t", "\n", "\u00a0", "\u3000")

_PLACE_OF_KEY = {
    key: (place + row / 2, row)
    for row, keys in enumerate(("qwertyuiop", "asdfghjkl", "zxcvbnm"))
    for place, key in enumerate(keys)
}
_NEIGHBOURS = {
    key: [
        other
        for other, (x, y) in _PLACE_OF_KEY.items()
        if other != key and abs(x - right) <= 1 and abs(y - down) <= 1
    ]
    for key, (right, down) in _PLACE_OF_KEY.items()
}

_LOOK_ALIKES = str.maketrans("aceopxyABCEHKMOPTX", "асеорхуАВСЕНКМОРТХ")  # Latin to Cyrillic
_ACCENTED = str.maketrans("aeiouAEIOU", "áéíóúÁÉÍÓÚ")
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def case(text: str, chance: np.random.Generator) -> str:
    """Return a text in lower case, in capitals, or with each word capitalised."""
    forms = (text.lower(), text.upper(), _WORD.sub(lambda word: word[0].capitalize(), text))
    return _another(forms, text, chance)


def typos(text: str, chance: np.random.Generator) -> str:
    """Return a text with a slip in a tenth of its longer Latin words, at least in one.

    Two letters change places, or a letter becomes its neighbour on the keyboard; the first
    letter of a word stays.
    """
    return _changed(text, _LATIN_WORD.finditer(text), _slip, chance)


def whitespace(text: str, chance: np.random.Generator) -> str:
    """Return a text with another space in a tenth of its gaps, or around its only word."""
    if _GAP.search(text):
        return _changed(text, _GAP.finditer(text), lambda gap, c: _another(_SPACES, gap, c), chance)
    return f"{_another(_SPACES, '', chance)}{text} " if text.strip() else text


def unicode_forms(text: str, chance: np.random.Generator) -> str:
    """Return a text with a tenth of its words, at least one, in letters that look the same.

    Cyrillic for Latin ones, accents, full-width signs, or marks apart from their letters.
    """
    able = [word for word in _WORD.finditer(text) if set(_forms(word[0])) != {word[0]}]
    return _changed(text, able, lambda word, c: _another(_forms(word), word, c), chance)


def numbers(text: str, chance: np.random.Generator) -> str:
    """Return a text with every number replaced by another one of as many digits.

    Not for tasks in which numbers make the label.
    """
    return _NUMBER.sub(lambda number: _other_number(number[0], chance), text)


def _forms(word: str) -> tuple[str, ...]:
    plain = word.translate(_LOOK_ALIKES), word.translate(_ACCENTED), word.translate(_FULL_WIDTH)
    return *plain, unicodedata.normalize("NFD", word)


def _slip(word: str, chance: np.random.Generator) -> str:
    place = int(chance.integers(1, len(word) - 1))
    before, letter, after, rest = word[:place], word[place], word[place + 1], word[place + 2 :]
    if letter != after and chance.random() < 0.5:
        return before + after + letter + rest
    other = _another(_NEIGHBOURS[letter.lower()], letter, chance)
    return before + (other.upper() if letter.isupper() else other) + after + rest


def _other_number(number: str, chance: np.random.Generator) -> str:
    lowest = [0 if digit == "0" or place else 1 for place, digit in enumerate(number)]
    other = "".join(str(chance.integers(low, 10)) for low in lowest)
    # By chance it is the same.
    return other if other != number else number[:-1] + str((int(number[-1]) + 1) % 10)


def _another(options: Sequence[str], now: str, chance: np.random.Generator) -> str:
    """Return one of the options that differ from what is there now; that, if none does."""
    others = [option for option in options if option != now]
    return others[int(chance.integers(len(others)))] if others else now


def _changed(
    text: str,
    places: Iterable[re.Match[str]],
    change: Callable[[str, np.random.Generator], str],
    chance: np.random.Generator,
) -> str:
    """Return a text with a tenth of some places in it changed, and at least one."""
    spans = [place.span() for place in places]
    if not spans:
        return text
    chosen = chance.random(len(spans)) < _SHARE
    chosen[int(chance.integers(len(spans)))] = True
    parts, done = [], 0
    for (start, end), is_chosen in zip(spans, chosen, strict=True):
        if is_chosen:
            parts += [text[done:start], change(text[start:end], chance)]
            done = end
    return "".join([*parts, text[done:]])
