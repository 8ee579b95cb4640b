"""What a project file asks of decisions, from the command line to the answers of the champion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

RECALL = "{aim: recall, label: good, at_least: 0.9}"
ABSTAIN = "{answered_accuracy: 0.9}"


@pytest.fixture
def doubtful_desk(toy_desk):
    """The toy project with a fifth of its labels turned around."""
    table = toy_desk.folder / "rows.csv"
    rows = pd.read_csv(table, dtype=str)
    turned = np.random.default_rng(0).random(len(rows)) < 0.2
    other = rows["label"].map({"good": "bad", "bad": "good"})
    rows.assign(label=rows["label"].where(~turned, other)).to_csv(table, index=False)
    return toy_desk


@pytest.mark.slow
@pytest.mark.parametrize("aim", [RECALL, ABSTAIN])
def test_a_champion_answers_as_the_gate_saw_it_decide(doubtful_desk, aim):
    desk = doubtful_desk
    # So few test rows do not tell what gives up precision from the majority class.
    keys = (f"finetune.operating_point={aim}", "evaluate.warn=[baselines]")
    overrides = [word for key in keys for word in ("--set", key)]
    ran = desk.json("run", "toy.yaml", "--window", "2026-01-05", *overrides)
    assert ran["result"] == "promoted", ran["reason"]
    (exam,) = desk.home.glob("artifacts/**/predictions.parquet")
    table = pd.read_parquet(exam)
    test = table[table["split"] == "test"]
    said = desk.json("predict", "toy.yaml", *test["text"])["predictions"]
    leaning = test["answer_challenger"].tolist()
    names = np.array(["bad", "good"])
    most_probable = names[test[["output_bad", "output_good"]].to_numpy().argmax(1)].tolist()
    if aim == RECALL:
        assert [each["label"] for each in said] == leaning != most_probable
        assert "abstained" not in said[0]
    else:
        left = test["abstained_challenger"]
        assert 0 < left.mean() < 1
        assert [each["abstained"] for each in said] == left.tolist()
        assert [each["label"] for each in said] == test["answer_challenger"].where(
            ~left, None
        ).tolist()
        assert leaning == most_probable
