"""Odd rows: whatever they are, there is a verdict with a page, or an error that says why."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from components.errors import SourceError
from components.evaluate.check import conclude
from components.evaluate.checks import run_checks
from components.evaluate.core import EvaluateConfig, evaluate, to_html, to_markdown
from components.evaluate.recording import read

KIND = "text-classification"
CONFIG = EvaluateConfig.model_validate(
    {"resamples": 200, "robustness": {"rows": 5}, "slices": {"min_rows": 5}}
)


def one_test_row(frame):
    return frame.drop(frame.index[frame["split"] == "test"][1:])


def a_single_class(frame):
    of_one = frame["label"] == frame["label"][frame["split"] == "test"].iloc[0]
    return frame[(frame["split"] != "test") | of_one]


def one_group(frame):
    return frame.assign(group=frame["group"].where(frame["split"] != "test", "all"))


def one_validation_row(frame):
    return frame.drop(frame.index[frame["split"] == "valid"][1:])


def no_training_row(frame):
    return frame[frame["split"] != "train"]


@pytest.fixture
def odd_rows(case_of, tmp_path):
    """Make a copy of the prepared rows of a case, with some of them changed or gone."""

    def make(change):
        prepared = shutil.copytree(case_of(KIND).prepared, tmp_path / "odd")
        frame = change(pd.read_parquet(prepared / "rows.parquet"))
        frame.to_parquet(prepared / "rows.parquet", index=False)
        vectors = load_file(prepared / "embeddings.safetensors")["vectors"]
        save_file({"vectors": vectors[frame.index]}, prepared / "embeddings.safetensors")
        return prepared

    return make


@pytest.mark.parametrize("has_champion", [True, False])
@pytest.mark.parametrize("change", [one_test_row, a_single_class, one_group, one_validation_row])
def test_rows_that_show_nothing_promote_nobody(
    case_of, learnt, odd_rows, change, has_champion, tmp_path
):
    champion = learnt(KIND, seed=1) if has_champion else None
    out, task = tmp_path / "out", case_of(KIND).task
    report = evaluate(odd_rows(change), learnt(KIND), champion, out, task, CONFIG)
    assert report.verdict == "inconclusive"
    assert report.headline in to_markdown(report)
    assert "inconclusive" in to_html(report)
    assert conclude(run_checks(read(out), CONFIG)) == report.verdict


def test_without_training_rows_a_first_champion_has_no_baseline(
    case_of, learnt, odd_rows, tmp_path
):
    prepared, task = odd_rows(no_training_row), case_of(KIND).task
    with pytest.raises(SourceError, match="no train rows: a first champion has no baseline"):
        evaluate(prepared, learnt(KIND), None, tmp_path / "out", task, CONFIG)
    champion = learnt(KIND, seed=1)
    report = evaluate(prepared, learnt(KIND), champion, tmp_path / "out", task, CONFIG)
    assert report.verdict == "inconclusive"
