"""What a reason code means to a person."""

from __future__ import annotations

MEANINGS = {
    "duplicate-id": "another row has the same id, so that neither can be told from the other",
    "empty-text": "the text is empty",
    "text-too-long": "the text is longer than validate.max_characters",
    "no-letter-or-digit": "the text has neither a letter nor a digit",
    "not-an-image": "the content is no image that can be decoded",
    "image-too-large": "the image says that it has more pixels than any camera's",
    "not-a-record": "the content is no JSON object with the columns of the task",
    "unknown-label": "the label is none of the task's",
    "label-not-a-number": "the label is no number",
    "label-out-of-range": "the label is beyond task.low or task.high",
    "conflicting-labels": "another row with the same content has another label",
    "control-character": "there is a character that no text holds, such as NUL",
    "bidi-control": "there are marks that show the text in another order than it is stored",
    "lone-surrogate": "there is half of a character",
    "replacement-character": "a character was lost when the text was read in a wrong encoding",
    "mojibake": "UTF-8 was read as Windows-1252",
    "formula": "a spreadsheet would take it for a formula",
    "html": "there are tags of HTML",
    "prompt": "it instructs a language model",
    "pii-email": "there is an e-mail address",
    "pii-phone": "there is a telephone number",
    "pii-card": "there is the number of a payment card",
    "pii-iban": "there is the number of a bank account",
    "unreadable-time": "the time cannot be read",
    "pre-epoch-time": "the time is before 1970",
    "future-time": "the time is after the run began",
    "copy-of-test-row": "a test row of another group has the same content",
    "likely-label-error": "the other rows say with confidence that its label is another",
    "bad-encoding": "the row's bytes are no text in the encoding of the source",
    "bad-json": "the line is no JSON",
    "not-an-object": "the line is no JSON object",
    "row-too-long": "the row is longer than any that is read",
    "unclosed-quote": "a quote is opened and never closed",
    "wrong-column-count": "the row has more or fewer fields than the header",
    "implausible-time": "the time is before 1900 or after 2200",
}
"""Reason code of a row to what it means, for codes that name no column."""
_OF_COLUMNS = {
    "missing": "there is no {}",
    "unreadable": "the {} is no number",
    "out-of-range": "the {} is outside of the range in validate.columns",
    "not-allowed": "the {} is none of the values in validate.columns",
    "no-match": "the {} does not match the pattern in validate.columns",
    "too-short": "the {} is shorter than validate.columns allows",
    "too-long": "the {} is longer than validate.columns allows",
    "repeated": "the {} is that of another row, and validate.columns wants it unique",
}
_NEVER_WAIVED = (
    *("missing-id", "missing-text", "missing-image", "missing-record", "missing-label"),
    *("duplicate-id", "empty-text", "not-an-image", "image-too-large", "not-a-record"),
    *("unknown-label", "label-not-a-number", "label-out-of-range"),
)
"""No model learns from such a row; something of it has to be put right."""


def explained(code: str) -> str:
    """Return what a reason code of a row means.

    Examples:
        >>> explained("out-of-range-age")
        'the age is outside of the range in validate.columns'
    """
    if code in MEANINGS:
        return MEANINGS[code]
    for start, words in _OF_COLUMNS.items():
        if code.startswith(f"{start}-"):
            return words.format(code.removeprefix(f"{start}-"))
    return code


def is_waivable(code: str) -> bool:
    """Tell whether a person may take a row in again that fails by this code alone."""
    return code not in _NEVER_WAIVED and (
        code == "unreadable-time" or not code.startswith("unreadable-")
    )
