"""The story of `make run` on the real model and real texts, with fewer rows."""

from __future__ import annotations

import pytest


@pytest.mark.slow
@pytest.mark.e2e
def test_the_loop_closes_on_real_data(desk):
    # So few earlier rows cannot show that they suffer by less than the default margin, and
    # in two epochs would not teach a new head as much as a linear probe knows. What they teach
    # is hardly worse on tweets, so that only a project that asks for it retrains.
    fewer = (
        *("--set", "source.max_rows_per_window=800", "--set", "finetune.epochs=4"),
        *("--set", "finetune.method=top", "--set", "evaluate.robustness.rows=20"),
        *("--set", "evaluate.guard_margin=0.15"),
        *("--set", "trigger.governor.moved_unhurt=retrain"),
    )
    movies, control, tweets = desk.json("replay", "sentiment", "--windows", "3", *fewer)

    assert movies["decision"] == "promote"
    assert (control["rows"], control["drifted"], control["decision"]) == ("movies", False, "quiet")
    assert (tweets["rows"], tweets["drifted"], tweets["trigger"]) == ("tweets", True, "drift")
    assert tweets["decision"] == "promote"
    assert tweets["score_after"] > tweets["score_before"] + 0.1
    answers = desk.json("predict", "sentiment", "what a lovely day", "this is the worst")
    assert [each["label"] for each in answers["predictions"]] == ["positive", "negative"]
