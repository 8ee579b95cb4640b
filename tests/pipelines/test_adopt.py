"""An existing model becomes the first champion, and can be watched and beaten."""

from __future__ import annotations

import json
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
def test_an_adopted_model_and_its_successor_are_signed(toy_desk, own_model, make_key, monkeypatch):
    private, public = make_key()
    file = toy_desk.folder / "signing.pem"
    file.write_text(private)
    monkeypatch.setenv("TOKIWA_SIGNING_KEY", str(file))
    keys = ("--set", f"deploy.trusted_keys={json.dumps([public])}")
    signs = ("--set", "register.signing_key_env=TOKIWA_SIGNING_KEY")
    window, model = ("--window", "2026-01-05"), str(own_model)
    unsigned = toy_desk.tokiwa("adopt", "toy.yaml", model, *window, *keys, expect=1)
    assert "is not signed, and the project trusts" in unsigned.stderr
    toy_desk.json("adopt", "toy.yaml", model, *window, *keys, *signs)
    anew = ("--set", "finetune.start=base")
    ran = toy_desk.json("run", "toy.yaml", *window, *anew, *keys, *signs)
    assert ran["result"] == "promoted", ran["reason"]
    assert toy_desk.json("predict", "toy.yaml", "good", *keys)["generation"] == 2
    other = ("--set", f"deploy.trusted_keys={json.dumps([make_key()[1]])}")
    refused = toy_desk.tokiwa("predict", "toy.yaml", "good", *other, expect=1)
    assert "is signed by" in refused.stderr


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
