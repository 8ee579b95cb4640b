"""An existing model becomes the first champion, and can be watched and beaten."""

from __future__ import annotations

from pathlib import Path

import pytest

SEED = 3


@pytest.fixture(scope="session")
def own_model(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers classifier as its own `save_pretrained` leaves it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("own-model")
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny_base, num_labels=2, id2label={0: "good", 1: "bad"}
        )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_an_adopted_model_is_watched_and_beaten(toy_desk, own_model):
    entry = toy_desk.json("adopt", "toy.yaml", str(own_model), "--window", "2026-01-05")
    assert (entry["action"], entry["number"], entry["version"]) == ("adopt", 1, "1")
    assert toy_desk.json("predict", "toy.yaml", "the film was good")["version"] == "1"

    # It answers by chance, so that a model trained on the same week beats it. Not one that
    # starts from it: its head reads one token only, which so few steps do not teach it.
    anew = ("--set", "finetune.start=base")
    ran = toy_desk.json("run", "toy.yaml", "--window", "2026-01-05", *anew)
    assert ran["result"] == "promoted", ran["reason"]
    watched = toy_desk.json("monitor", "toy.yaml", "--window", "2026-01-12")
    assert watched["result"] == "quiet"

    again = toy_desk.tokiwa("adopt", "toy.yaml", str(own_model), expect=2)
    assert "has a champion already; a new model must win: tokiwa run toy.yaml" in again.stderr


def test_what_cannot_be_adopted_is_refused_by_name(toy_desk, own_model, tmp_path):
    missing = toy_desk.tokiwa("adopt", "toy.yaml", str(tmp_path / "nothing"), expect=2)
    assert "no transformers model" in missing.stderr
    other = ("--set", "task.labels=[yes, no]")
    labels = toy_desk.tokiwa("adopt", "toy.yaml", str(own_model), *other, expect=1)
    assert "knows the labels good, bad" in labels.stderr
    assert toy_desk.json("history", "toy.yaml") == []
