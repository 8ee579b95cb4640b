"""A guess at the language of a text, by its script and its commonest words.

It is meant to sort test rows into slices, not to be right about each of them, and needs
no model and no package.
"""

from __future__ import annotations

import re
from collections import Counter

UNKNOWN = "unknown"

_SCRIPTS = (
    ("ja", "\u3040-\u30ff\uff66-\uff9f"),  # kana: Japanese, whatever Han signs there are
    ("ko", "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"),
    ("zh", "\u3400-\u4dbf\u4e00-\u9fff"),
    ("cyrillic", "\u0400-\u052f"),
    ("greek", "\u0370-\u03ff\u1f00-\u1fff"),
    ("arabic", "\u0600-\u06ff\u0750-\u077f"),
    ("hebrew", "\u0590-\u05ff"),
    ("devanagari", "\u0900-\u097f"),
    ("thai", "\u0e00-\u0e7f"),
    ("latin", "A-Za-z\u00c0-\u024f\u1e00-\u1eff"),
)
_LETTERS = {name: re.compile(f"[{signs}]") for name, signs in _SCRIPTS}

_COMMON_WORDS = {
    "en": "the of and to in is that it was for on are with as this be have not you but at by",
    "de": "der die und das ist nicht ich ein eine zu den mit es auf sich für im dem von wir",
    "fr": "le les et des est une que dans qui pour pas sur ce au il vous je avec mais du",
    "es": "el los que y en las del una por con para no su al lo como más pero es muy",
    "it": "il che di è non per una sono con del della ma gli le più anche questo si nel molto",
    "pt": "o que e do da não uma os em para com por mais dos as foi muito você seu mas",
    "nl": "de het een van en dat niet ik is op te zijn met voor maar er aan ook deze wat",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in _COMMON_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)


def language(text: str) -> str:
    """Return an ISO 639-1 code, the name of a script, or ``unknown`` without letters.

    A tenth of kana makes a text Japanese; otherwise its commonest script counts. Latin
    letters are told apart by common words, as long as one language has more of them than
    any other; if none has, the answer is ``latin``.

    >>> language("the film was not for me"), language("これはペンです"), language("42 !")
    ('en', 'ja', 'unknown')
    """
    letters = {name: len(pattern.findall(text)) for name, pattern in _LETTERS.items()}
    total = sum(letters.values())
    if total == 0:
        return UNKNOWN
    if letters["ja"] >= total / 10:
        return "ja"
    script = max(letters, key=lambda name: letters[name])
    if script != "latin":
        return script
    votes: Counter[str] = Counter()
    for word in re.findall(r"\w+", text.lower()):
        votes.update(_LANGUAGES_OF.get(word, ()))
    best = votes.most_common(2)
    if not best or (len(best) == 2 and best[0][1] == best[1][1]):
        return "latin"
    return best[0][0]
