from __future__ import annotations

from components.alerts import alerts_of, news
from components.decisions import Decision

CALM: dict[str, int] = {}


def look(window, alerts=CALM, champion="a", moved=False, hurts=False, run=""):
    return Decision(
        window=window,
        champion=champion,
        run=run or f"run-{window}",
        at="2026-01-05T00:00:00+00:00",
        action="wait",
        retrain=False,
        cause="",
        event="",
        reason="",
        triggers={},
        rules=[],
        labelled_rows=0,
        finding="",
        moved=moved or "input" in alerts,
        hurts=hurts,
        alerts=alerts,
    )


def summaries(decided):
    return [
        (each.about, each.level, each.since, each.until, each.windows, each.is_open)
        for each in alerts_of(decided)
    ]


def test_what_is_said_again_and_again_is_one_alert_until_it_is_not_said():
    decided = [
        look("w1"),
        look("w2", {"input": 1}),
        look("w3", {"input": 2, "performance": 3}, hurts=True),
        look("w4", {"input": 1}),
        look("w5"),
        look("w6", {"input": 1}),
    ]
    assert summaries(decided) == [
        ("input", 2, "w2", "w4", 3, False),
        ("performance", 3, "w3", "w3", 1, False),
        ("input", 1, "w6", "w6", 1, True),
    ]


def test_a_person_is_told_once_and_again_only_when_it_gets_graver():
    decided = [
        look("w1", {"input": 1}),
        look("w2", {"input": 1}),
        look("w3", {"input": 2}),
        look("w4", {"input": 2}),
        look("w5"),
        look("w6", {"input": 1}),
    ]
    told = [[each.words for each in news(each, decided)] for each in decided]
    assert told == [
        ["level 1: inputs moved in window w1"],
        [],
        ["level 2: inputs moved since window w1, 3 in a row"],
        [],
        [],
        ["level 1: inputs moved in window w6"],
    ]


def test_many_looks_at_one_window_count_as_one_window():
    decided = [look("w1", {"input": 1}, run=f"run-{hour}") for hour in range(24)]
    assert summaries(decided) == [("input", 1, "w1", "w1", 1, True)]
    assert [len(news(each, decided[:place])) for place, each in enumerate(decided)] == [
        1,
        *[0] * 23,
    ]


def test_a_look_that_can_say_nothing_ends_nothing():
    few_rows = look("w2").model_copy(update={"moved": None})
    no_labels = look("w2").model_copy(update={"hurts": None})
    moved, hurt = look("w1", {"input": 1}), look("w1", {"performance": 3}, hurts=True)
    assert [each[-1] for each in summaries([moved, few_rows])] == [True]
    assert [each[-1] for each in summaries([moved, no_labels])] == [False]
    assert [each[-1] for each in summaries([hurt, no_labels])] == [True]
    assert [each[-1] for each in summaries([hurt, few_rows])] == [False]


def test_an_alert_ends_with_its_champion_and_the_next_one_is_told_anew():
    decided = [look("w1", {"input": 2}), look("w2", {"input": 2}, champion="b")]
    assert summaries(decided) == [
        ("input", 2, "w1", "w1", 1, False),
        ("input", 2, "w2", "w2", 1, True),
    ]
    assert len(news(decided[-1], decided)) == 1


def test_a_window_that_comes_late_is_judged_by_those_before_it():
    decided = [look("w1"), look("w2", {"input": 1}), look("w3", {"input": 1})]
    late = look("w2", {"input": 1}, run="late")
    assert news(late, [decided[0], decided[2]])[0].since == "w2"
