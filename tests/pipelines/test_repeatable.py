"""Two runs from the same plan, in two processes and two homes, give the same to the bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest


def _fruits(home: Path) -> dict[str, object]:
    """Return what a home's only training run left: split, decision, weights."""
    (artifacts,) = (home / "artifacts").iterdir()
    rows = pd.read_parquet(artifacts / "prepare" / "prepared" / "rows.parquet")
    report = json.loads((artifacts / "evaluate" / "report").read_text())
    weights = (artifacts / "finetune" / "model" / "model.safetensors").read_bytes()
    return {
        "split": rows[["id", "split"]].to_dict("list"),
        "verdict": report["verdict"],
        # What one machine takes from time to time differs, and is recorded.
        "checks": [each for each in report["checks"] if not each["name"].startswith("latency")],
        "weights": hashlib.sha256(weights).hexdigest(),
        "bundle": report["challenger"],
    }


def _twice(desk, *words: str) -> tuple[dict[str, object], dict[str, object]]:
    found = []
    for _ in range(2):
        desk.tokiwa("run", *words, "--no-cache")
        found.append(_fruits(desk.home))
        shutil.rmtree(desk.home)
    return found[0], found[1]


@pytest.mark.slow
def test_a_tiny_model_is_equal_bit_for_bit(toy_desk):
    one, two = _twice(toy_desk, "toy.yaml", "--window", "2026-01-05")
    assert one == two


@pytest.mark.slow
def test_another_seed_gives_other_weights(toy_desk):
    toy_desk.tokiwa("run", "toy.yaml", "--window", "2026-01-05")
    one = _fruits(toy_desk.home)
    shutil.rmtree(toy_desk.home)
    toy_desk.tokiwa("run", "toy.yaml", "--window", "2026-01-05", "--set", "finetune.seed=1")
    assert _fruits(toy_desk.home)["weights"] != one["weights"]


@pytest.mark.slow
def test_minilm_is_equal_bit_for_bit(desk):
    few = ("--set", "source.max_rows_per_window=400", "--set", "finetune.epochs=1")
    one, two = _twice(desk, "sentiment", "--window", "2026-01-05", *few)
    assert one == two
