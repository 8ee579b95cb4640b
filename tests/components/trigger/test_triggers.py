from __future__ import annotations

import json

import pytest

from components.trigger.config import TriggerConfig
from components.trigger.triggers import TRIGGERS, Evidence, Finding

CONFIG = TriggerConfig()
PERFORMANCE = {
    "source": "measured",
    "score": "accuracy",
    "rows": 400,
    "before": 0.9,
    "now": 0.7,
    "low": 0.66,
    "high": 0.74,
    "drop": 0.22,
    "hurts": True,
}


@pytest.mark.parametrize("cause", TRIGGERS)
def test_a_trigger_is_silent_without_evidence(cause, found):
    assert TRIGGERS[cause](Evidence(found()), CONFIG) is None


@pytest.mark.parametrize(
    ("cause", "finding", "evidence", "config", "reason"),
    [
        ("manual", {}, {"request": "eve: a fix"}, {}, "asked for: eve: a fix"),
        ("drift", {"moved": True, "moved_features": 7}, {}, {}, "7 input features moved"),
        (
            "performance",
            {"performance": 0.85, "hurts": True},
            {},
            {},
            "measured performance fell by 5.6%, from 0.900 to 0.850",
        ),
        ("performance", {"performance": 0.86, "hurts": True}, {}, {}, None),
        ("performance", {"performance": 0.86, "hurts": True}, {}, {"relative_drop": 0.04}, "meas"),
        ("performance", {"performance": 0.5, "hurts": False}, {}, {}, None),
        ("performance", {"performance": 0.5, "hurts": None}, {}, {}, None),
        ("performance", {"performance": 0.89, "hurts": False}, {}, {"floor": 0.88}, None),
        (
            "performance",
            {"performance": 0.87, "hurts": False, "measured": False},
            {},
            {"floor": 0.88},
            "estimated performance 0.870 is below 0.88",
        ),
        ("volume", {}, {"new_labels": 1000}, {}, "1,000 labelled rows are new"),
        ("volume", {}, {"new_labels": 999}, {}, None),
        ("schedule", {}, {"days": 28.0}, {}, "the champion has learnt nothing of the last 28"),
        ("schedule", {}, {"days": 27.9}, {}, None),
    ],
)
def test_a_trigger_fires_from_its_threshold_on(found, cause, finding, evidence, config, reason):
    said = TRIGGERS[cause](Evidence(found(**finding), **evidence), TriggerConfig(**config))
    assert (said is None) == (reason is None)
    assert (said or "").startswith(reason or "")


def test_a_score_below_nothing_falls_by_what_the_report_says(found):
    """As minus the mean error does, of which more is better as well."""
    finding = found(performance_before=-0.5, performance=-0.8, drop=0.6, hurts=True)
    said = TRIGGERS["performance"](Evidence(finding), CONFIG)
    assert said == "measured performance fell by 60.0%, from -0.500 to -0.800"


@pytest.mark.parametrize(
    ("measured", "estimated", "performance", "is_measured"),
    [
        (None, None, None, True),
        (PERFORMANCE, None, 0.7, True),
        (None, PERFORMANCE | {"source": "estimated", "now": 0.6}, 0.6, False),
        (PERFORMANCE, PERFORMANCE | {"source": "estimated", "now": 0.6}, 0.7, True),
        (
            PERFORMANCE | {"hurts": False},
            PERFORMANCE | {"source": "estimated", "now": 0.6},
            0.6,
            False,
        ),
        (
            PERFORMANCE | {"hurts": False},
            PERFORMANCE | {"source": "estimated", "now": 0.6, "hurts": None},
            0.7,
            True,
        ),
    ],
)
def test_the_drift_report_is_read_for_what_matters(
    tmp_path, measured, estimated, performance, is_measured
):
    report = {
        "headline": "moved, hurts",
        "enough": True,
        "moved": True,
        "moved_features": 3,
        "hurts": True,
        "measured": measured,
        "estimated": estimated,
        "labelled_rows": 400,
        "rows": 500,
    }
    (tmp_path / "report").write_text(json.dumps(report))
    finding = Finding.read(tmp_path / "report")
    assert (finding.moved, finding.hurts, finding.moved_features) == (True, True, 3)
    assert (finding.performance, finding.measured) == (performance, is_measured)
    assert finding.performance_before == (0.9 if performance else None)
    is_hurt = any(each["hurts"] for each in (measured, estimated) if each)
    assert finding.drop == (0.22 if is_hurt else None)
    assert (finding.labelled_rows, finding.summary) == (400, "moved, hurts")


def test_where_an_estimate_leaves_harm_open_it_is_what_is_told(tmp_path):
    report = {
        "headline": "moved, harm unknown",
        "enough": True,
        "moved": True,
        "moved_features": 3,
        "hurts": None,
        "measured": PERFORMANCE | {"hurts": False},
        "estimated": PERFORMANCE | {"source": "estimated", "now": 0.86, "hurts": None},
        "labelled_rows": 400,
    }
    (tmp_path / "report").write_text(json.dumps(report))
    finding = Finding.read(tmp_path / "report")
    assert (finding.hurts, finding.performance, finding.measured) == (None, 0.86, False)
    assert finding.drop is None
