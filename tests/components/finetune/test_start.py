from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from components.finetune.batches import Examples
from components.finetune.start import log_evidence, probe_score, sample


def direct_evidence(features, column):
    """The evidence of a Bayesian linear model by its definition, maximised by scipy."""
    rows = len(features)

    def negative(logs):
        alpha, beta = np.exp(np.clip(logs, -15, 15))
        covariance = features @ features.T / alpha + np.eye(rows) / beta
        _, log_determinant = np.linalg.slogdet(covariance)
        fit = column @ np.linalg.solve(covariance, column)
        return (log_determinant + fit + rows * np.log(2 * np.pi)) / 2

    best = min(
        minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).fun
        for start in ([0.0, 0.0], [3.0, 3.0], [-2.0, 2.0])
    )
    return -best / rows


@pytest.mark.parametrize(("rows", "width"), [(60, 8), (20, 50)])
def test_log_evidence_is_that_of_the_best_bayesian_linear_model(rows, width):
    chance = np.random.default_rng(0)
    features = chance.normal(size=(rows, width))
    values = features @ chance.normal(size=width) + chance.normal(size=rows)
    got = log_evidence(features, values)
    assert got == pytest.approx(direct_evidence(features, values), abs=2e-3)


def test_log_evidence_of_classes_is_the_mean_over_them():
    chance = np.random.default_rng(1)
    features = chance.normal(size=(50, 6))
    classes = (features[:, 0] > 0).astype(np.int64) + (features[:, 1] > 1)
    expected = np.mean(
        [direct_evidence(features, (classes == each).astype(float)) for each in np.unique(classes)]
    )
    assert log_evidence(features, classes) == pytest.approx(expected, abs=2e-3)


def test_features_that_say_more_have_more_evidence():
    chance = np.random.default_rng(2)
    classes = chance.integers(0, 2, 200)
    noise = chance.normal(size=(200, 10))
    telling = noise + classes[:, None]
    assert log_evidence(telling, classes) > log_evidence(noise, classes) + 0.1


def test_a_probe_scores_by_the_tasks_metric(make_classifier):
    chance = np.random.default_rng(3)
    classes = chance.integers(0, 2, 300)
    features = chance.normal(size=(300, 5)) + 2 * classes[:, None]
    model = make_classifier(0)
    score = probe_score(model, features[:200], classes[:200], features[200:], classes[200:])
    assert score > 0.95
    lost = probe_score(model, features[:200], classes[:200][::-1], features[200:], classes[200:])
    assert lost < 0.7


def test_a_sample_is_drawn_once_for_a_seed():
    rows = Examples([str(i) for i in range(50)], [np.array([i]) for i in range(50)], np.arange(50))
    assert sample(rows, 10, 0).contents == sample(rows, 10, 0).contents
    assert sample(rows, 10, 0).contents != sample(rows, 10, 1).contents
    assert len(sample(rows, 99, 0)) == 50
