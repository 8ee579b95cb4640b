"""How models of every kind of task are calibrated and decide, as trained, saved and loaded."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from components.errors import BundleError
from components.finetune.config import FinetuneConfig
from components.finetune.core import fit_rule
from components.finetune.start import continued
from components.operating_point import OperatingPointConfig, sureness
from components.tasks import TASKS
from components.tasks.model import Labelled
from components.tasks.text_classification import TextClassifier

LABELS = {
    "text-classification": "positive",
    "text-anomaly": "anomaly",
    "image-classification": "bright",
    "tabular-classification": "young",
}


def valid_of(case):
    rows = pd.read_parquet(case.prepared / "rows.parquet")
    return rows[rows["split"] == "valid"]


def aiming(kind, **more):
    if kind not in LABELS:
        return FinetuneConfig()
    keys = {"aim": "recall", "label": LABELS[kind], "at_least": 0.9, **more}
    return FinetuneConfig.model_validate({"operating_point": keys})


def test_what_is_fitted_is_what_is_loaded_and_decided_with(case_of, learnt, kind, tmp_path):
    case, folder = case_of(kind), learnt(kind)
    model, valid = TASKS[kind].load(folder), valid_of(case)
    given = fit_rule(model, valid, aiming(kind, answered_accuracy=0.8))
    model.save(tmp_path)
    loaded = TASKS[kind].load(tmp_path)
    assert loaded.rule == model.rule
    assert (loaded.rule is None) == (kind == "text-regression")
    answers = loaded.predict(valid["text"].tolist())
    np.testing.assert_allclose(answers, given, atol=1e-6)
    assert loaded.decisions(given) == model.decisions(given)
    if loaded.rule is None:
        assert not loaded.abstained(answers).any()
        return
    assert loaded.rule.aim.label == LABELS[kind]
    targets = loaded.targets(valid["label"].tolist())
    meant = targets == loaded.answer_names.index(LABELS[kind])
    said = loaded.decided(given) == loaded.answer_names.index(LABELS[kind])
    assert said[meant].mean() >= 0.9
    np.testing.assert_array_equal(loaded.errors(targets, given), loaded.decided(given) != targets)
    scores = loaded.scores(targets, given)
    assert scores["accuracy"] == (loaded.decided(given) == targets).mean()
    # Distances from what is normal are no probabilities.
    if kind == "text-anomaly":
        assert loaded.rule.temperature.value == 1


@pytest.mark.parametrize("kind", LABELS)
def test_a_row_that_is_left_to_a_person_has_no_label(case_of, learnt, kind):
    case, model = case_of(kind), TASKS[kind].load(learnt(kind))
    answers = fit_rule(model, valid_of(case), aiming(kind))
    assert all("abstained" not in each for each in model.responses(answers))
    assert model.rule is not None
    sure = sureness(answers, model.decided(answers), model.rule.point)
    point = model.rule.point.model_copy(update={"min_sureness": float(np.median(sure))})
    model.rule = model.rule.model_copy(update={"point": point})
    left = model.abstained(answers)
    assert 0 < left.mean() < 1
    responses = model.responses(answers)
    assert [each["abstained"] for each in responses] == left.tolist()
    for response, row, said in zip(responses, answers, model.decided(answers), strict=True):
        leaning = model.answer_names[said]
        assert response["label"] == (None if response["abstained"] else leaning)
        assert response["confidence"] == response["probabilities"][leaning] == row[said]


def test_a_champion_that_goes_on_learning_forgets_its_rule(case_of, learnt, kind, tmp_path):
    case, folder = case_of(kind), learnt(kind)
    model = TASKS[kind].load(folder)
    fit_rule(model, valid_of(case), aiming(kind))
    shutil.copytree(folder, tmp_path / "bundle")
    model.save(tmp_path / "bundle")
    assert TASKS[kind].load(tmp_path / "bundle").can_continue(case.task)
    assert continued(tmp_path / "bundle", case.task, FinetuneConfig()).rule is None


def test_a_bundle_from_before_there_were_rules_answers_as_it_did(learnt, kind, case_of, tmp_path):
    folder, texts = tmp_path / "bundle", valid_of(case_of(kind))["text"].tolist()[:10]
    model = TASKS[kind].load(learnt(kind))
    model.rule = None
    model.save(folder)
    saved = json.loads((folder / "model.json").read_text())
    del saved["rule"]
    (folder / "model.json").write_text(json.dumps(saved))
    old = TASKS[kind].load(folder)
    assert old.rule is None
    answers = old.predict(texts)
    np.testing.assert_array_equal(answers, model.predict(texts))
    if kind != "text-regression":
        assert old.decisions(answers) == [old.answer_names[best] for best in answers.argmax(1)]
        assert list(old.responses(answers)[0]) == ["label", "confidence", "probabilities"]


def test_a_rule_for_other_labels_does_not_load(learnt, case_of, tmp_path):
    kind = "text-classification"
    model = TASKS[kind].load(learnt(kind))
    fit_rule(model, valid_of(case_of(kind)), aiming(kind))
    model.save(tmp_path)
    saved = json.loads((tmp_path / "model.json").read_text())
    saved["rule"]["point"]["labels"].reverse()
    (tmp_path / "model.json").write_text(json.dumps(saved))
    with pytest.raises(BundleError, match="its operating point is for positive, negative"):
        TASKS[kind].load(tmp_path)


def test_temperature_1_and_no_aim_change_no_bit(learnt, case_of, kind):
    texts = valid_of(case_of(kind))["text"].tolist()
    model = TASKS[kind].load(learnt(kind))
    model.rule = None
    before = model.predict(texts)
    shown = model.responses(before)
    fit_rule(model, valid_of(case_of(kind)), FinetuneConfig(calibrate=False))
    np.testing.assert_array_equal(model.predict(texts), before)
    assert model.responses(before) == shown


def test_a_probe_takes_nothing_from_the_rule_of_the_model(make_classifier):
    model, vectors = make_classifier(0), np.eye(4, dtype=np.float32)
    assert isinstance(model, TextClassifier)
    weights, bias = model.probe_head(vectors, np.array([0, 1, 1, 0]))
    outputs = (vectors @ weights.T + bias).astype(np.float32)
    raw = model.answers(outputs)
    answers, targets = np.tile(raw, (50, 1)), np.tile([0, 1, 1, 1], 50)
    model.rule = model.fitted_rule(targets, answers, OperatingPointConfig(), calibrate=True)
    assert model.rule is not None and model.rule.temperature.value != 1
    assert not np.allclose(model.answers(outputs), raw)
    np.testing.assert_array_equal(model.rule.calibrated(raw), model.answers(outputs))
    rows = Labelled(vectors, np.array([0, 1, 1, 0]))
    np.testing.assert_array_equal(model.probe_answers(rows, rows, vectors), raw)
