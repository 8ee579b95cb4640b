from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from components.evaluate.config import BLOCKING, EvaluateConfig, kind_of
from components.evaluate.metrics import find_metric
from components.tasks.text_anomaly import TextAnomaly
from components.tasks.text_classification import TextClassification
from components.tasks.text_regression import TextRegression

LABELS = TextClassification(labels=("bad", "good"))
NUMBERS = TextRegression(low=0, high=5)
COLUMNS = ("id", "country")
TRUSTED = {"path": "trusted.csv", "sha256": "0" * 64}


def test_a_check_can_be_made_to_block_or_to_warn():
    assert EvaluateConfig().blocking == BLOCKING
    config = EvaluateConfig(required=("calibration",), warn=("serving",))
    assert config.blocking == (BLOCKING | {"calibration"}) - {"serving"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"required": ["slices"], "warn": ["slices"]}, "both name slices"),
        ({"warn": ["loads"]}, "cannot name loads"),
        ({"warn": ["luck"]}, "warn"),
        ({"guarded": {"accuracy": -0.1}}, "margin of accuracy is below 0"),
        ({"fairness": {"columns": ["sex"]}}, "favourable"),
        ({"holdout": {"path": "a.csv", "sha256": "short"}}, "sha256"),
        ({"slices": {"colums": []}}, "colums"),
        ({"required": ["holdout"]}, "required names holdout, but evaluate.holdout asks"),
        ({"required": ["fairness"]}, "required names fairness, but evaluate.fairness asks"),
        ({"required": ["robustness"], "robustness": {"rows": 0}}, "required names robustness"),
    ],
)
def test_what_cannot_be_meant_is_refused(content, message):
    with pytest.raises(ValidationError, match=message):
        EvaluateConfig.model_validate(content)


@pytest.mark.parametrize(
    ("content", "task", "message"),
    [
        (
            {"primary": "macrof1"},
            LABELS,
            r"evaluate.primary is wrong: no metric 'macrof1' among .*; did you mean macro_f1\?$",
        ),
        ({"primary": "r2"}, LABELS, "evaluate.primary is wrong: r2 is no metric of classification"),
        (
            {"guarded": {"accuracy": 0.1}},
            NUMBERS,
            "evaluate.guarded.accuracy is wrong: accuracy is no metric",
        ),
        (
            {"floors": {"recall:ugly": 0.1}},
            LABELS,
            "evaluate.floors.recall:ugly is wrong: no metric 'recall:ugly'",
        ),
        (
            {"slices": {"columns": ["county"]}},
            LABELS,
            "evaluate.slices.columns names no column: 'county'; there are id, country",
        ),
        (
            {"fairness": {"columns": ["sex"], "favourable": "good"}},
            LABELS,
            "evaluate.fairness.columns names no column: 'sex'",
        ),
        (
            {"fairness": {"columns": ["country"], "favourable": "great"}},
            LABELS,
            "evaluate.fairness.favourable names no label: 'great'; there are bad, good",
        ),
        (
            {"fairness": {"columns": ["country"], "favourable": "5"}},
            NUMBERS,
            "evaluate.fairness.favourable names no label: '5'; there is none",
        ),
        (
            {"floors": {"accuracy": 80}},
            LABELS,
            "evaluate.floors.accuracy is out of reach: accuracy is 0 to 1, and the floor is 80",
        ),
        (
            {"guarded": {"accuracy": 3}},
            LABELS,
            "evaluate.guarded.accuracy guards nothing: accuracy is 0 to 1, and the margin is 3",
        ),
        ({"guard_margin": 1}, LABELS, "evaluate.guard_margin guards nothing: macro_f1 is 0 to 1"),
        (
            {"holdout": TRUSTED | {"margin": 2}},
            LABELS,
            "evaluate.holdout.margin guards nothing: macro_f1 is 0 to 1, and the margin is 2",
        ),
        (
            {"holdout": TRUSTED | {"floor": 90}},
            LABELS,
            "evaluate.holdout.floor is out of reach: macro_f1 is 0 to 1, and the floor is 90",
        ),
        (
            {"primary": "ece"},
            LABELS,
            "evaluate.primary cannot compare models: few rows lift ece by chance; use brier or",
        ),
        ({"guarded": {"ece": 0.03}}, LABELS, "evaluate.guarded.ece cannot compare models"),
        (
            {"required": ["calibration"]},
            NUMBERS,
            "evaluate.required names calibration, but answers of text-regression are no",
        ),
        ({"required": ["calibration"]}, TextAnomaly(), "evaluate.required names calibration"),
        (
            {"robustness": {"perturbations": ["noise"]}},
            LABELS,
            "evaluate.robustness.perturbations names no perturbation of texts: 'noise'; there",
        ),
    ],
)
def test_names_of_nothing_are_told(content, task, message):
    (problem,) = EvaluateConfig.model_validate(content).unknown(task, COLUMNS)
    assert re.match(message, problem)


def test_all_that_is_wrong_is_told_at_once():
    wrong = {
        "primary": "f1",
        "floors": {"accuracy": 2, "mae": 1},
        "slices": {"columns": ["county", "sex"]},
    }
    problems = list(EvaluateConfig.model_validate(wrong).unknown(LABELS, COLUMNS))
    assert [problem.split(" ")[0] for problem in problems] == [
        "evaluate.primary",
        "evaluate.floors.accuracy",
        "evaluate.floors.mae",
        "evaluate.slices.columns",
        "evaluate.slices.columns",
    ]


def test_known_names_are_accepted():
    config = EvaluateConfig.model_validate(
        {
            "primary": "recall:good",
            "guarded": {"brier": 0.05, "log_loss": 5},
            "floors": {"accuracy": 0.8, "ece": 0.05},
            "slices": {"columns": ["country"]},
            "fairness": {"columns": ["country"], "favourable": "good"},
            "robustness": {"perturbations": ["typos"]},
        }
    )
    assert list(config.unknown(LABELS, COLUMNS)) == []
    assert list(EvaluateConfig().unknown(NUMBERS, ())) == []


def test_margins_are_in_the_unit_of_the_primary_metric():
    holdout = TRUSTED | {"margin": 50, "floor": 200}
    config = {"primary": "mae", "guard_margin": 20, "holdout": holdout}
    assert list(EvaluateConfig.model_validate(config).unknown(NUMBERS, ())) == []


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"primary": "f1:new"}, "primary"),
        ({"guarded": {"recall:new": 0.1}}, "guarded.recall:new"),
        ({"floors": {"recall:new": 0.1}}, "floors.recall:new"),
        ({"fairness": {"columns": ["country"], "favourable": "new"}}, "fairness.favourable"),
    ],
)
def test_a_label_that_only_one_model_knows_cannot_be_asked_about(content, key):
    task = TextClassification(labels=("bad", "good", "new"))
    config = EvaluateConfig.model_validate(content)
    assert list(config.unknown(task, COLUMNS)) == []
    (problem,) = config.strange(task, ("bad", "good"))
    assert problem.startswith(f"evaluate.{key} names the label 'new', which the champion does not")
    assert list(config.strange(task, task.labels)) == []


@pytest.mark.parametrize("task", [LABELS, NUMBERS, TextAnomaly()])
def test_what_is_guarded_by_default_is_a_metric_of_the_task(task):
    kind = kind_of(task)
    for metric in EvaluateConfig().margins(kind):
        find_metric(metric, kind)
    assert EvaluateConfig(guarded={}).margins(kind) == {}
