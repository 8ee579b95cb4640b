from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.errors import ConfigError
from components.finetune.augment import augmenter, chance_of, noisy_copies, noisy_image, noisy_words
from components.finetune.config import AugmentConfig


def noisy(text, config, seed=0, synonyms=None):
    return noisy_words(text, config, synonyms or {}, np.random.default_rng(seed))


@given(st.text(), st.integers(0, 99))
def test_words_are_only_left_out_or_moved_and_one_stays(text, seed):
    config = AugmentConfig(word_dropout=0.5, word_swap=0.3)
    words = noisy(text, config, seed).split()
    left = list(text.split())
    for word in words:
        left.remove(word)
    assert bool(words) == bool(text.split())


def test_a_swapped_word_moves_by_one_place():
    words = ["a", "b", "c", "d", "e", "f", "g", "h"]
    got = noisy(" ".join(words), AugmentConfig(word_swap=0.5), 1).split()
    assert got != words
    assert sorted(got) == words
    assert max(abs(got.index(word) - place) for place, word in enumerate(words)) == 1


def test_shares_are_what_is_asked_for():
    text = " ".join(["word"] * 10_000)
    left = len(noisy(text, AugmentConfig(word_dropout=0.2)).split())
    assert left == pytest.approx(8000, rel=0.03)
    config = AugmentConfig(synonyms="file", synonym_share=0.3)
    replaced = noisy(text, config, synonyms={"word": ["term", "name"]}).split()
    assert replaced.count("term") + replaced.count("name") == pytest.approx(3000, rel=0.05)
    assert min(replaced.count("term"), replaced.count("name")) > 1000


def test_synonyms_come_from_a_file(make_classifier, tmp_path):
    path = tmp_path / "synonyms.json"
    path.write_text(json.dumps({"Good": ["fine"]}))
    model = make_classifier(0)
    config = AugmentConfig(synonyms=str(path), synonym_share=0.99)
    augment = augmenter(model, config)
    assert augment is not None
    got = augment("good film", model.encode(["good film"])[0], chance_of(0))
    assert got.tolist() == model.encode(["fine film"])[0].tolist()


@pytest.mark.parametrize("content", ["[]", "{", '{"a": "b"}', '{"a": [1]}'])
def test_bad_synonyms_are_the_users_mistake(make_classifier, tmp_path, content):
    path = tmp_path / "synonyms.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="synonyms"):
        augmenter(make_classifier(0), AugmentConfig(synonyms=str(path)))


def test_noise_for_images_is_refused_for_texts(make_classifier):
    with pytest.raises(ConfigError, match="need a task over images"):
        augmenter(make_classifier(0), AugmentConfig(rotation_degrees=10))
    assert augmenter(make_classifier(0), AugmentConfig()) is None


IMAGE = np.zeros((3, 32, 32), dtype=np.uint8)
IMAGE[:, 8:24, 14:18] = 200


@pytest.mark.parametrize(
    "asked",
    [{"crop": 0.3}, {"rotation_degrees": 20.0}, {"brightness": 0.4}, {"erasing": 0.99}],
)
def test_noisy_images_differ_keep_their_shape_and_repeat(asked):
    config = AugmentConfig(**asked)
    images = [noisy_image(IMAGE, config, chance_of(0, number)) for number in range(8)]
    assert all((image.shape, image.dtype) == (IMAGE.shape, IMAGE.dtype) for image in images)
    assert sum(not np.array_equal(image, IMAGE) for image in images) >= 6
    again = noisy_image(IMAGE, config, chance_of(0, 3))
    assert np.array_equal(again, images[3])
    before = IMAGE.copy()
    assert np.array_equal(IMAGE, before), "the row itself stays as it is"


def test_nothing_asked_is_nothing_done():
    assert np.array_equal(noisy_image(IMAGE, AugmentConfig(), chance_of(0)), IMAGE)


def test_an_image_is_never_mirrored():
    # The bright quarter is at the left; rotations by up to 30 degrees leave it there.
    image = np.zeros((3, 33, 33), dtype=np.uint8)
    image[:, 12:21, 2:10] = 255
    config = AugmentConfig(rotation_degrees=30, crop=0.1)
    for number in range(20):
        noisy_one = noisy_image(image, config, chance_of(number)).astype(float)
        assert noisy_one[:, :, :16].sum() > noisy_one[:, :, 17:].sum()


def test_copies_come_one_after_another_and_differ(make_classifier):
    model = make_classifier(0)
    texts = ["the film was good and the story was bad", "a very good film"]
    config = AugmentConfig(word_dropout=0.4)
    augment = augmenter(model, config)
    assert augment is not None
    copies = noisy_copies(texts, model.encode(texts), augment, 3, seed=0)
    assert len(copies) == 6
    assert len({tuple(copy.tolist()) for copy in copies[::2]}) > 1
    again = noisy_copies(texts, model.encode(texts), augment, 3, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(copies, again, strict=True))
