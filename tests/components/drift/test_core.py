from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import save_file
from scipy.stats import false_discovery_control

from components.drift.core import DriftConfig, DriftReport, detect, to_metrics
from components.drift.evidently_report import evidently_html
from components.drift.findings import benjamini_hochberg
from components.drift.report import SHOWN_COMPONENTS, to_html, to_markdown
from components.errors import BundleError
from components.profile import Answers, Columns, Profile
from components.trigger.config import TriggerConfig
from components.trigger.triggers import TRIGGERS, Evidence
from components.trigger.triggers import Finding as TriggerFinding

WIDTH = 30
COMPONENTS = [f"embedding_{number:03d}" for number in range(WIDTH)]


@pytest.fixture
def look(tmp_path):
    """Detect drift between a made-up profile and made-up rows; the last look leaves its files."""

    def run(
        *,
        rows=300,
        shift=0.0,
        shifted=COMPONENTS,
        errors=(),
        seed=0,
        error_rate=0.2,
        change=None,
        answers=None,
        errors_by="page-hinkley",
        groups=0,
        **config,
    ):
        generator = np.random.default_rng(seed)
        profile = Profile.of(
            "2026-01-05",
            inputs=Columns(
                {"characters": generator.normal(100, 20, 400).round()}, {}, np.arange(400)
            ),
            outputs=Columns(
                {"confidence": generator.beta(8, 2, 400)},
                {"answer": generator.choice(["no", "yes"], 400).tolist()},
                np.arange(400),
            ),
            errors=np.repeat([1.0, 0.0], [round(400 * error_rate), 400 - round(400 * error_rate)]),
            vectors=generator.normal(size=(400, WIDTH)).astype(np.float32),
            answers=answers,
        )
        profile.save(tmp_path)
        frame = pd.DataFrame(
            {
                "id": np.arange(rows).astype(str),
                "group": np.arange(rows).astype(str),
                "characters": generator.normal(100, 20, rows).round(),
                "confidence": generator.beta(8, 2, rows),
                "answer": generator.choice(["no", "yes"], rows),
            }
        )
        for name in COMPONENTS:
            frame[name] = generator.normal(shift * (name in shifted), size=rows)
        frame = change(frame) if change else frame
        frame.to_parquet(tmp_path / "current.parquet")
        weeks = errors if isinstance(errors, dict) else {"2026-01-12": errors}
        stream = pd.DataFrame(
            {
                "window": np.repeat(list(weeks), [len(each) for each in weeks.values()]),
                "error": np.concatenate([np.array(each, np.float64) for each in weeks.values()]),
            }
        )
        stream.insert(0, "group", np.arange(len(stream)) % (groups or len(stream) or 1))
        stream.to_parquet(tmp_path / "errors.parquet")
        return detect(tmp_path, tmp_path, DriftConfig(errors=(errors_by,), **config))

    return run


def found(report, name):
    return next(each for each in report.findings if each.name == name)


@given(
    st.lists(st.floats(0, 1) | st.floats(0, 1e-3), min_size=1, max_size=40), st.floats(0.001, 0.999)
)
def test_benjamini_hochberg_rejects_what_scipy_rejects(p_values, rate):
    adjusted = false_discovery_control(p_values)
    clear = np.abs(adjusted - rate) > 1e-9
    found = benjamini_hochberg(np.array(p_values), rate)
    np.testing.assert_array_equal(found[clear], (adjusted <= rate)[clear])


def test_what_more_rows_have_is_looked_at_there(look, tmp_path):
    """A change too small for the sample's few rows shows in the many."""
    few = look(rows=300, min_effect={"kolmogorov-smirnov": 0.05})
    assert not found(few, "characters").moved
    generator = np.random.default_rng(1)
    more = pd.DataFrame(
        {
            "group": np.arange(50_000).astype(str),
            "characters": generator.normal(104, 20, 50_000).round(),
        }
    )
    more.to_parquet(tmp_path / "inputs.parquet")
    many = look(rows=300, seed=0, min_effect={"kolmogorov-smirnov": 0.05})
    moved = found(many, "characters")
    assert moved.effect == pytest.approx(0.08, abs=0.04)
    rest = [each for each in many.findings if each.name != "characters"]
    assert {each.name: each.effect for each in rest} == {
        each.name: each.effect for each in few.findings if each.name != "characters"
    }
    # The same values, but a thousand of them to a document, are worth as many rows as documents.
    alike = more.sort_values("characters").assign(group=np.arange(50_000) // 1000)
    alike.to_parquet(tmp_path / "inputs.parquet")
    again = look(rows=300, seed=0, min_effect={"kolmogorov-smirnov": 0.05})
    assert found(again, "characters").effect == moved.effect
    assert found(again, "characters").p_value > 5 * moved.p_value


def test_benjamini_hochberg_takes_what_lies_below_a_later_success():
    # 0.03 fails its own step (0.025) and is saved by 0.035 at the next.
    p_values = np.array([0.035, 0.9, 0.03, 0.001])
    assert benjamini_hochberg(p_values, 0.05).tolist() == [True, False, True, True]
    assert benjamini_hochberg(np.zeros(0), 0.05).tolist() == []


def test_is_quiet_when_nothing_changed(look):
    reports = [look(seed=seed) for seed in range(20)]
    # Of windows in which nothing moved, one in a hundred may look as if something had.
    assert sum(report.moved for report in reports) <= 1
    assert reports[0].headline.startswith("quiet, harm unknown: 0 of 34 features moved, most ")
    assert (reports[0].level, reports[0].alerts) == (0, {})
    assert reports[0].kind == "none"
    assert reports[0].schema_changes == []


@pytest.mark.parametrize("count", [1, 10, 30])
def test_is_alarmed_by_exactly_the_components_that_moved(look, count):
    report = look(shift=1.0, shifted=COMPONENTS[:count])
    assert report.drifted and report.moved
    moved = {each.name for each in report.findings if each.moved}
    assert moved - {"embedding"} == set(COMPONENTS[:count])
    assert report.moved_features == len(moved)
    assert report.headline.startswith(f"moved, harm unknown: {len(moved)} of 34 features moved")
    assert report.kind == "data"


def test_a_difference_that_is_significant_but_small_is_no_drift(look):
    report = look(rows=20_000, shift=0.12)
    components = [each for each in report.findings if each.name in COMPONENTS]
    assert min(each.p_value for each in components) < 1e-3
    assert max(each.effect for each in components) < 0.15
    assert not any(each.moved for each in components)
    assert look(rows=20_000, shift=0.12, min_effect={"kolmogorov-smirnov": 0.01}).moved


def test_a_change_that_only_all_components_together_show_is_seen(look):
    report = look(rows=2000, shift=0.2)
    assert not any(found(report, name).moved for name in COMPONENTS)
    assert found(report, "embedding").moved
    assert found(report, "embedding").detector == "domain-classifier"


def test_findings_come_with_the_largest_effect_first_and_graver_ones_a_higher_level(look):
    def change(frame):
        return frame.assign(answer="yes", characters=frame["characters"] + 8)

    report = look(rows=600, change=change)
    effects = [each.times_threshold for each in report.findings if each.p_value is not None]
    assert effects == sorted(effects, reverse=True)
    assert found(report, "answer").level == 2 == report.level
    assert report.alerts == {"answer": 2, "input": 1}
    assert found(report, "characters").level == 1
    assert (found(report, "answer").watched, found(report, "characters").watched) == (
        "answer",
        "input",
    )


def test_too_few_rows_give_no_verdict_on_the_inputs(look):
    report = look(rows=99, shift=5.0)
    assert not report.enough and not report.moved and not report.drifted
    assert report.hurts is None
    assert report.headline == "not enough data: 99 rows, 100 are needed; harm unknown"
    assert look(rows=0).rows == 0
    assert look(rows=100, shift=5.0).moved


def test_errors_hurt_by_themselves(look):
    steady = look(errors=[1, 0, 0, 0, 0] * 100, max_drop=0.1)
    assert steady.error_alarm_row is None and not steady.drifted
    assert steady.error_rate == pytest.approx(0.2)
    assert steady.hurts is False
    rising = look(errors=[1, 0, 0, 0, 0] * 40 + [1] * 100)
    assert rising.drifted and rising.hurts and not rising.moved
    assert rising.kind == "concept"
    assert 200 < rising.error_alarm_row < 260
    assert rising.labelled_rows == 300
    assert rising.level == 3 == found(rising, "error over time").level
    assert rising.alerts == {"error": 3, "performance": 3}


@pytest.mark.parametrize("rows", [1, 3, 20, 99])
def test_a_few_labels_are_no_verdict(look, rows):
    # 1 of 3 is wrong, where 1 of 5 was.
    report = look(errors=([1, 0, 0] * rows)[:rows])
    assert (report.measured, report.hurts, report.level) == (None, None, 0)
    assert report.labelled_rows == rows
    assert look(errors=[1, 0, 0] * 100).hurts is True


def test_labels_of_a_few_documents_are_no_verdict(look):
    errors = [1, 0, 0] * 100
    assert look(errors=errors, errors_by="ddm").measured.hurts is True
    report = look(errors=errors, errors_by="ddm", groups=9)
    assert report.measured.hurts is None
    assert (report.hurts, report.headline[:20]) == (None, "quiet, harm unknown:")


def test_labels_of_several_small_windows_are_measured_together(look):
    weeks = {f"2026-02-{day:02d}": [1, 1, 0, 0, 0] * 8 for day in range(1, 8)}
    report = look(errors={"2026-01-12": [1, 0, 0, 0, 0] * 200, **weeks})
    assert (report.measured.rows, report.measured.window) == (120, "2026-02-05 to 2026-02-07")
    assert report.measured.hurts


GOOD, BAD = [1, 0, 0, 0, 0] * 100, [1, 1, 0] * 100


def test_the_window_that_hurt_is_named_and_so_is_the_alarm(look):
    report = look(errors={"2026-01-12": GOOD, "2026-01-19": BAD})
    alarm = report.error_alarm_row
    assert 500 < alarm < 800
    assert report.harms == [
        "measured 1 - mean error fell from 0.800 to 0.333 in window 2026-01-19",
        f"errors rose, alarm at labelled row {alarm:,} in window 2026-01-19",
    ]
    assert report.headline.endswith("; ".join(report.harms))


def test_an_alarm_is_outdated_by_what_was_measured_since(look):
    report = look(errors={"2026-01-12": BAD, "2026-01-19": GOOD}, max_drop=0.1)
    assert (report.error_alarm_row, report.rose, report.hurts) == (None, "", False)
    assert (report.level, report.kind, report.harms) == (0, "none", [])
    assert not found(report, "error over time").moved
    # A window with too few labels outdates nothing.
    assert look(errors={"2026-01-12": BAD, "2026-01-19": GOOD[:20]}).hurts is True


def test_errors_that_rose_at_the_end_of_a_good_window_hurt(look, read):
    report = look(errors={"2026-01-12": GOOD * 10 + [1] * 60})
    assert (report.measured.hurts, report.hurts, report.level) == (False, True, 3)
    assert report.harms == [report.rose]
    said = TRIGGERS["performance"](Evidence(read(report)), TriggerConfig())
    assert said == report.rose


@pytest.fixture
def read(tmp_path):
    """What the trigger reads of a report."""

    def run(report):
        written = {"headline": report.headline, **report.model_dump(mode="json")}
        (tmp_path / "report.json").write_text(json.dumps(written))
        return TriggerFinding.read(tmp_path / "report.json")

    return run


def _answers(rows, right, *, said=None, seed=0, guess=0.5):
    """Draw answers that are right so often, and say that they are, unless they say otherwise."""
    generator = np.random.default_rng(seed)
    targets = (generator.random(rows) < guess).astype(np.int64)
    decided = np.where(generator.random(rows) < right, targets, 1 - targets)
    sure = right if said is None else said
    probabilities = np.where(np.eye(2)[decided] > 0, sure, 1 - sure)
    return Answers(probabilities, decided, targets, np.arange(rows))


def _columns(given, **more):
    first, second = given.probabilities.T
    columns = {"probability_0": first, "probability_1": second, "decided": given.decided}
    return {**columns, **more}


@pytest.fixture
def watch(look, tmp_path, read):
    """Look at a window of answers behind one whose labels have come."""

    def run(before, labelled, now):
        promised = float((before.decided != before.targets).mean())
        look(
            answers=before,
            error_rate=promised,
            rows=len(now.decided),
            change=lambda frame: frame.assign(**_columns(now)),
        )
        wrong = (labelled.decided != labelled.targets).astype(float)
        columns = _columns(labelled, target=labelled.targets, window="2026-01-12", error=wrong)
        pd.DataFrame({"group": np.arange(len(wrong)), **columns}).to_parquet(
            tmp_path / "errors.parquet"
        )
        report = detect(tmp_path, tmp_path, DriftConfig())
        said = TRIGGERS["performance"](Evidence(read(report)), TriggerConfig())
        return report, said

    return run


def test_harm_that_was_foreseen_and_is_estimated_no_more_has_passed(watch):
    report, said = watch(_answers(400, 0.9), _answers(400, 0.7), _answers(300, 0.9))
    assert (report.measured.hurts, report.estimated.hurts) == (True, False)
    assert (report.hurts, report.kind, report.level, said) == (False, "none", 0, None)
    assert "does not hurt" in report.headline
    assert "as it was estimated to, and no more: measured accuracy fell" in report.headline


def test_harm_that_was_a_surprise_stays_however_sure_the_answers_are(watch):
    surprise = _answers(400, 0.7, said=0.9)
    report, said = watch(_answers(400, 0.9), surprise, _answers(300, 0.9))
    assert (report.measured.hurts, report.estimated.hurts) == (True, False)
    assert (report.hurts, report.kind, report.level) == (True, "concept", 3)
    assert said.startswith("measured performance fell by")
    assert "in window 2026-01-12" in report.headline


@pytest.mark.parametrize(("right", "guess"), [(0.5, 0.5), (0.85, 0.9)])
def test_a_champion_that_was_no_better_than_guessing_is_never_unhurt(watch, right, guess):
    given = [_answers(1000, right, guess=guess, seed=seed) for seed in range(3)]
    report, said = watch(*given)
    assert report.measured.is_guessing
    assert report.hurts is None
    assert "it was not shown to be better than guessing when it was" in report.headline
    assert said is None


def test_errors_are_judged_against_the_rate_that_was_promised(look):
    errors = [1, 0] * 150
    assert look(errors=errors, error_rate=0.1).error_alarm_row is not None
    assert look(errors=errors, error_rate=0.5).error_alarm_row is None


def test_what_earlier_rows_did_says_nothing_of_inputs_that_moved(look):
    assert look(errors=[1, 0, 0, 0, 0] * 100, shift=1.0).hurts is None


def test_without_labels_confidence_is_watched_over_time(look):
    def unsure(frame):
        return frame.assign(confidence=np.where(frame.index > 100, 0.3, frame["confidence"]))

    report = look()
    assert (report.labelled_rows, report.error_rate, report.error_alarm_row) == (0, None, None)
    assert report.error_rate_before == 0.2
    assert not found(report, "confidence over time").moved
    doubting = look(change=unsure)
    assert found(doubting, "confidence over time").moved
    assert doubting.error_alarm_row is None


@pytest.mark.parametrize("name", ["adwin", "ddm"])
def test_rivers_detectors_look_at_the_errors_when_the_project_says_so(look, name):
    report = look(errors=[1, 0, 0, 0, 0] * 60 + [1] * 200, errors_by=name)
    assert found(report, "error over time").detector == name
    assert 300 <= report.error_alarm_row < 400


def test_all_detectors_can_look_at_the_same_window(look):
    chosen = {
        "numbers": ("kolmogorov-smirnov", "wasserstein", "population-stability", "jensen-shannon"),
        "categories": ("chi-squared", "g-test", "population-stability", "jensen-shannon"),
        "vectors": ("mmd", "domain-classifier"),
    }
    assert not look(**chosen).moved
    report = look(shift=1.0, change=lambda frame: frame.assign(answer="yes"), **chosen)
    assert {each.detector for each in report.findings if each.moved} == {
        *chosen["numbers"],
        *chosen["categories"],
        *chosen["vectors"],
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="characters"), "column characters is missing"),
        (lambda frame: frame.drop(columns="answer"), "column answer is missing"),
        (lambda frame: frame.assign(characters="many"), "column characters was numbers and is "),
        (lambda frame: frame.assign(price=1.0), "column price is new"),
    ],
)
def test_columns_that_came_or_went_are_told_and_the_others_compared(look, change, said):
    report = look(change=change)
    assert [each for each in report.schema_changes if each.startswith(said)]
    assert report.level == 2
    assert not report.moved
    assert report.watched_features >= 33


def test_values_that_are_missing_or_infinite_count_as_missing(look):
    def spoil(frame):
        spoilt = frame["characters"].where(frame.index % 3 > 0)
        return frame.assign(characters=spoilt.where(frame.index % 5 > 0, np.inf))

    report = look(change=spoil)
    assert found(report, "characters (missing)").moved
    assert not found(report, "characters").moved
    assert found(report, "characters (missing)").watched == "input"
    unsure = look(change=lambda frame: frame.assign(confidence=np.nan))
    assert found(unsure, "confidence (missing)").watched == "answer"
    gone = look(change=lambda frame: frame.assign(characters=np.nan))
    assert found(gone, "characters (missing)").moved
    assert "characters" not in {each.name for each in gone.findings}


def test_a_constant_column_and_a_new_category_are_compared(look):
    report = look(change=lambda frame: frame.assign(characters=100.0, answer="perhaps"))
    assert found(report, "characters").moved
    assert found(report, "answer").effect == 1


def test_rows_of_few_groups_say_less(look):
    def documents(frame):
        group = frame.index // 60  # five documents
        return frame.assign(group=group.astype(str), characters=90.0 + 10 * group)

    alone = look(change=lambda frame: documents(frame).assign(group=frame["id"]))
    grouped = look(change=documents)
    assert found(alone, "characters").effect == found(grouped, "characters").effect
    assert found(alone, "characters").moved
    assert not found(grouped, "characters").moved


def test_the_performance_of_a_classifier_is_estimated_and_measured(look, tmp_path):
    generator = np.random.default_rng(0)

    def answers(rows, sure):
        logit = generator.normal(size=rows) * sure
        positive = 1 / (1 + np.exp(-logit))
        probabilities = np.stack([1 - positive, positive], axis=1)
        targets = (generator.random(rows) < positive).astype(np.int64)
        return Answers(probabilities, probabilities.argmax(1), targets, np.arange(rows))

    def columns(given, **more):
        return {
            "probability_0": given.probabilities[:, 0],
            "probability_1": given.probabilities[:, 1],
            "decided": given.decided,
            **more,
        }

    sure, unsure = answers(400, 4), answers(300, 1)
    report = look(answers=sure, change=lambda frame: frame.assign(**columns(unsure)))
    assert report.estimated is not None
    assert report.estimated.hurts and report.hurts and report.drifted
    assert report.measured is None
    assert report.schema_changes == []
    labelled = pd.DataFrame(
        {
            "group": np.arange(300).astype(str),
            "window": "2026-01-12",
            "error": (unsure.decided != unsure.targets).astype(float),
            **columns(unsure, target=unsure.targets),
        }
    )
    labelled.to_parquet(tmp_path / "errors.parquet")
    both = detect(tmp_path, tmp_path, DriftConfig())
    assert both.measured is not None and both.estimated is not None
    assert both.measured.hurts
    assert both.estimated == report.estimated
    assert [each.window for each in both.reconciled] == ["2026-01-12"]
    assert both.reconciled[0].held
    page = to_html(both, tmp_path, tmp_path, "2026-01-12", DriftConfig())
    assert "Estimates, once labels had come" in page
    metrics = to_metrics(both)
    assert metrics["measured_accuracy"] == both.measured.now
    assert metrics["estimated_accuracy"] == both.estimated.now
    assert metrics["hurts"] == 1


def test_the_same_rows_give_the_same_report(look):
    report = look(shift=0.4, errors=[1, 0] * 100)
    assert look(shift=0.4, errors=[1, 0] * 100) == report
    assert DriftReport.from_json(report.to_json()) == report


def test_a_window_is_compared_with_a_profile_of_the_first_schema_too(look, tmp_path):
    look(shift=1.0, errors=[1, 0] * 100)
    generator = np.random.default_rng(0)
    columns = {name: np.sort(generator.normal(size=400)) for name in COMPONENTS}
    save_file(columns, tmp_path / "profile.safetensors")
    old = {"schema_version": 1, "window": "2026-01-05", "error_rate": 0.2, "error_rows": 400}
    (tmp_path / "profile.json").write_text(json.dumps(old))
    report = detect(tmp_path, tmp_path, DriftConfig())
    assert {each.name for each in report.findings if each.moved} >= set(COMPONENTS)
    assert report.schema_changes == []
    assert report.hurts
    assert report.estimated is None


def test_an_effect_of_a_detector_that_there_is_not_is_refused():
    with pytest.raises(ValidationError, match="kolmogorov-smirnow"):
        DriftConfig.model_validate({"min_effect": {"kolmogorov-smirnow": 0.2}})


def test_a_bundle_without_a_profile_is_a_bundle_error(look, tmp_path):
    look()
    (tmp_path / "profile.json").unlink()
    with pytest.raises(BundleError, match="no readable profile"):
        detect(tmp_path, tmp_path, DriftConfig())


def test_metrics_and_page_say_what_was_found(look, tmp_path):
    report = look(shift=1.0, errors=[1] * 100)
    metrics = to_metrics(report)
    assert metrics["moved"] == metrics["hurts"] == metrics["error_rate"] == 1
    assert metrics["level"] == 3
    assert metrics["moved_features"] == 31
    components = [each.effect for each in report.findings if each.name in COMPONENTS]
    assert metrics["largest_kolmogorov_smirnov"] == max(components)
    page = to_html(report, tmp_path, tmp_path, "2026-01-12", DriftConfig())
    assert "Drift in window 2026-01-12" in page
    assert f'<p class="verdict bad">{report.headline}' in page
    told = to_markdown(report, "2026-01-12")
    assert told.startswith(f"**Window 2026-01-12: {report.headline}**")
    assert "Alert level 3" in told
    assert f"- {report.findings[0].name} ({report.findings[0].detector})" in told
    assert f"First alarm at row {report.error_alarm_row}" in page
    assert page.count('class="alarm"') >= 1
    # Everything with a name, but not every component of the embedding.
    assert page.count('class="over"') == 1 + SHOWN_COMPONENTS < len(report.findings)
    assert "http://" not in page and "https://" not in page and "<script" not in page


@pytest.mark.parametrize(("rows", "mood"), [(300, "good"), (50, "open")])
def test_a_quiet_window_and_a_short_one_look_different(look, tmp_path, rows, mood):
    report = look(rows=rows)
    page = to_html(report, tmp_path, tmp_path, "w", DriftConfig())
    assert f'class="verdict {mood}"' in page
    assert "error_rate" not in to_metrics(report)


@pytest.mark.slow
def test_evidently_reports_the_same_rows_if_the_project_asks_for_it(look, tmp_path):
    look(shift=1.0)
    assert "drift.evidently: true" in evidently_html(tmp_path, tmp_path, wanted=False)
    page = evidently_html(tmp_path, tmp_path, wanted=True)
    assert "characters" in page
    assert "<script" in page


@pytest.mark.parametrize(
    ("change", "is_empty"),
    [
        (lambda frame: frame.assign(characters=np.nan, answer=None), False),
        (lambda frame: frame.assign(characters="many"), False),
        (lambda frame: frame[:0], True),
        (lambda frame: frame.drop(columns=["characters", "confidence", "answer"]), True),
    ],
)
@pytest.mark.slow
def test_evidently_is_spared_what_it_cannot_read(look, tmp_path, change, is_empty):
    look(change=change)
    page = evidently_html(tmp_path, tmp_path, wanted=True)
    assert ("No column has values on both sides" in page) == is_empty
