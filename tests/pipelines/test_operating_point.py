"""What a project file asks of decisions, from the command line to the answers of the champion."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def doubtful_desk(toy_desk):
    """The toy project with a fifth of its labels turned around."""
    table = toy_desk.folder / "rows.csv"
    rows = pd.read_csv(table, dtype=str)
    turned = np.random.default_rng(0).random(len(rows)) < 0.2
    other = rows["label"].map({"good": "bad", "bad": "good"})
    rows.assign(label=rows["label"].where(~turned, other)).to_csv(table, index=False)
    return toy_desk


def run(desk, aim, *more):
    overrides = [
        word for key in (f"finetune.operating_point={aim}", *more) for word in ("--set", key)
    ]
    return desk.json("run", "toy.yaml", "--window", "2026-01-05", *overrides)


@pytest.mark.slow
def test_a_champion_answers_as_the_gate_saw_it_decide(doubtful_desk):
    desk = doubtful_desk
    # So few test rows do not tell what gives up precision from the majority class.
    ran = run(desk, "{aim: recall, label: good, at_least: 0.9}", "evaluate.warn=[baselines]")
    assert ran["result"] == "promoted", ran["reason"]
    (exam,) = desk.home.glob("artifacts/**/predictions.parquet")
    table = pd.read_parquet(exam)
    test = table[table["split"] == "test"]
    said = desk.json("predict", "toy.yaml", *test["text"])["predictions"]
    names = np.array(["bad", "good"])
    most_probable = names[test[["output_bad", "output_good"]].to_numpy().argmax(1)].tolist()
    assert [each["label"] for each in said] == test["answer_challenger"].tolist() != most_probable
    assert "abstained" not in said[0]


@pytest.mark.slow
def test_a_model_that_must_abstain_from_nearly_everything_is_kept_out(doubtful_desk):
    # With a fifth of the labels wrong, hardly any row can be answered so surely.
    ran = run(doubtful_desk, "{answered_accuracy: 0.9}", "evaluate.warn=[baselines]")
    assert ran["result"] == "kept"
    assert "coverage is 0.0" in ran["reason"]
    assert "evaluate.floors asks for at least 0.5" in ran["reason"]
