from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from components.errors import SourceError
from components.evaluate.image_perturbations import brightness, contrast, noise, shift
from components.tasks.image_classification import decode, encode_png

ALL = [noise, brightness, contrast, shift]


def pixels_of(content):
    return np.asarray(decode(content), dtype=float)


def scene(side=32):
    chance = np.random.default_rng(0)
    return chance.integers(60, 160, (side, side, 3)).astype(np.uint8)


@pytest.mark.parametrize("change", ALL)
@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_size_and_greyness_stay_and_the_same_seed_changes_the_same(
    change, height, width, grey, seed
):
    pixels = np.full((height, width) if grey else (height, width, 3), 100, np.uint8)
    changed = change(encode_png(pixels), np.random.default_rng(seed))
    assert pixels_of(changed).shape == pixels.shape
    assert change(encode_png(pixels), np.random.default_rng(seed)) == changed


@pytest.mark.parametrize("change", ALL)
def test_an_image_always_changes_but_stays_like_itself(change):
    before = scene()
    for seed in range(30):
        after = pixels_of(change(encode_png(before), np.random.default_rng(seed)))
        assert not np.array_equal(after, before)
        if change is not shift:
            assert np.corrcoef(after.ravel(), before.ravel())[0, 1] > 0.8


def test_noise_has_the_deviation_that_it_says():
    before = np.full((64, 64), 128, np.uint8)
    after = pixels_of(noise(encode_png(before), np.random.default_rng(0)))
    assert after.std() == pytest.approx(10, rel=0.05)
    assert after.mean() == pytest.approx(128, abs=1)


def test_brightness_changes_the_mean_and_contrast_only_the_spread():
    before = scene()
    for seed in range(20):
        bright, strong = (
            pixels_of(change(encode_png(before), np.random.default_rng(seed)))
            for change in (brightness, contrast)
        )
        assert 0.14 < abs(bright.mean() / before.mean() - 1) < 0.31
        assert strong.mean() == pytest.approx(before.mean(), abs=0.5)
        assert 0.14 < abs(strong.std() / before.std() - 1) < 0.31


def test_a_shift_moves_by_two_of_32_pixels_at_most():
    before = scene()
    moves = set()
    for seed in range(200):
        after = pixels_of(shift(encode_png(before), np.random.default_rng(seed)))
        inner = after[4:-4, 4:-4]
        moves |= {
            (down, right)
            for down in range(-3, 4)
            for right in range(-3, 4)
            if np.array_equal(inner, before[4 - down : 28 - down, 4 - right : 28 - right])
        }
    assert moves == {(down, right) for down in (-2, -1, 1, 2) for right in (-2, -1, 1, 2)}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_image_that_a_model_reads_can_be_changed(mode):
    buffer = io.BytesIO()
    image = Image.new(mode, (9, 7), 1 if mode in ("1", "L", "P", "I;16") else None)
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    for change in ALL:
        assert decode(change(content, np.random.default_rng(0))).size == (9, 7)


def test_what_is_no_image_is_refused():
    with pytest.raises(SourceError, match="not an image"):
        noise("nonsense", np.random.default_rng(0))
