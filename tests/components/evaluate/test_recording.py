from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from components.evaluate.check import conclude
from components.evaluate.checks import run_checks
from components.evaluate.config import EvaluateConfig
from components.evaluate.recording import PREDICTIONS, read, write
from components.evaluate.scoring import sit

CONFIG = EvaluateConfig.model_validate({"min_groups": 10, "slices": {"min_rows": 10}})


@pytest.mark.parametrize("first", [False, True], ids=["champion", "first"])
def test_a_recorded_exam_gives_the_same_checks(toy, toy_champion, make_bundle, first, tmp_path):
    champion = None if first else make_bundle(1)
    exam, _ = sit(toy.second, toy_champion, champion, toy.task, CONFIG)
    write(exam, tmp_path / "exam")
    again = read(tmp_path / "exam")
    checks = run_checks(exam, CONFIG)
    assert run_checks(again, CONFIG) == checks
    assert conclude(checks) == "promote"


def test_numbers_are_recorded_in_full(case_of, learnt, tmp_path):
    case, kind = case_of("text-regression"), "text-regression"
    exam, _ = sit(case.prepared, learnt(kind), learnt(kind, seed=1), case.task, CONFIG)
    write(exam, tmp_path)
    again = read(tmp_path)
    np.testing.assert_array_equal(again.decided["champion"], exam.decided["champion"])
    np.testing.assert_array_equal(again.targets, exam.targets)
    assert run_checks(again, CONFIG) == run_checks(exam, CONFIG)


def test_a_broken_challenger_is_recorded_as_such(toy, make_bundle, seal_bundle, tmp_path):
    folder = shutil.copytree(make_bundle(1), tmp_path / "cut")
    (folder / "model.safetensors").write_bytes(b"cut")
    seal_bundle(folder)
    for number, champion in enumerate((make_bundle(2), None)):
        exam, _ = sit(toy.second, folder, champion, toy.task, CONFIG)
        write(exam, tmp_path / str(number))
        again = read(tmp_path / str(number))
        assert again.broken == exam.broken != ""
        assert run_checks(again, CONFIG) == run_checks(exam, CONFIG)


def test_labels_are_read_as_numbers_as_ingest_reads_them(case_of, learnt, seal_bundle, tmp_path):
    case = case_of("text-regression")
    odd = shutil.copytree(case.prepared, tmp_path / "odd")
    frame = pd.read_parquet(odd / "rows.parquet")
    first = frame.index[frame["split"] == "test"][0]
    frame.loc[first, "label"] = "１_2"
    frame.to_parquet(odd / "rows.parquet", index=False)
    cut = shutil.copytree(learnt("text-regression"), tmp_path / "cut")
    (cut / "model.safetensors").write_bytes(b"cut")
    seal_bundle(cut, task=case.task)
    exam, _ = sit(odd, cut, None, case.task, CONFIG)
    assert exam.broken and exam.targets[exam.of("test")][0] == 12
    write(exam, tmp_path / "exam")
    np.testing.assert_array_equal(read(tmp_path / "exam").targets, exam.targets)


def test_predictions_hold_all_that_was_said(toy, make_bundle, tmp_path):
    exam, _ = sit(toy.second, make_bundle(1), make_bundle(2), toy.task, CONFIG)
    write(exam, tmp_path)
    table = pd.read_parquet(tmp_path / PREDICTIONS)
    assert len(table) == len(exam.rows)
    for who, prefix in (("challenger", "output_"), ("champion", "champion_output_")):
        names = [f"{prefix}{label}" for label in exam.labels]
        np.testing.assert_array_equal(table[names], exam.answers[who])
        np.testing.assert_array_equal(table[f"ms_{who}"], exam.milliseconds[who])
    assert (table["batch"] == exam.batch).all()
