from __future__ import annotations

import numpy as np
import pytest

from components import embeddings
from components.embeddings import KeptEmbeddings, embed
from components.plan import Base
from components.store import LocalStore

TEXTS = ["the film was good", "a dull story", "", "the film was good", "very " * 100]


@pytest.fixture
def base(tiny_base):
    return Base(place=str(tiny_base), requirement="", digest="d" * 64)


@pytest.fixture
def counted(monkeypatch):
    """The texts that were really embedded, call by call."""
    calls = []

    def count(texts, *args):
        calls.append(list(texts))
        return embed(texts, *args)

    monkeypatch.setattr(embeddings, "embed", count)
    return calls


def quiet(done, total, what):
    pass


def test_vectors_have_length_one_and_keep_the_order_of_the_texts(tiny_base):
    vectors = embed(TEXTS, tiny_base, 16)
    assert vectors.shape == (5, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    alone = np.concatenate([embed([text], tiny_base, 16) for text in TEXTS])
    # Padding in a batch changes the last bits.
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


def test_vectors_are_the_mean_over_the_tokens_of_the_encoder(tiny_base):
    import torch
    from transformers import AutoModel, AutoTokenizer

    encoder = AutoModel.from_pretrained(tiny_base).eval()
    tokens = AutoTokenizer.from_pretrained(tiny_base)(TEXTS[:1], return_tensors="pt")
    with torch.inference_mode():
        mean = encoder(**tokens).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(
        embed(TEXTS[:1], tiny_base, 16)[0], mean / np.linalg.norm(mean), atol=1e-5
    )


def test_progress_is_told_up_to_the_last_row(tiny_base):
    told: list[int] = []
    embed(["a film"] * 70, tiny_base, 16, told.append)
    assert told == [64, 70]


def test_a_window_is_embedded_once(store, base, counted):
    kept = KeptEmbeddings(store, base, 16, "code")
    first = kept.vectors("window", TEXTS, quiet)
    again = KeptEmbeddings(store, base, 16, "code").vectors("window", TEXTS, quiet)
    np.testing.assert_array_equal(first, again)
    assert len(counted) == 1


def test_only_rows_that_are_new_are_embedded_and_the_order_may_differ(tmp_path, base, counted):
    kept = KeptEmbeddings(LocalStore(tmp_path), base, 16, "code")
    some = kept.vectors("window", TEXTS[:2], quiet)
    everything = kept.vectors("window", [*reversed(TEXTS[:2]), "and a story"], quiet)
    assert counted[1] == ["and a story"]
    np.testing.assert_array_equal(everything[:2], some[::-1])
    assert len(kept.vectors("window", TEXTS[:1], quiet)) == 1
    assert len(counted) == 2


def test_other_windows_encoders_and_limits_are_kept_apart(tmp_path, base, counted):
    store = LocalStore(tmp_path)
    other = base.model_copy(update={"digest": "e" * 64})
    for encoder, tokens, window in [
        (base, 16, "one"),
        (base, 16, "two"),
        (base, 8, "one"),
        (other, 16, "one"),
    ]:
        KeptEmbeddings(store, encoder, tokens, "code").vectors(window, TEXTS, quiet)
    assert len(counted) == 4


def test_a_window_without_rows_has_no_vectors_and_may_get_some_later(tmp_path, base):
    kept = KeptEmbeddings(LocalStore(tmp_path), base, 16, "code")
    for _ in range(2):
        assert kept.vectors("window", [], quiet).shape == (0, 32)
    assert kept.vectors("window", TEXTS, quiet).shape == (5, 32)
    assert kept.vectors("window", [], quiet).shape == (0, 32)


def test_progress_counts_the_rows_that_are_computed(tmp_path, base):
    kept = KeptEmbeddings(LocalStore(tmp_path), base, 16, "code")
    told = []
    kept.vectors("window", TEXTS[:2], lambda *said: told.append(said))
    kept.vectors("window", [*TEXTS[:2], "and"], lambda *said: told.append(said))
    assert told == [(2, 2, "rows embedded"), (1, 1, "rows embedded")]
