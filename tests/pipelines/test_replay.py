"""The loop on a toy world: a tiny real model, three weeks, the real graphs through kfp."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import r2_score

from components.tasks.text_classification import TextClassification
from components.tasks.text_regression import TextRegression
from pipelines.replay import score_on_test


def _edit_row(path: Path, row_id: str, text: str) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["id"] == row_id:
            row["text"] = text
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("task", "labels", "answers", "expected"),
    [
        (
            TextClassification(labels=("a", "b")),
            ["a", "b", "a", None, "z", "b"],
            ["a", "a", "a", "a", "a", "b"],
            2 / 3,
        ),
        (
            TextRegression(low=0, high=4),
            ["1", "2", "4", None, "5", "0"],
            ["1.5", "2", "3", "1", "5", "0"],
            r2_score([1, 2, 4], [1.5, 2, 3]),
        ),
    ],
    ids=["accuracy", "R²"],
)
def test_a_quiet_window_is_scored_by_the_answers_that_collect_kept(
    tmp_path, task, labels, answers, expected
):
    ids = [f"r{number}" for number in range(6)]
    kept = pd.DataFrame({"id": ids, "is_test": [True] * 5 + [False], "answer": answers})
    kept.to_parquet(tmp_path / "current.parquet")
    rows = pd.DataFrame({"id": ids, "label": labels})
    assert score_on_test(tmp_path / "current.parquet", rows, task) == pytest.approx(expected)
    kept.assign(is_test=False).to_parquet(tmp_path / "current.parquet")
    assert score_on_test(tmp_path / "current.parquet", rows, task) is None


def test_the_loop_closes_and_repeats_only_what_changed(toy_desk):
    first = toy_desk.json("replay", "toy.yaml")

    assert [result["window"] for result in first] == ["2026-01-05", "2026-01-12", "2026-01-19"]
    trained, control, moved = first
    assert (trained["drifted"], trained["trigger"], trained["decision"]) == (
        None,
        "manual",
        "promote",
    )
    assert trained["score_before"] is None
    assert (control["drifted"], control["trigger"], control["decision"]) == (False, None, "quiet")
    assert control["score_after"] == control["score_before"] > 0.9
    assert (moved["drifted"], moved["trigger"], moved["decision"]) == (True, "drift", "promote")
    assert moved["score_after"] > moved["score_before"] + 0.15
    assert control["champion"] == trained["champion"] != moved["champion"]
    assert control["device_hours"] == 0 < moved["device_hours"]
    assert toy_desk.trained() == 2

    # Again, with nothing changed: the same story, and nothing is trained.
    second = toy_desk.json("replay", "toy.yaml")
    for before, after in zip(first, second, strict=True):
        same = set(before) - {"seconds", "report"}
        assert {key: before[key] for key in same} == {key: after[key] for key in same}
    assert toy_desk.trained() == 2
    for steps in list(toy_desk.executed().values())[3:]:
        assert steps <= {"resolve", "trigger", "register", "deploy", "notify"}
    # The champion was published once: it did not change.
    (published,) = toy_desk.json("history", "toy.yaml")
    assert published["action"] == "publish"
    # Who served when, and why, can be read of the replay itself.
    played = published["by"].removeprefix("replay ")
    own = toy_desk.json("history", "toy.yaml", "--replay", played)
    assert [entry["action"] for entry in own] == ["promote", "promote"]
    assert own[-1]["reason"] in published["reason"]
    said = toy_desk.tokiwa("history", "toy.yaml").stdout
    assert f"within that replay: tokiwa history toy.yaml --replay {played}\n" in said
    assert all(result["report"].endswith(".html") for result in first)

    # One row of the last week changes: the weeks before are not touched.
    _edit_row(toy_desk.folder / "rows.csv", "r00999", "the film was very not a story")
    toy_desk.tokiwa("replay", "toy.yaml")
    one, two, three = list(toy_desk.executed().values())[6:]
    assert one | two <= {"resolve", "trigger", "register", "deploy", "notify"}
    assert {"collect", "drift", "ingest", "validate", "prepare", "finetune", "evaluate"} <= three


@pytest.mark.slow
def test_monitoring_twice_retrains_once(toy_desk):
    toy_desk.tokiwa("run", "toy.yaml", "--window", "2026-01-05")
    first = toy_desk.json("monitor", "toy.yaml", "--window", "2026-01-19")
    assert (first["result"], first["cause"]) == ("promoted", "drift")
    assert [entry["action"] for entry in toy_desk.json("history", "toy.yaml")] == [
        "promote",
        "promote",
    ]
    # The new champion knows this window: there is nothing to do.
    second = toy_desk.json("monitor", "toy.yaml", "--window", "2026-01-19")
    assert second["result"] == "quiet"
    status = toy_desk.json("status", "toy.yaml")
    assert status["champion"]["version"] == first["champion_version"]
    assert status["events"] == []
    assert toy_desk.trained() == 2


@pytest.mark.slow
def test_a_window_without_rows_and_one_with_a_single_class_leave_the_champion(toy_desk):
    toy_desk.tokiwa("run", "toy.yaml", "--window", "2026-01-05")
    (before,) = toy_desk.json("history", "toy.yaml")

    empty = toy_desk.json("run", "toy.yaml", "--window", "2026-02-02")
    assert empty["result"] == "nothing to train on"
    assert "has no usable rows" in empty["reason"]

    path = toy_desk.folder / "rows.csv"
    lines = path.read_text().splitlines()
    kept = [line for line in lines if "2026-01-1" not in line or line.endswith(",good")]
    path.write_text("\n".join(kept) + "\n")
    single = toy_desk.json("run", "toy.yaml", "--window", "2026-01-12")
    assert single["result"] == "nothing to train on"
    assert "single class" in single["reason"]

    assert toy_desk.json("history", "toy.yaml") == [before]
    assert toy_desk.trained() == 1


@pytest.mark.slow
def test_policies_are_compared_over_the_same_windows_and_share_trainings(toy_desk):
    (toy_desk.folder / "never.yaml").write_text("on: []\n")
    found = toy_desk.json("replay", "toy.yaml", "--windows", "2", "--policy", "never.yaml")
    assert found["windows"] == ["2026-01-05", "2026-01-12"]
    never, oracle = found["summaries"]
    assert (never["policy"], never["retrains"], never["device_hours"]) == ("never", 0, 0)
    assert (oracle["policy"], oracle["retrains"]) == ("oracle", 1)
    assert never["saved"] == 1 and oracle["device_hours"] > 0
    assert toy_desk.trained() == 2  # the first window once, for both
    assert toy_desk.json("history", "toy.yaml") == []


def test_a_policy_that_is_wrong_is_refused_before_anything_is_played(toy_desk):
    (toy_desk.folder / "a.yaml").write_text("governor: {cooldown: 3}\n")
    done = toy_desk.tokiwa("replay", "toy.yaml", "--policy", "a.yaml", expect=2)
    assert "line 1: trigger.governor.cooldown: unknown key; did you mean cooldown_hours?" in (
        done.stderr
    )
    assert toy_desk.trained() == 0


@pytest.mark.slow
def test_the_store_may_be_s3(toy_desk, s3_url, monkeypatch):
    monkeypatch.setenv("TOKIWA_STORE", s3_url)
    results = toy_desk.json("replay", "toy.yaml")
    assert [each["decision"] for each in results] == ["promote", "quiet", "promote"]
    assert toy_desk.json("predict", "toy.yaml", "the film was good")["generation"] == 1
    assert not (toy_desk.home / "objects").exists()


def test_monitoring_without_a_champion_says_what_to_do(toy_desk):
    done = toy_desk.tokiwa("monitor", "toy.yaml", expect=1)
    assert "toy has no model in production to watch; train one: tokiwa run PROJECT" in done.stderr
    assert ".jsonl" in done.stderr
