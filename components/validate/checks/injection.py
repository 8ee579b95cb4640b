"""Are there strings that some program further on would take for more than text?

A model takes them for text; a spreadsheet that opens an export runs formulas (OWASP, CSV
injection), a page that does not escape runs HTML, and a language model follows instructions.
"""

from __future__ import annotations

from components.validate.config import ValidateConfig
from components.validate.sample import Mask, Sample, matching

PATTERNS = {
    "formula": r"^\s*(?:=\s*[-+@A-Za-z\"('\d]|[-+@]\s*[A-Za-z.]{2,30}\(|[-+@=].{0,60}\|.{0,60}!)",
    "html": r"(?i)<(?:/?(?:a|b|body|br|div|form|h[1-6]|i|iframe|img|input|li|link|meta|object|ol|p"
    r"|pre|script|span|style|svg|table|td|tr|u|ul|video)(?:\s[^<>]{0,500})?/?|!--.{0,500}?--)>",
    "prompt": r"(?i)\b(?:ignore|disregard|forget)\b.{0,20}\b(?:previous|prior|above|earlier)\b"
    r".{0,20}\b(?:instructions?|prompts?|rules)\b|<\|(?:im_start|im_end|system|endoftext)\|>"
    r"|\[/?INST\]|\bsystem prompt\b",
}


def injection(sample: Sample, config: ValidateConfig) -> dict[str, Mask]:
    """Return the rows with formulas, tags and instructions, by kind."""
    return {code: matching(sample, pattern) for code, pattern in PATTERNS.items()}
