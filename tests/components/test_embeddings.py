from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components import embeddings
from components.embeddings import KeptEmbeddings, embed
from components.plan import Base
from components.store import LocalStore
from components.tasks.image_classification import ImageClassifier
from components.tasks.text_classification import TextClassification

TASK = TextClassification(labels=("negative", "positive"), max_tokens=16)
SHORT = TASK.model_copy(update={"max_tokens": 8})
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
    vectors = embed(TEXTS, tiny_base, TASK)
    assert vectors.shape == (5, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    alone = np.concatenate([embed([text], tiny_base, TASK) for text in TEXTS])
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
        embed(TEXTS[:1], tiny_base, TASK)[0], mean / np.linalg.norm(mean), atol=1e-5
    )


def test_progress_is_told_up_to_the_last_row(tiny_base):
    told: list[int] = []
    embed(["a film"] * 70, tiny_base, TASK, told.append)
    assert told == [64, 70]


def test_a_window_is_embedded_once(store, base, counted):
    kept = KeptEmbeddings(store, base, TASK, "code")
    first = kept.vectors("window", TEXTS, quiet)
    again = KeptEmbeddings(store, base, TASK, "code").vectors("window", TEXTS, quiet)
    np.testing.assert_array_equal(first, again)
    assert len(counted) == 1


def test_only_rows_that_are_new_are_embedded_and_the_order_may_differ(tmp_path, base, counted):
    kept = KeptEmbeddings(LocalStore(tmp_path), base, TASK, "code")
    some = kept.vectors("window", TEXTS[:2], quiet)
    everything = kept.vectors("window", [*reversed(TEXTS[:2]), "and a story"], quiet)
    assert counted[1] == ["and a story"]
    np.testing.assert_array_equal(everything[:2], some[::-1])
    assert len(kept.vectors("window", TEXTS[:1], quiet)) == 1
    assert len(counted) == 2


def test_other_windows_encoders_and_limits_are_kept_apart(tmp_path, base, counted):
    store = LocalStore(tmp_path)
    other = base.model_copy(update={"digest": "e" * 64})
    for encoder, task, window in [
        (base, TASK, "one"),
        (base, TASK, "two"),
        (base, SHORT, "one"),
        (other, TASK, "one"),
    ]:
        KeptEmbeddings(store, encoder, task, "code").vectors(window, TEXTS, quiet)
    assert len(counted) == 4


def test_a_window_without_rows_has_no_vectors_and_may_get_some_later(tmp_path, base):
    kept = KeptEmbeddings(LocalStore(tmp_path), base, TASK, "code")
    for _ in range(2):
        assert kept.vectors("window", [], quiet).shape == (0, 32)
    assert kept.vectors("window", TEXTS, quiet).shape == (5, 32)
    assert kept.vectors("window", [], quiet).shape == (0, 32)


def test_progress_counts_the_rows_that_are_computed(tmp_path, base):
    kept = KeptEmbeddings(LocalStore(tmp_path), base, TASK, "code")
    told = []
    kept.vectors("window", TEXTS[:2], lambda *said: told.append(said))
    kept.vectors("window", [*TEXTS[:2], "and"], lambda *said: told.append(said))
    assert told == [(2, 2, "rows embedded"), (1, 1, "rows embedded")]


def test_images_are_embedded_by_the_pretrained_network_itself(case_of):
    import torch

    case = case_of("image-classification")
    contents = pd.read_parquet(case.prepared / "rows.parquet")["text"].tolist()[:5]
    model = ImageClassifier.from_base(case.base, case.task, dropout=0.0)
    with torch.inference_mode():
        features = model.network.features(*model.collate(model.encode(contents))).numpy()
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    vectors = embed(contents, case.base, case.task)
    assert vectors.shape == (5, 1280)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_images_of_another_size_are_embedded_anew(tmp_path, case_of, counted):
    case = case_of("image-classification")
    contents = pd.read_parquet(case.prepared / "rows.parquet")["text"].tolist()[:2]
    base = Base(place=str(case.base), requirement="", digest="f" * 64)
    for task in (case.task, case.task.model_copy(update={"pixels": 40}), case.task):
        KeptEmbeddings(LocalStore(tmp_path), base, task, "code").vectors("w", contents, quiet)
    assert len(counted) == 2
