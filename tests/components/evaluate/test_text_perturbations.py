from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from components.evaluate.text_perturbations import case, numbers, typos, unicode_forms, whitespace

ALL = [case, typos, whitespace, unicode_forms, numbers]
SENTENCE = "The 2 films of 1998 were really good, and the Story surprised everybody twice."


def seeded(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("change", ALL)
@given(text=st.text(), seed=st.integers(0, 99))
@example(text="\ud800 a", seed=0)
@example(text="İß ﬁ", seed=1)
def test_a_text_is_never_emptied_and_changes_the_same_way_again(change, text, seed):
    changed = change(text, seeded(seed))
    assert bool(changed.strip()) == bool(text.strip())
    assert change(text, seeded(seed)) == changed


@pytest.mark.parametrize("change", ALL)
def test_a_sentence_always_changes(change):
    assert all(change(SENTENCE, seeded(seed)) != SENTENCE for seed in range(50))
    assert len({change(SENTENCE, seeded(seed)) for seed in range(50)}) > 1


@given(st.text(), st.integers(0, 99))
def test_whitespace_changes_nothing_but_whitespace(text, seed):
    assert whitespace(text, seeded(seed)).split() == text.split()


@given(st.text(alphabet=st.characters(max_codepoint=0x7F)), st.integers(0, 99))
def test_case_changes_nothing_but_case(text, seed):
    assert case(text, seeded(seed)).lower() == text.lower()


@given(st.text(alphabet="abcdefgh XYZ.,12"), st.integers(0, 99))
def test_a_typo_keeps_length_and_first_letters_and_touches_long_words_only(text, seed):
    changed = typos(text, seeded(seed))
    assert len(changed) == len(text)
    for before, after in zip(text.split(" "), changed.split(" "), strict=True):
        assert before[:1] == after[:1]
        if not re.search("[A-Za-z]{4}", before):
            assert before == after
        assert sum(a != b for a, b in zip(before, after, strict=True)) <= 2 * len(
            re.findall("[A-Za-z]{4,}", before)
        )


def test_a_typo_is_a_swap_or_a_neighbouring_key():
    slips = {typos("gold", seeded(seed)) for seed in range(500)}
    swaps, neighbours = {"glod", "godl"}, {f"g{key}ld" for key in "ipkl"}
    assert slips == swaps | neighbours | {f"go{key}d" for key in "kop"}
    assert {typos("GOLD", seeded(seed)) for seed in range(500)} == {s.upper() for s in slips}


def test_about_a_tenth_of_the_words_gets_a_typo():
    words = ["different"] * 5000
    changed = typos(" ".join(words), seeded(0)).split()
    assert sum(word != "different" for word in changed) == pytest.approx(500, rel=0.15)


def test_other_forms_look_the_same():
    forms = {unicode_forms("Café 1", seeded(seed)) for seed in range(200)}
    assert "Ｃａｆé 1" in forms
    assert "Cafe\u0301 1" in forms
    assert "Саfé 1" in forms  # the first two letters are Cyrillic
    assert "Cáfé 1" in forms
    assert "Café １" in forms
    folded = {unicodedata.normalize("NFKD", form).lower()[2:4] for form in forms}
    assert folded == {"fe", "\u0301f"}


def test_words_that_have_no_other_form_are_passed_over():
    assert all("漢字" in unicode_forms("漢字 hello 漢字", seeded(seed)) for seed in range(30))
    assert all("hello" not in unicode_forms("漢字 hello 漢字", seeded(s)) for s in range(30))
    assert unicode_forms("漢字", seeded(0)) == "漢字"
    assert unicode_forms("がある", seeded(0)) == "か\u3099ある"


@given(st.text(alphabet="0123456789ab. "), st.integers(0, 99))
def test_every_number_becomes_another_one_of_as_many_digits(text, seed):
    changed = numbers(text, seeded(seed))
    assert re.sub("[0-9]", "0", changed) == re.sub("[0-9]", "0", text)
    for before, after in zip(
        re.findall("[0-9]+", text), re.findall("[0-9]+", changed), strict=True
    ):
        assert before != after
        if len(before) > 1 and before[0] != "0":
            assert after[0] != "0"
