from __future__ import annotations

import re

import pytest

from components.evaluate.check import Check, Part
from components.evaluate.config import EvaluateConfig
from components.evaluate.core import evaluate
from components.evaluate.evidence import ByLabel, Evidence, Roc, Shown
from components.evaluate.report import (
    EvaluateReport,
    tell_confusion,
    tell_roc,
    to_html,
    to_markdown,
)

MAX_BYTES = 2_000_000
NETWORK = re.compile(r"https?://|<script|<link|@import|url\(|src=\"(?!data:)")


def check(name, verdict, required=True, **more):
    return Check(
        name=name, check="primary", verdict=verdict, required=required, reason=f"why {name}", **more
    )


@pytest.fixture
def make_report():
    def make(verdict="keep", **more):
        content = {
            "verdict": verdict,
            "metric": "macro_f1",
            "challenger": "a" * 64,
            "champion": "b" * 64,
            "checks": [
                check("first", "failed", measured=-0.1, low=-0.2, high=-0.05, threshold=0.0),
                check("second", "passed"),
                check("third", "failed", required=False),
            ],
            "power": "Power: little.",
            "opponent": "champion",
            "scores": {"challenger": {"test": {"rows": 10, "macro_f1": 0.5}}},
            "content": "text",
            "labels": ("no", "yes"),
            "confusion": [[5, 1], [2, 2]],
        }
        return EvaluateReport.model_validate(content | more)

    return make


# --- of real models


def test_rows_that_one_model_alone_gets_right_are_counted(toy, toy_champion, make_bundle, tmp_path):
    report = evaluate(
        toy.second, toy_champion, make_bundle(1), tmp_path, toy.task, EvaluateConfig()
    )
    duel = report.evidence.duel
    assert duel and duel.exact
    right = {
        who: round(sets["test"]["rows"] * sets["test"]["accuracy"])
        for who, sets in report.scores.items()
    }
    ahead = right["challenger"] - right["champion"]
    assert duel.only_challenger - duel.only_champion == ahead > 20
    assert duel.p_value < 1e-6
    assert f"On {duel.only_challenger:,} test rows the challenger alone is right" in to_html(report)


def test_pages_of_every_kind_need_nothing_but_themselves(case_of, learnt, kind, tmp_path):
    case = case_of(kind)
    champion = learnt(kind, seed=1)
    config = EvaluateConfig(min_groups=10, resamples=300)
    report = evaluate(case.prepared, learnt(kind), champion, tmp_path, case.task, config)
    page = to_html(report)
    assert len(page.encode()) < MAX_BYTES
    assert not NETWORK.search(page)
    assert page.index("Champion gate") < page.index(report.verdict) < page.index("Checks")
    assert report.power in page
    assert ("ROC on the test rows" in page) == bool(report.labels)
    assert EvaluateReport.from_json(report.to_json()) == report
    if report.evidence.disagreeing:
        assert f"disagree: {report.evidence.disagreeing:,} test rows" in page
    if report.evidence.errors:
        assert "Worst errors of the challenger" in page
        assert all(each.words or each.tiles for each in report.evidence.errors)
    markdown = to_markdown(report)
    assert markdown.startswith(f"# {report.verdict}\n")
    assert all(f"| {each.name} |" in markdown for each in report.checks)


def test_a_first_champion_has_a_page_too(toy, toy_champion, tmp_path):
    report = evaluate(toy.first, toy_champion, None, tmp_path, toy.task, EvaluateConfig())
    page = to_html(report)
    assert report.opponent == "linear probe"
    assert "Gains over the linear probe" in page
    assert "disagree" not in page


# --- parts


def test_what_decided_stands_first(make_report):
    page = to_html(make_report())
    before = page[: page.index("<h2>Checks")]
    assert "why first" in before and "why second" not in before
    assert "Warning: why third" in before
    assert '<td class="bad">failed' in page


def test_an_inconclusive_report_says_how_many_rows_would_decide(make_report):
    report = make_report("inconclusive", more_rows=1234)
    assert "inconclusive: about 1,234 more test rows would decide" in to_html(report)
    assert report.headline.endswith("; about 1,234 more test rows would decide")
    assert make_report("keep", more_rows=1234).more_words == ""
    unknown = to_html(make_report("inconclusive"))
    assert "inconclusive: no number of test rows in sight would decide" in unknown


def test_rows_that_were_left_out_are_told(make_report):
    assert "Left out are 1,200 rows" in to_html(make_report(left_out=1200))
    assert "Left out" not in to_html(make_report())


def test_hostile_content_stays_text(make_report):
    hostile = "<script>alert('x')</script>"
    row = Shown(id=hostile, content=hostile, label=hostile, challenger=hostile)
    worded = row.model_copy(update={"words": [(hostile, 0.5)]})
    part = Part(name=hostile, rows=3, verdict="passed")
    report = make_report(
        checks=[check(hostile, "failed", parts=[part])],
        labels=(hostile, "yes"),
        evidence=Evidence(disagreements=[row], disagreeing=1, errors=[worded]),
    )
    page = to_html(report)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


def test_a_cell_cannot_break_out_of_the_markdown_table(make_report):
    lines = to_markdown(make_report(checks=[check("a|b", "failed")])).splitlines()
    assert any(line.startswith("| a\\|b | yes | failed |") for line in lines)


def test_images_and_their_parts_are_shown(make_report):
    row = Shown(id="r1", content="aGk=", label="no", challenger="yes", tiles=[[0.1, -0.2]] * 2)
    evidence = Evidence(errors=[row], disagreements=[row.model_copy(update={"tiles": []})])
    page = to_html(make_report(content="image", evidence=evidence))
    assert page.count('src="data:image/png;base64,aGk="') == 2


def test_kubeflow_is_told_of_one_curve_and_the_confusion(make_report):
    told = []
    curve = Roc(
        model="challenger",
        label="yes",
        false_positive_rate=[0, 1],
        true_positive_rate=[0, 1],
        thresholds=[1, 0],
    )
    champions = curve.model_copy(update={"model": "champion"})
    report = make_report(evidence=Evidence(roc=[champions, curve]))
    tell_roc(report, lambda *given: told.append(given))
    tell_confusion(report, lambda *given: told.append(given))
    assert told == [([0, 1], [0, 1], [1, 0]), (["no", "yes"], [[5, 1], [2, 2]])]
    tell_roc(make_report(evidence=Evidence(roc=[curve, curve])), lambda *given: told.append(given))
    tell_confusion(make_report(confusion=[]), lambda *given: told.append(given))
    assert len(told) == 2


def test_a_page_of_long_names_stays_small(make_report):
    parts = [
        Part(name=f"comment = {'x' * 50_000}{number}", rows=50, verdict="passed")
        for number in range(60)
    ]
    row = Shown(id="r" * 500_000, content="…", label="no", challenger="yes", words=[("good", 0.1)])
    checks = [check("slices", "passed", parts=parts)]
    page = to_html(make_report(checks=checks, evidence=Evidence(errors=[row])))
    assert len(page.encode()) < 100_000
    assert page.count(f"comment = {'x' * 49}…") == 60


def test_a_reason_of_several_lines_is_one_cell(make_report):
    reason = "the challenger collapses on country = a\n\tb|c: -0.2"
    checks = [check("slices", "failed").model_copy(update={"reason": reason})]
    (line,) = [
        each
        for each in to_markdown(make_report(checks=checks)).split("\n")
        if "slices" in each and each.startswith("| ")
    ]
    assert line.endswith("| the challenger collapses on country = a b\\|c: -0.2 |")


def test_a_page_of_many_labels_stays_small(make_report):
    labels = tuple(f"label number {number}" for number in range(500))
    confusion = [[(row * cell) % 7 for cell in range(500)] for row in range(500)]
    each = {"challenger": 0.5}
    by_label = [
        ByLabel(label=label, rows=place, precision=each, recall=each, f1=each)
        for place, label in enumerate(labels)
    ]
    evidence = Evidence(by_label=by_label)
    page = to_html(make_report(labels=labels, confusion=confusion, evidence=evidence))
    assert len(page.encode()) < 100_000
    assert "Commonest confusions" in page
    assert "Labels on the test rows: the commonest 40 of 500" in page
    assert "<td>label number 499</td>" in page and "<td>label number 0</td>" not in page
