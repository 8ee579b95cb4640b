"""A window that is read in parts, through the compiled graph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def drift_reports(desk):
    """What drift said, the oldest run first."""
    logs = sorted((desk.home / "runs").glob("*/drift.jsonl"))
    lines = [line for log in logs for line in log.read_text().splitlines()]
    events = [each for each in map(json.loads, lines) if each["event"] == "headline"]
    return [json.loads(Path(each["report"]).read_text()) for each in events]


@pytest.mark.slow
def test_partitions_find_what_one_look_finds(toy_desk):
    toy_desk.tokiwa("run", "toy.yaml", "--window", "2026-01-05")
    for partitions in (1, 3):
        setting = f"collect.partitions={partitions}"
        watched = toy_desk.json("monitor", "toy.yaml", "--window", "2026-01-12", "--set", setting)
        assert watched["result"] == "quiet"
    first, second = drift_reports(toy_desk)
    assert first == second
    assert first["watched_features"] > 30
    *_, one, three = toy_desk.executed().values()
    assert three - one == {"summarize"}
    assert len(list((toy_desk.home / "objects" / "summaries").iterdir())) == 3
