from __future__ import annotations

import numpy as np
import pytest

from components.attributions import tile_weights, weights, word_weights
from components.tasks.image_classification import decode, encode_png


def test_the_word_that_decides_weighs_most():
    def answers(texts):
        good = np.array([0.9 if "good" in text else 0.2 for text in texts])
        return np.stack([1 - good, good], 1)

    found = word_weights("a good film\nof  mine", answers, 1)
    assert [word for word, _ in found] == ["a", "good", "film", "of", "mine"]
    np.testing.assert_allclose([weight for _, weight in found], [0, 0.7, 0, 0, 0])
    assert word_weights("good", answers, 0) == [("good", 0.1 - 0.8)]
    assert len(word_weights("good " * 500, answers, 1)) == 40


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("映画は本当につまらなかった。", ["映画", "は", "本当", "につまら", "なかった。"]),
        ("foo 今天的电影很好 bar", ["foo", "今天的电", "影很好", "bar"]),
        ("เรื่องนี้ดี", ["เรื่", "องนี้", "ดี"]),
        ("영화는 좋았다", ["영화는", "좋았다"]),
    ],
)
def test_where_there_are_no_spaces_a_few_letters_are_a_word(text, pieces):
    asked = []

    def answers(texts):
        asked.extend(texts)
        return np.array([[len(each)] for each in texts], dtype=float)

    assert [word for word, _ in word_weights(text, answers, 0)] == pieces
    assert asked[0] == text
    assert asked[2] == " ".join(text.replace(pieces[1], "").split())


def test_the_tile_that_decides_weighs_most():
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[8:16, 36:48] = 255

    def answers(images):
        bright = np.array([np.asarray(decode(each)).max() / 255 for each in images])
        return np.stack([1 - bright, bright], 1)

    found = np.array(tile_weights(encode_png(pixels), answers, 1))
    assert found.shape == (4, 4)
    assert found.argmax() == 4 + 3
    assert weights(encode_png(pixels), "image", answers, 1) == ([], found.tolist())
