"""What a project asks of decisions is what gate, server, MLflow and monitoring decide with."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from components import bundle
from components.calibration import calibration_error, confidences
from components.collect.core import CollectConfig, collect
from components.evaluate.config import EvaluateConfig
from components.evaluate.core import PREDICTIONS, evaluate
from components.finetune.core import finetune, fit_rule
from components.finetune.history import Silent
from components.finetune.report import to_html
from components.mlmodel import _load_pyfunc
from components.operating_point import OperatingPointConfig
from components.plan import Live
from components.register.core import Evidence
from components.serve.model import BundleModel
from components.store import LocalStore
from components.tasks import TASKS

RECALL = {"aim": "recall", "label": "positive", "at_least": 0.9}
ABSTAIN = {"answered_accuracy": 0.85}


@pytest.fixture(scope="module")
def doubtful(toy, tmp_path_factory):
    """The toy problem with a fifth of its labels turned around, so that nothing is certain."""
    folder = shutil.copytree(toy.second, tmp_path_factory.mktemp("doubtful") / "prepared")
    rows = pd.read_parquet(folder / "rows.parquet")
    turned = np.random.default_rng(0).random(len(rows)) < 0.2
    other = rows["label"].map({"negative": "positive", "positive": "negative"})
    rows["label"] = rows["label"].where(~turned, other)
    rows.to_parquet(folder / "rows.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def trained(toy, doubtful, tmp_path_factory):
    """Train for an aim; the weights are the same for all of them."""
    made = {}

    def make(**aim):
        key = repr(sorted(aim.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("trained") / "bundle"
            config = toy.training.model_copy(
                update={"epochs": 2, "operating_point": OperatingPointConfig(**aim)}
            )
            report = finetune(doubtful, toy.start, None, folder, toy.task, config, {}, Silent())
            made[key] = folder, report
        return made[key]

    return make


@pytest.fixture
def judged(toy, doubtful, tmp_path):
    """Let the gate look at a model, and the server answer the same test rows."""

    def judge(folder, champion=None):
        report = evaluate(doubtful, folder, champion, tmp_path / "exam", toy.task, EvaluateConfig())
        table = pd.read_parquet(tmp_path / "exam" / PREDICTIONS)
        test = table[table["split"] == "test"]
        store = LocalStore(tmp_path / "objects")
        served = BundleModel.load(store, bundle.publish(store, folder))
        return report, test, served.predict(test["text"].tolist())

    return judge


def test_gate_and_server_decide_with_the_point_and_another_point_decides_otherwise(
    trained, judged, tmp_path
):
    (usual, _), (aiming, report) = trained(), trained(**RECALL)
    plain, test, said = judged(usual)
    assert [each["label"] for each in said] == test["answer_challenger"].tolist()
    other, test_too, said_too = judged(aiming)
    assert [each["label"] for each in said_too] == test_too["answer_challenger"].tolist()
    # The same network gives the same probabilities, of which other labels are made.
    columns = ["output_negative", "output_positive"]
    np.testing.assert_array_equal(test[columns], test_too[columns])
    assert said != said_too
    threshold = report.rule.point.threshold
    called = test_too["output_positive"] >= threshold
    assert (test_too["answer_challenger"] == "positive").equals(called)
    for decided, found in ((test, plain), (test_too, other)):
        right = (decided["answer_challenger"] == decided["label"]).mean()
        assert found.scores["challenger"]["test"]["accuracy"] == pytest.approx(right)
    (tmp_path / "report.json").write_text(other.to_json())
    assert Evidence.read(tmp_path / "report.json").rule == report.rule.sentences
    checks = {each.name: each for each in other.checks}
    meant = test_too["label"] == "positive"
    assert checks["test recall of 'positive'"].measured == called[meant].mean()
    assert not checks["test recall of 'positive'"].required


def test_the_aim_is_reached_on_validation_rows_and_told(trained, doubtful):
    folder, report = trained(**RECALL)
    rows = pd.read_parquet(doubtful / "rows.parquet")
    valid = rows[rows["split"] == "valid"]
    model = TASKS["text-classification"].load(folder)
    said = np.array(model.decisions(model.predict(valid["text"].tolist())))
    assert (said[valid["label"] == "positive"] == "positive").mean() >= 0.9
    assert report.scores["accuracy"] == pytest.approx((said == valid["label"]).mean())
    assert not report.misses_its_aim
    assert "How it decides" in to_html(report)
    # Training itself never saw the rule: its epochs are scored as they always were.
    assert [each.scores for each in report.epochs] == [each.scores for each in trained()[1].epochs]


def test_calibrated_probabilities_lose_less_on_test_rows(trained, judged):
    folder, report = trained()
    assert report.rule.temperature.value != 1
    _, test, _ = judged(folder)
    rule = report.rule
    answers = test[["output_negative", "output_positive"]].to_numpy()
    truth = (test["label"] == "positive").astype(int).to_numpy()

    def loss(given):
        return -np.log(given[np.arange(len(truth)), truth]).mean()

    assert loss(answers) < loss(rule.uncalibrated(answers)) - 0.05


def test_an_overconfident_network_is_mended_by_validation_rows_alone(trained, doubtful, toy):
    import torch

    model = TASKS["text-classification"].load(trained()[0])
    model.rule = None
    head = model.network.get_submodule("head")
    with torch.no_grad():
        for weights in head.parameters():
            weights.mul_(40)  # as sure as can be, of the same labels
    rows = pd.read_parquet(doubtful / "rows.parquet")
    valid, test = (rows[rows["split"] == split] for split in ("valid", "test"))
    targets = model.targets(test["label"].tolist())
    before = model.predict(test["text"].tolist())
    fit_rule(model, valid, toy.training)
    assert model.rule is not None and model.rule.temperature.value > 2
    after = model.predict(test["text"].tolist())
    np.testing.assert_array_equal(before.argmax(1), after.argmax(1))
    losses, errors = (
        [one(each) for each in (before, after)]
        for one in (
            lambda answers: model.scores(targets, answers)["log_loss"],
            lambda answers: calibration_error(*confidences(answers, targets)),
        )
    )
    assert losses[1] < losses[0] - 0.1
    assert errors[1] < errors[0]


def test_rows_left_to_a_person_are_so_to_gate_server_and_mlflow(trained, judged):
    folder, report = trained(**ABSTAIN)
    assert report.rule.abstains
    found, test, said = judged(folder)
    left = test["abstained_challenger"]
    assert 0 < left.mean() < 1
    assert [each["abstained"] for each in said] == left.tolist()
    labels = test["answer_challenger"].where(~left, None).tolist()
    assert [each["label"] for each in said] == labels
    frame = _load_pyfunc(str(folder)).predict(test[["text"]])
    assert frame["label"].tolist() == labels
    scores = found.scores["challenger"]["test"]
    right = test["answer_challenger"] == test["label"]
    assert scores["coverage"] == pytest.approx(1 - left.mean())
    assert scores["answered_accuracy"] == pytest.approx(right[~left].mean())
    assert scores["accuracy"] == pytest.approx(right.mean())
    (check,) = (each for each in found.checks if each.check == "operating_point")
    assert check.measured == pytest.approx(right[~left].mean())


def test_the_gate_scores_each_model_with_its_own_rule(trained, judged):
    report, test, _ = judged(trained(**ABSTAIN)[0], trained(**RECALL)[0])
    assert set(report.rules) == {"challenger", "champion"}
    assert "abstained_champion" not in test
    threshold = report.rules["champion"].point.threshold
    called = test["champion_output_positive"] >= threshold
    assert (test["answer_champion"] == "positive").equals(called)
    assert (test["answer_champion"] != test["answer_challenger"]).any()


def test_an_aim_that_no_point_reaches_is_told(trained):
    _, report = trained(aim="precision", label="positive", at_least=0.999, by="bound")
    assert report.misses_its_aim
    assert report.headline.endswith("the aim of operating_point was not reached")
    assert "The aim was not reached: the best precision of" in to_html(report)


def test_production_is_watched_through_the_same_decisions(toy, trained, tmp_path):
    folder, _ = trained(**RECALL)
    live = Live(source=toy.source, current=toy.weeks[1], labelled=[toy.weeks[0]])
    width = np.zeros((10_000, 2), np.float32)
    collect(
        live,
        folder,
        tmp_path / "collected",
        LocalStore(tmp_path / "objects"),
        "c" * 8,
        CollectConfig(),
        lambda contents: width[: len(contents)],
    )
    model = TASKS["text-classification"].load(folder)
    rows = {row["id"]: row for row in map(dict, _rows(toy))}
    current = pd.read_parquet(tmp_path / "collected" / "current.parquet")
    answers = model.predict([rows[each]["text"] for each in current["id"]])
    assert current["answer"].tolist() == model.decisions(answers)
    assert current["answer"].tolist() != [model.answer_names[best] for best in answers.argmax(1)]
    errors = pd.read_parquet(tmp_path / "collected" / "errors.parquet")
    said = model.decisions(model.predict([rows[each]["text"] for each in errors["id"]]))
    wrong = [a != rows[each]["label"] for a, each in zip(said, errors["id"], strict=True)]
    assert errors["error"].tolist() == wrong


def _rows(toy):
    from components.sources import open_source
    from components.windows import ALL_TIME

    return open_source(toy.source).read(ALL_TIME).frame.to_dict("records")
