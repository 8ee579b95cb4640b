"""Does a text name a person's e-mail address, telephone, card or account?

Patterns find what looks like one; cards and accounts must have a right check digit, too
(Luhn, ISO/IEC 7812-1; IBAN, ISO 13616 with ISO 7064). Names and addresses are not found.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from components.validate.config import ValidateConfig
from components.validate.sample import Mask, Sample

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[A-Za-z]{2,24}\b")
_PHONE = re.compile(
    r"(?<![\w.])(?:\+\d[\d ().-]{6,18}\d|\(\d{2,5}\)[ -]?\d{2,4}[ -]\d{3,4}"
    r"|0\d{1,4}-\d{1,4}-\d{3,4}|\d{3}[-.]\d{3}[-.]\d{4})(?![\w-])"
)
# The digits of a fraction, of which measurements have as many, are none.
_CARD = re.compile(r"(?<!\d)(?<!\d\.)\d(?:[ -]?\d){12,18}(?!\d|\.\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b")


def pii(sample: Sample, config: ValidateConfig) -> dict[str, Mask]:
    """Return the rows that hold something of a person, by kind; ids are not looked at."""
    index = sample.frame.index
    texts = [values for name, values in sample.texts().items() if name not in ("id", "group")]
    found = {}
    for code, (likely, holds) in _KINDS.items():
        rows = index.isin([])
        for values in texts:
            maybe = values[values.str.contains(likely, regex=True)]
            rows |= index.isin(maybe.index[[holds(text) for text in maybe]])
        found[code] = rows
    return found


def has_email(text: str) -> bool:
    """Tell whether there is an e-mail address in a text."""
    return _EMAIL.search(text) is not None


def has_phone(text: str) -> bool:
    """Tell whether there is a telephone number, of 8 to 15 digits as E.164 allows.

    Examples:
        >>> has_phone("call +81 3-1234-5678"), has_phone("on 2026-01-05, 12 to 3")
        (True, False)
    """
    found = (re.sub(r"\D", "", match.group()) for match in _PHONE.finditer(text))
    return any(8 <= len(digits) <= 15 for digits in found)


def has_card(text: str) -> bool:
    """Tell whether there is the number of a payment card, with the right check digit.

    Examples:
        >>> has_card("4111 1111 1111 1111"), has_card("4111 1111 1111 1112")
        (True, False)
        >>> has_card("by 4111-1111-1111-1111."), has_card("0.4111111111111111")
        (True, False)
    """
    found = (re.sub(r"\D", "", match.group()) for match in _CARD.finditer(text))
    return any(digits[0] in "23456" and _passes_luhn(digits) for digits in found)


def has_iban(text: str) -> bool:
    """Tell whether there is an international bank account number, with the right check digits.

    Examples:
        >>> has_iban("to DE89 3704 0044 0532 0130 00"), has_iban("DE88 3704 0044 0532 0130 00")
        (True, False)
    """
    for match in _IBAN.finditer(text):
        pieces = match.group().split(" ")
        # What follows an account number in capitals may look like more of it.
        for end in range(len(pieces), 0, -1):
            number = "".join(pieces[:end])
            if 15 <= len(number) <= 34 and _passes_iban(number):
                return True
    return False


def _passes_luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0 and len(set(digits)) > 1


def _passes_iban(number: str) -> bool:
    moved = number[4:] + number[:4]
    return int("".join(str(int(each, 36)) for each in moved)) % 97 == 1


_KINDS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "pii-email": ("@", has_email),
    "pii-phone": (r"\d{3}", has_phone),
    "pii-card": (r"\d{4}", has_card),
    "pii-iban": (r"[A-Z]{2}\d{2}", has_iban),
}
"""Reason code to what a text must match to be worth a look, and the look."""
