from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from components.errors import BundleError
from components.profile import (
    VECTOR_ROWS,
    Answers,
    Columns,
    Profile,
    as_frame,
    embedding_features,
    sampled,
)
from components.tasks.text import text_features


@pytest.fixture(scope="module")
def tokenizer(make_classifier):
    return make_classifier(0).tokenizer


@pytest.fixture
def saved(tmp_path):
    groups = np.array([0, 0, 1, 2], np.int64)
    Profile.of(
        "2026-01-05",
        inputs=Columns(
            {"characters": np.array([3.0, 1.0, np.nan, 2.0])},
            {"language": ["de", "de", "en", "en"]},
            groups,
        ),
        outputs=Columns({"confidence": np.array([0.9, 0.6, 0.8, 0.7])}, {}, np.arange(4)),
        errors=np.array([0.0, 1.0, 0.0, 0.0]),
        vectors=np.arange(8, dtype=np.float32).reshape(4, 2),
        answers=Answers(
            np.asfortranarray([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]]),
            np.array([0, 0, 1, 1]),
            np.array([0, 1, 1, 1]),
            np.arange(4),
        ),
    ).save(tmp_path)
    return tmp_path


def test_a_profile_comes_back_as_it_was(saved):
    profile = Profile.load(saved)
    assert (profile.error_rate, profile.error_rows, profile.window) == (0.25, 4, "2026-01-05")
    np.testing.assert_array_equal(profile.numbers["characters"].values, [1, 2, 3])
    assert profile.numbers["characters"].missing == 1
    np.testing.assert_array_equal(profile.numbers["confidence"].values, [0.6, 0.7, 0.8, 0.9])
    assert profile.independent.keys() == {"characters", "confidence", "language"}
    assert profile.independent["confidence"] == 1 > profile.independent["language"]
    assert profile.categories == {"language": {"de": 2, "en": 2}}
    np.testing.assert_array_equal(profile.vectors, [[0, 1], [2, 3], [4, 5], [6, 7]])
    np.testing.assert_array_equal(profile.vector_groups, [0, 0, 1, 2])
    assert profile.answers is not None and profile.answers.targets is not None
    np.testing.assert_array_equal(profile.answers.probabilities[1], [0.6, 0.4])
    np.testing.assert_array_equal(profile.answers.decided, [0, 0, 1, 1])
    np.testing.assert_array_equal(profile.answers.targets, [0, 1, 1, 1])


def test_equal_profiles_are_equal_files(saved, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    Profile.load(saved).save(again)
    for name in ("profile.json", "profile.safetensors"):
        assert (again / name).read_bytes() == (saved / name).read_bytes()


def test_of_many_vectors_a_sample_is_remembered_that_is_always_the_same():
    chosen = sampled(VECTOR_ROWS + 500)
    assert len(chosen) == VECTOR_ROWS == len(set(chosen.tolist()))
    np.testing.assert_array_equal(chosen, sampled(VECTOR_ROWS + 500))
    np.testing.assert_array_equal(sampled(3), [0, 1, 2])


@pytest.mark.parametrize("name", ["profile.json", "profile.safetensors"])
def test_a_missing_or_damaged_profile_is_a_bundle_error(saved, name):
    content = (saved / name).read_bytes()
    for spoilt in (b"", b"{}", content[: len(content) // 2]):
        (saved / name).write_bytes(spoilt)
        with pytest.raises(BundleError, match="no readable profile"):
            Profile.load(saved)
    (saved / name).unlink()
    with pytest.raises(BundleError, match="no readable profile"):
        Profile.load(saved)


def test_a_newer_profile_asks_for_an_upgrade(saved):
    content = json.loads((saved / "profile.json").read_text())
    (saved / "profile.json").write_text(json.dumps({**content, "schema_version": 3}))
    with pytest.raises(BundleError, match="schema 3, which needs a newer Tokiwa; upgrade"):
        Profile.load(saved)


def test_a_profile_of_the_first_schema_is_still_read(tmp_path):
    old = {"error_rate": 0.25, "error_rows": 40, "schema_version": 1, "window": "2026-01-05"}
    (tmp_path / "profile.json").write_text(json.dumps(old))
    columns = {"characters": np.array([1.0, 2.0]), "embedding_000": np.array([0.1, 0.3])}
    save_file(columns, tmp_path / "profile.safetensors")
    profile = Profile.load(tmp_path)
    assert (profile.error_rate, profile.error_rows, profile.window) == (0.25, 40, "2026-01-05")
    assert profile.numbers.keys() == columns.keys()
    np.testing.assert_array_equal(profile.numbers["embedding_000"].values, [0.1, 0.3])
    assert profile.answers is None
    assert len(profile.vectors) == 0


def test_text_features_say_what_they_are_called(tokenizer):
    features = text_features(["the Film was GOOD!", "", "zzz 12 zzz"], tokenizer)
    np.testing.assert_array_equal(features["characters"], [18, 0, 10])
    np.testing.assert_array_equal(features["tokens"], [5, 0, 3])
    np.testing.assert_allclose(features["unknown_share"], [1 / 5, 0, 1])
    np.testing.assert_allclose(features["upper_share"], [5 / 18, 0, 0])
    np.testing.assert_allclose(features["digit_share"], [0, 0, 2 / 10])
    np.testing.assert_allclose(features["punctuation_share"], [1 / 18, 0, 0])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=8))
def test_features_of_a_text_are_finite_and_do_not_depend_on_the_others(tokenizer, texts):
    features = text_features(texts, tokenizer)
    for name, values in features.items():
        assert values.shape == (len(texts),)
        assert np.isfinite(values).all()
        if name.endswith("_share"):
            assert ((values >= 0) & (values <= 1)).all()
        alone = [text_features([text], tokenizer)[name][0] for text in texts]
        np.testing.assert_array_equal(values, alone)


def test_each_component_of_the_embeddings_is_a_feature():
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    frame = as_frame(embedding_features(vectors))
    assert list(frame) == ["embedding_000", "embedding_001", "embedding_002"]
    np.testing.assert_array_equal(frame.to_numpy(), vectors)
