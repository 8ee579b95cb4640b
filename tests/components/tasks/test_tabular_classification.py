from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from components.embeddings import embed
from components.errors import SourceError
from components.finetune.config import FinetuneConfig
from components.finetune.core import finetune
from components.finetune.history import Silent
from components.resolve.core import weights_digest
from components.serve.model import checked_records
from components.tasks.tabular_classification import TabularClassification, TabularClassifier

KIND = "tabular-classification"


@pytest.fixture(scope="module")
def case(case_of):
    return case_of(KIND)


def trained(case, folder, prepared=None):
    config = FinetuneConfig(epochs=4, learning_rate=5e-3, batch_rows=16, threads=1)
    report = finetune(
        prepared or case.prepared, case.start, None, folder, case.task, config, {}, Silent()
    )
    return report, TabularClassifier.load(folder)


def test_what_is_learnt_of_columns_is_of_training_rows_alone(case, tmp_path):
    rows = pd.read_parquet(case.prepared / "rows.parquet")
    states = []
    for name, keep in (("as-it-is", None), ("other-tests", ["train", "rehearsal"])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "embeddings.safetensors").write_bytes(
            (case.prepared / "embeddings.safetensors").read_bytes()
        )
        changed = rows.copy()
        if keep:
            odd = json.dumps({"age": "-99999", "job": "nobody's"})
            changed.loc[~changed["split"].isin(keep), "text"] = odd
        changed.to_parquet(folder / "rows.parquet")
        report, model = trained(case, tmp_path / f"bundle-{name}", folder)
        states.append(model.facts["columns"])
        if not keep:
            assert report.scores["accuracy"] > 0.9
    assert states[0] == states[1]
    train = [json.loads(text) for text in rows["text"][rows["split"] == "train"]]
    ages = [float(each["age"]) for each in train if each["age"] is not None]
    assert states[0]["age"]["quantiles"][0] == pytest.approx(min(ages))
    assert set(states[0]["job"]["values"]) == {each["job"] for each in train}


def test_a_served_record_is_read_as_in_training(case, tmp_path):
    _, model = trained(case, tmp_path / "bundle")
    asked = checked_records([{"age": 70, "job": "a"}, '{"job":"a","age":"70.0"}', {"job": "a"}])
    answers = model.predict(asked)
    np.testing.assert_allclose(answers[0], answers[1])
    assert model.decisions(answers[:1]) == ["old"]
    assert np.isfinite(model.predict(model.edge_contents())).all()
    with pytest.raises(SourceError, match="record 0: no such column: 'salary'"):
        model.predict(checked_records([{"salary": 1}]))


@pytest.mark.parametrize("value", [3, ["a"], None])
def test_what_is_no_record_is_refused_before_it_is_read(value):
    with pytest.raises(ValueError, match="record 0 is not a string but"):
        checked_records([value])


def test_a_champion_keeps_what_it_learnt_of_columns(case, tmp_path):
    _, champion = trained(case, tmp_path / "champion")
    before = json.dumps(champion.facts["columns"])
    assert champion.can_continue(case.task)
    champion.configure(case.task, dropout=0.2)
    assert json.dumps(champion.facts["columns"]) == before
    for change in ({"columns": {"age": "number"}}, {"scaling": "standard"}):
        assert not champion.can_continue(case.task.model_copy(update=change))


def test_the_blank_base_gives_the_same_embeddings_for_ever(case, tiny_blank_base):
    contents = ['{"age":"3","job":"a"}', '{"age":null,"job":"b"}']
    first = embed(contents, tiny_blank_base, case.task)
    torch.manual_seed(7)
    np.testing.assert_array_equal(embed(contents, tiny_blank_base, case.task), first)
    assert not np.allclose(first[0], first[1])
    assert len(weights_digest(tiny_blank_base)) == 64


def test_columns_of_one_kind_alone_work(tiny_blank_base):
    for kind in ("number", "category"):
        task = TabularClassification(labels=("x", "y"), columns={"a": kind})
        model = TabularClassifier.from_base(tiny_blank_base, task, dropout=0.0)
        model.fit_inputs(['{"a":"1"}', '{"a":"2"}', "{}"])
        assert model.predict(['{"a":"1"}', "{}"]).shape == (2, 2)
