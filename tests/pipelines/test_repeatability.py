"""Several trainings of one recipe: the folds, the interval, the command."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from components.errors import BadInput
from pipelines.cli import main
from pipelines.repeatability import splits, summary

DAYS = pd.date_range("2026-01-05", periods=60, freq="D", tz="UTC")


@pytest.fixture
def frame():
    """Sixty current rows in thirty groups of two, one label in five rare, and earlier rows."""
    current = pd.DataFrame(
        {
            "group": [f"g{number // 2}" for number in range(60)],
            "time": [day.isoformat() for day in DAYS],
            "text": "a film",
            "label": ["rare" if number // 2 % 5 == 0 else "common" for number in range(60)],
            "split": np.resize(["train", "train", "valid", "test"], 60),
        }
    )
    earlier = current.head(10).assign(split=["rehearsal"] * 6 + ["guard"] * 4, group="old")
    return pd.concat([current, earlier], ignore_index=True)


@pytest.mark.parametrize("kind", ["stratified", "grouped", "time"])
def test_folds_keep_groups_together_and_earlier_rows_apart(frame, kind):
    for split in splits(frame, 4, kind, 0.2):
        assert set(split[60:66]) == {"rehearsal"}
        assert set(split[66:]) == {""}
        assert {"train", "valid", "test"} <= set(split[:60])
        by_group = pd.Series(split[:60]).groupby(frame["group"][:60]).nunique()
        assert (by_group == 1).all()


@pytest.mark.parametrize("kind", ["stratified", "grouped"])
def test_every_row_is_tested_once(frame, kind):
    tested = sum((split == "test").astype(int) for split in splits(frame, 5, kind, 0.2))
    assert (tested[:60] == 1).all()
    assert (tested[60:] == 0).all()


def test_stratified_folds_have_the_labels_in_balance(frame):
    for split in splits(frame, 3, "stratified", 0.2):
        assert (frame["label"][split == "test"] == "rare").sum() == 4


def test_folds_by_time_learn_from_the_past_alone(frame):
    ends = []
    for split in splits(frame.sample(frac=1, random_state=0), 4, "time", 0.2):
        shuffled = frame.sample(frac=1, random_state=0)
        times = pd.to_datetime(shuffled["time"])
        learnt, judged, tested = (times[split == name] for name in ("train", "valid", "test"))
        assert learnt.max() < judged.min() <= judged.max() < tested.min()
        ends.append(tested.max())
    assert ends == sorted(ends)
    assert ends[-1] == DAYS[-1]


@pytest.mark.parametrize("kind", ["stratified", "grouped", "time"])
def test_earlier_rows_of_a_group_that_is_judged_rest(frame, kind):
    frame.loc[60:65, "group"] = [f"g{number}" for number in (0, 0, 7, 14, 21, 29)]
    rested = 0
    for split in splits(frame, 4, kind, 0.2):
        judged = set(frame["group"][:60][np.isin(split[:60], ["valid", "test"])])
        for group, use in zip(frame["group"][60:66], split[60:66], strict=True):
            assert use == ("" if group in judged else "rehearsal")
            rested += group in judged
    assert rested


def test_folds_that_would_learn_from_nothing_are_refused(frame):
    days = frame.assign(time=[f"2026-01-{5 + number // 20:02d}" for number in range(len(frame))])
    with pytest.raises(BadInput, match="fold 1 of 2 has no train rows; take fewer folds"):
        list(splits(days, 2, "time", 0.2))
    # Every group is there until the last day, so that no fold could come before another.
    lasting = frame.assign(group=[f"g{number % 30}" for number in range(len(frame))])
    lasting.loc[30:, "time"] = frame["time"][59]
    with pytest.raises(BadInput, match="and 5 different ones"):
        next(splits(lasting, 4, "time", 0.2))


def test_what_cannot_be_cut_is_told(frame):
    with pytest.raises(BadInput, match="20 folds need 40 groups of rows or more; there are 30"):
        next(splits(frame, 20, "stratified", 0.2))
    with pytest.raises(BadInput, match="need a time in every row"):
        next(splits(frame.assign(time=""), 4, "time", 0.2))


def test_the_interval_covers_the_mean_of_overlapping_trainings():
    """Scores of folds that share their rows by what they have in common, as Nadeau & Bengio."""
    chance = np.random.default_rng(0)
    covered, folds, share = 0, 5, 0.25
    for _ in range(2000):
        # Correlated by test share over all rows, which their correction assumes.
        common = chance.normal(scale=np.sqrt(share / (1 + share)))
        own = chance.normal(scale=np.sqrt(1 - share / (1 + share)), size=(folds, 1))
        found = summary(0.8 + 0.01 * (common + own), share)
        covered += found.low <= 0.8 <= found.high
    assert 0.94 <= covered / 2000 <= 0.97


def test_seeds_tell_their_own_deviation():
    scores = np.array([[0.8, 0.9], [0.7, 0.8]])
    found = summary(scores, 0.25)
    assert found.mean == pytest.approx(0.8)
    assert found.seed_deviation == pytest.approx(np.sqrt(0.005))
    assert summary(scores[:, :1], 0.25).seed_deviation is None


def test_the_command_trains_each_fold_with_each_seed(toy_desk, monkeypatch, capsys):
    monkeypatch.chdir(toy_desk.folder)
    monkeypatch.setenv("TOKIWA_HOME", str(toy_desk.home))
    words = ["evaluate", "toy.yaml", "--window", "2026-01-05", "--folds", "2", "--seeds", "2"]
    quick = ["--set", "finetune.epochs=1", "--json"]
    assert main([*words, *quick]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(each["fold"], each["seed"]) for each in report["trainings"]] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    found = report["summaries"]["macro_f1"]
    scores = [each["scores"]["macro_f1"] for each in report["trainings"]]
    assert found["mean"] == pytest.approx(np.mean(scores))
    assert found["low"] < found["mean"] < found["high"]
    assert main(["evaluate", "toy.yaml", "--folds", "1"]) == 2
    words[-1] = "1"
    assert main([*words, "--by", "time", *quick]) == 0
    report = json.loads(capsys.readouterr().out)
    past = [each["rows"] for each in report["trainings"]]
    assert report["folds"] == "time"
    assert past[0] < past[1]
