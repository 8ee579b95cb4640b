from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.split import TEST_SHARE, content_digest, content_digests, is_test, unit_interval

KEYS = st.lists(st.text(max_size=20), max_size=30)


def test_the_split_is_the_one_it_has_always_been():
    # Another hash, salt or share would put rows that champions have learned into the test set.
    assert TEST_SHARE == 0.2
    np.testing.assert_allclose(
        unit_interval(["a", "doc-1", "語"], "test"),
        [0.2651516359, 0.9438948863, 0.2428271499],
        atol=1e-9,
    )
    assert content_digest(" The  FILM ").startswith("ab1cd3e921afa948")


@given(KEYS, KEYS)
def test_a_place_does_not_depend_on_the_other_keys(keys, others):
    alone = [unit_interval([key], "test")[0] for key in keys]
    np.testing.assert_array_equal(unit_interval(keys + others, "test")[: len(keys)], alone)
    np.testing.assert_array_equal(unit_interval(others + keys, "test")[len(others) :], alone)


@given(KEYS, st.text(max_size=5))
def test_places_lie_in_the_half_open_unit_interval(keys, salt):
    places = unit_interval(keys, salt)
    assert places.shape == (len(keys),)
    assert ((places >= 0) & (places < 1)).all()


def test_places_are_uniform_and_salts_independent():
    keys = [f"group-{number}" for number in range(20_000)]
    test, valid = unit_interval(keys, "test"), unit_interval(keys, "valid")
    for places in (test, valid):
        counts = np.histogram(places, bins=10, range=(0, 1))[0]
        assert abs(counts - 2000).max() < 5 * np.sqrt(2000)
    assert abs(np.corrcoef(test, valid)[0, 1]) < 0.03
    assert is_test(keys).mean() == pytest.approx(TEST_SHARE, abs=0.012)


@pytest.mark.parametrize(
    "same", ["The film", "  the\tFILM\n", "ＴＨＥ　ｆｉｌｍ", "tHe\u00a0film"]
)  # fmt: skip
def test_texts_that_a_reader_takes_for_equal_have_one_digest(same):
    assert content_digest(same) == content_digest("the film")


@pytest.mark.parametrize("other", ["the films", "thefilm", "the, film", ""])
def test_other_texts_have_other_digests(other):
    assert content_digest(other) != content_digest("the film")


def test_a_text_with_a_lone_surrogate_has_a_digest_too():
    assert content_digest("\ud800") != content_digest("\ud801")


PIECES = ["", " ", "  ", "\t", "\x1c", "\x7f", "\x85", "Word", "word", "\u3000", "\uff37", "\u00e9"]


@given(st.lists(st.none() | st.lists(st.sampled_from(PIECES), max_size=5).map("".join)), st.data())
def test_the_digests_of_a_column_are_those_of_its_texts(texts, data):
    column = pa.array(texts, pa.string())
    cut = data.draw(st.integers(0, len(texts)))
    digests = [content_digest(text or "") for text in texts]
    for some, expected in (
        (column, digests),
        (column.slice(cut), digests[cut:]),
        (pa.chunked_array([column.slice(cut), column[:cut]]), digests[cut:] + digests[:cut]),
    ):
        assert [digest.hex() for digest in content_digests(some)] == expected


def test_the_digests_of_a_column_of_many_rows_are_those_of_its_texts():
    texts = [f"Text {number}" for number in range(40_000)]
    digests = content_digests(pa.array(texts))
    assert [digest.hex() for digest in digests] == [content_digest(text) for text in texts]
