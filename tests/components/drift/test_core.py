from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from components.drift.core import (
    SHOWN_COMPONENTS,
    DriftConfig,
    DriftReport,
    benjamini_hochberg,
    detect,
    to_html,
    to_metrics,
)
from components.errors import BundleError
from components.profile import Profile

FEATURES = [f"embedding_{number:03d}" for number in range(30)] + ["confidence"]


@pytest.fixture
def look(tmp_path):
    """Detect drift between a made-up profile and made-up rows."""

    def run(*, rows=300, shift=0.0, shifted=FEATURES, errors=(), seed=0, error_rate=0.2, **config):
        generator = np.random.default_rng(seed)
        Profile(
            {name: generator.normal(size=400) for name in FEATURES}, error_rate, 400, "2026-01-05"
        ).save(tmp_path)
        frame = pd.DataFrame(
            {name: generator.normal(shift * (name in shifted), size=rows) for name in FEATURES}
        )
        frame.assign(id="1", answer="x").to_parquet(tmp_path / "current.parquet")
        pd.DataFrame({"error": np.array(errors, dtype=np.int8)}).to_parquet(
            tmp_path / "errors.parquet"
        )
        return detect(tmp_path, tmp_path, DriftConfig(**config))

    return run


@given(
    st.lists(st.floats(0, 1) | st.floats(0, 1e-3), min_size=1, max_size=40), st.floats(0.001, 0.999)
)
def test_benjamini_hochberg_rejects_what_scipy_rejects(p_values, rate):
    adjusted = false_discovery_control(p_values)
    clear = np.abs(adjusted - rate) > 1e-9
    found = benjamini_hochberg(np.array(p_values), rate)
    np.testing.assert_array_equal(found[clear], (adjusted <= rate)[clear])


def test_benjamini_hochberg_takes_what_lies_below_a_later_success():
    # 0.03 fails its own step (0.025) and is saved by 0.035 at the next.
    p_values = np.array([0.035, 0.9, 0.03, 0.001])
    assert benjamini_hochberg(p_values, 0.05).tolist() == [True, False, True, True]
    assert benjamini_hochberg(np.zeros(0), 0.05).tolist() == []


def test_is_quiet_when_nothing_changed(look):
    reports = [look(seed=seed) for seed in range(40)]
    # Of windows in which nothing moved, one in a hundred may look as if something had.
    assert sum(report.drifted for report in reports) <= 2
    assert sum(report.moved_features for report in reports) <= 2
    assert reports[0].headline.startswith("quiet, harm unknown: 0 of 31 features moved, most ")


@pytest.mark.parametrize("count", [1, 10, 31])
def test_is_alarmed_by_exactly_the_features_that_moved(look, count):
    shifted = FEATURES[:count]
    report = look(shift=1.0, shifted=shifted)
    assert report.drifted and report.moved
    assert {feature.name for feature in report.findings if feature.moved} == set(shifted)
    assert report.moved_features == count
    assert report.headline.startswith(f"moved, harm unknown: {count} of 31 features moved")


def test_a_difference_that_is_significant_but_small_is_no_drift(look):
    report = look(rows=20_000, shift=0.15)
    assert min(feature.p_value for feature in report.findings) < 1e-3
    assert max(feature.effect for feature in report.findings) < 0.15
    assert not report.moved
    assert look(rows=20_000, shift=0.15, min_distance=0.01).moved


def test_features_come_with_the_most_distant_first(look):
    report = look(shift=0.5, shifted=FEATURES[3:5])
    distances = [feature.effect for feature in report.findings]
    assert distances == sorted(distances, reverse=True)
    assert {feature.name for feature in report.findings[:2]} == set(FEATURES[3:5])


def test_too_few_rows_give_no_verdict_on_the_inputs(look):
    report = look(rows=99, shift=5.0)
    assert not report.enough and not report.moved and not report.drifted
    assert report.findings == []
    assert report.headline == "not enough data: 99 rows, 100 are needed; harm unknown"
    assert look(rows=100, shift=5.0).moved


def test_errors_raise_the_alarm_by_themselves(look):
    steady = look(errors=[1, 0, 0, 0, 0] * 100)
    assert steady.error_alarm_row is None and not steady.drifted
    assert steady.error_rate == pytest.approx(0.2)
    rising = look(errors=[1, 0, 0, 0, 0] * 40 + [1] * 100)
    assert rising.drifted and not rising.moved
    assert 200 < rising.error_alarm_row < 260
    assert rising.labelled_rows == 300


def test_errors_are_judged_against_the_rate_that_was_promised(look):
    errors = [1, 0] * 150
    assert look(errors=errors, error_rate=0.1).error_alarm_row is not None
    assert look(errors=errors, error_rate=0.5).error_alarm_row is None


def test_without_labels_there_is_no_error_rate(look):
    report = look()
    assert (report.labelled_rows, report.error_rate, report.error_alarm_row) == (0, None, None)
    assert report.error_rate_before == 0.2


def test_the_same_rows_give_the_same_report(look):
    report = look(shift=0.4)
    assert look(shift=0.4) == report
    assert DriftReport.from_json(report.to_json()) == report


def test_a_bundle_without_a_profile_is_a_bundle_error(look, tmp_path):
    look()
    (tmp_path / "profile.json").unlink()
    with pytest.raises(BundleError, match="no readable profile"):
        detect(tmp_path, tmp_path, DriftConfig())


def test_metrics_and_page_say_what_was_found(look):
    config = DriftConfig()
    report = look(shift=1.0, errors=[1] * 100)
    metrics = to_metrics(report)
    assert metrics["drifted"] == 1
    assert metrics["moved_features"] == 31
    assert metrics["largest_distance"] == report.findings[0].effect
    assert metrics["error_rate"] == 1
    page = to_html(report, "2026-01-12", config)
    assert "Drift in window 2026-01-12" in page
    assert f'<p class="verdict bad">{report.headline}' in page
    assert f"alarm at row {report.error_alarm_row}" in page
    # Everything with a name, but not every component of the embedding.
    assert page.count('class="over"') == 1 + SHOWN_COMPONENTS < len(report.findings)


@pytest.mark.parametrize(("rows", "mood"), [(300, "good"), (50, "open")])
def test_a_quiet_window_and_a_short_one_look_different(look, rows, mood):
    report = look(rows=rows)
    assert f'class="verdict {mood}"' in to_html(report, "w", DriftConfig())
    assert "error_rate" not in to_metrics(report)
