"""Does the page show the decision, its reasons, and the windows before?"""

from __future__ import annotations

from components.decisions import Rule
from components.trigger.report import SHOWN_WINDOWS, to_html


def test_the_page_tells_what_was_decided_and_why(decided):
    rule = Rule(rule="budget", measured="<b>3 h</b>", threshold="2 h", verdict="refuses")
    made = decided(
        window="2026-01-19",
        retrain=False,
        action="wait",
        reason="3 h were spent",
        triggers={"drift": "4 features moved", "volume": ""},
        rules=[rule],
        moved=True,
        hurts=False,
        performance=0.81,
    )
    page = to_html(made, [])
    for said in ("no retrain: 3 h were spent", "4 features moved", "budget", "0.810", "moved"):
        assert said in page
    assert "&lt;b&gt;3 h&lt;/b&gt;" in page and "<b>3 h</b>" not in page
    assert "<polyline" not in page  # one window is no curve


def test_the_page_shows_the_last_look_at_each_of_the_last_windows(decided):
    past = [
        decided(window=f"2026-w{week:02d}", reason=f"look {look} at {week}", performance=0.5)
        for week in range(40)
        for look in (1, 2)
    ]
    page = to_html(past[-3], past)
    assert page.count("look 2 at") + page.count("look 1 at") == SHOWN_WINDOWS + 1
    assert "look 2 at 37" in page
    assert "look 1 at 37" not in page
    assert "at 39" not in page  # a later window was not known to this decision
    assert "<polyline" in page


def test_a_decision_of_an_older_version_leaves_open_what_it_did_not_keep(decided):
    page = to_html(decided(window="2026-01-19"), [decided(window="2026-01-12")])
    assert page.count(">open<") >= 4
