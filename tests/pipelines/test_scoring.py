"""The graph of ``tokiwa score``, as kfp runs it, from a bucket into a bucket."""

from __future__ import annotations

import pandas as pd
import pytest

from components import bundle, home
from components.ledger import Ledger
from components.score.core import ScoreConfig
from components.store import open_store
from pipelines.runners import run_local

TEXTS = ["the film was good", "a very dull story", "awful and bad", ""]


@pytest.fixture
def bucket(s3_url, make_bundle, tmp_path, monkeypatch):
    """A bucket with rows in it, and a champion on disk."""
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path / "home"))
    Ledger(home.store(), "projects/demo").append(
        action="promote",
        bundle=bundle.publish(home.store(), make_bundle(1)),
        version="7",
        key="1",
        by="test",
        reason="",
        expected=0,
    )
    pd.DataFrame({"id": range(8), "said": TEXTS * 2}).to_parquet(tmp_path / "rows.parquet")
    open_store(s3_url).upload("in/rows.parquet", tmp_path / "rows.parquet")
    return s3_url


def scored(source, target):
    arguments = {
        "input_address": source,
        "output_address": target,
        "score_config": ScoreConfig(column="said").to_json(),
        "ledger": "projects/demo",
    }
    return run_local(
        "scoring", arguments, run="run-1", home=home.home(), watch=lambda run, step, line: None
    )


@pytest.mark.slow
def test_the_graph_answers_the_rows_of_a_bucket_into_a_bucket(bucket, tmp_path):
    run = scored(f"{bucket}/in/rows.parquet", f"{bucket}/out/rows.parquet")
    (step,) = run.steps.values()
    assert (step.name, step.state) == ("score", "done")
    assert step.content()["rows"] == 8
    assert step.headline == "8 rows scored by version 7"
    open_store(bucket).download("out/rows.parquet", tmp_path / "out.parquet")
    answered = pd.read_parquet(tmp_path / "out.parquet")
    assert answered["said"].tolist() == TEXTS * 2
    assert set(answered["answer_label"]) <= {"negative", "positive"}
    assert answered["answer_label"][:4].tolist() == answered["answer_label"][4:].tolist()
    assert not list((home.home() / "scores").iterdir()), "nothing unfinished is left"


@pytest.mark.slow
def test_the_graph_says_what_it_cannot_read(bucket):
    run = scored(f"{bucket}/in/none.parquet", f"{bucket}/out/rows.parquet")
    (step,) = run.failed
    assert step.exit_code == 2
    assert "there is no file s3://" in step.error
    assert not open_store(bucket).exists("out/rows.parquet")
