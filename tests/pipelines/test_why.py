"""``tokiwa why``: a decision explained from its record."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from components import home
from components.ledger import Ledger
from components.trigger.core import Finding, TriggerConfig, decide
from pipelines.cli import main

NYT = Finding(
    moved=True,
    moved_features=12,
    hurts=False,
    performance=0.83,
    performance_before=0.81,
    measured=False,
    summary="moved, does not hurt",
)


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Let a trigger of the sentiment project decide on a window."""
    for name in ("TOKIWA_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")

    def run(window, finding=NYT, ledger="projects/sentiment", run="run-1"):
        return decide(
            finding,
            champion="c" * 64,
            window=window,
            run=run,
            now=datetime(2026, 2, 9, tzinfo=UTC),
            request="",
            store=home.store(),
            ledger=ledger,
            config=TriggerConfig(),
            probe=lambda policy: (None, "", ""),
        )

    return run


@pytest.fixture
def why(capsys):
    def ask(*words, code=0):
        capsys.readouterr()
        assert main(["why", "sentiment", *words]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return ask


def test_a_refusal_is_explained_with_every_rule(look, why):
    look("2026-02-02")
    said = why()
    assert said.startswith(
        "window 2026-02-02: no retrain: inputs moved, but performance is not hurt"
    )
    assert "drift found: moved, does not hurt" in said
    for part in (
        "12 input features moved",
        "(estimated 0.830, was 0.810)",
        "moved without harm: ignore",
        "refuses",
        "cooldown",
        "no retrain yet",
    ):
        assert part in said
    assert why("2026-02-02") == said


def test_all_looks_at_a_window_are_there_as_json(look, why):
    made = [look("2026-02-02", run="run-1"), look("2026-02-02", run="run-2")]
    assert "the last of 2 looks at this window" in why("2026-02-02")
    found = json.loads(why("2026-02-02", "--json"))
    assert found == [each.model_dump(mode="json") for each in made]


def test_a_window_on_which_nothing_was_decided_is_answered_by_what_there_is(look, why):
    assert "nothing was decided about any window; none was looked at" in why(code=2)
    look("2026-02-02")
    look("2026-02-09")
    said = why("2026-03-02", code=2)
    assert "nothing was decided about window 2026-03-02" in said
    assert "there are decisions on 2026-02-02, 2026-02-09" in said


def test_without_decisions_of_its_own_those_of_the_replay_are_explained(look, why):
    look("2026-02-02", ledger="replays/sentiment/20260209t000000-abcdef")
    assert "none was looked at" in why(code=2)
    assert "does not hurt" in why("--replay", "20260209t000000-abcdef")
    Ledger(home.store(), "projects/sentiment").append(
        action="publish",
        bundle="c" * 64,
        key="k",
        by="replay 20260209t000000-abcdef",
        reason="",
        expected=0,
    )
    assert "in the replay 20260209t000000-abcdef" in why("2026-02-02")


def test_alerts_that_last_are_shown_by_status(look, capsys):
    alarming = NYT.model_copy(update={"alerts": {"input": 1}})
    look("2026-01-26", alarming, run="run-1")
    look("2026-02-02", alarming, run="run-2")
    assert main(["status", "sentiment"]) == 0
    said = capsys.readouterr().out
    assert "alert, level 1: inputs moved since window 2026-01-26, 2 in a row\n" in said
    look("2026-02-09", NYT.model_copy(update={"moved": False}), run="run-3")
    assert main(["status", "sentiment", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alerts"] == []
