from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.languages import language

TEXTS = {
    "en": "I have not seen the other film, but this one was as good as they say it is.",
    "de": "Der Film ist nicht schlecht, aber ich habe ihn mit den anderen nicht verglichen.",
    "fr": "Le film est dans les salles depuis hier, mais je ne l'ai pas vu avec vous.",
    "es": "La película no es muy buena, pero los actores lo hacen como siempre.",
    "it": "Il film non è molto bello, ma gli attori sono più bravi del solito.",
    "pt": "O filme não é mais o que foi, mas os atores são muito bons e você vai gostar.",
    "nl": "Het is een film die je niet met de kinderen moet zien, maar er zijn ook andere.",
    "ja": "この映画はとても面白かったです。",
    "zh": "这部电影非常好看，我很喜欢。",
    "ko": "이 영화는 정말 재미있었어요.",
    "cyrillic": "Этот фильм мне очень понравился.",
    "greek": "Η ταινία ήταν πολύ καλή.",
    "arabic": "كان الفيلم جيدا جدا",
    "hebrew": "הסרט היה טוב מאוד",
    "devanagari": "फिल्म बहुत अच्छी थी",
    "thai": "หนังเรื่องนี้สนุกมาก",
    "latin": "Tokiwa 2026 GPU kfp",
    "unknown": "42 !? 😀",
}


@pytest.mark.parametrize("expected", TEXTS)
def test_a_sentence_of_each_language_is_told(expected):
    assert language(TEXTS[expected]) == expected


def test_a_few_foreign_letters_do_not_count():
    assert language("the price of π and of α is not known to me") == "en"
    assert language("新しい GPU を買った") == "ja"


@given(st.text())
def test_any_text_has_an_answer(text):
    assert language(text) in TEXTS
