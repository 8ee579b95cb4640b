"""``tokiwa tune``: a search over a declared space, shown, carried on, and used by a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from components.errors import ConfigError
from pipelines import runners
from pipelines.progress import watching
from pipelines.project_file import load

SEARCH = """\
  search:
    sampler: grid
    trials: 4
    pruner: none
    space:
      epochs: {choices: [1, 2]}
      schedule.shape:
        choices: [cosine, linear]
"""


@pytest.fixture
def project(toy_desk):
    """The toy project with a search in it."""
    path = toy_desk.folder / "toy.yaml"
    path.write_text(path.read_text() + SEARCH)
    return path


# --- the section


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("shape:", "shap:", "is no key of finetune; did you mean schedule.shape?"),
        ("linear]", "linea]", "input should be 'cosine', 'linear', 'one-cycle' or 'constant'"),
        ("linear]", "cosine]", "a choice is given twice"),
        ("[1, 2]", "[1, 0]", "input should be greater than or equal to 1 (got 0)"),
        ("epochs: {choices: [1, 2]}", "seed: {choices: [1, 2]}", "cannot be searched"),
        ("epochs:", "head_epochs:", "is not read by method full"),
        ("{choices: [1, 2]}", "{low: 1, high: 2}", "a grid needs choices, and space.epochs is"),
        ("{choices: [1, 2]}", "{low: 1}", "a range needs both low and high"),
        ("{choices: [1, 2]}", "{low: 2, high: 1}", "low should be below high"),
        ("{choices: [1, 2]}", "{low: 0, high: 1, log: true}", "low should be above 0"),
        ("{choices: [1, 2]}", "{choices: [1], log: true}", "log is for a range"),
        ("{choices: [1, 2]}", "{choices: [1], low: 1}", "give either choices, or low and high"),
        ("{choices: [1, 2]}", "{chioces: [1]}", "unknown key; did you mean choices?"),
        ("trials: 4", "trials: 3", "the grid has 4 combinations, and trials is 3"),
        ("trials:", "trails:", "unknown key; did you mean trials?"),
        ("pruner: none", "pruner: half", "input should be 'median', 'hyperband' or 'none'"),
    ],
)
def test_a_mistake_in_the_search_is_named_with_its_line(old, new, problem, project):
    text = project.read_text()
    assert old in text
    project.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load(str(project))
    first, *_ = str(caught.value).splitlines()[1:]
    assert problem in first
    number = int(first.split()[1].rstrip(":"))
    place = first.split(": ")[1]
    written = project.read_text().splitlines()[number - 1]
    assert place.startswith("finetune.search")
    assert any(part in written for part in place.split(".")), written


def test_a_range_takes_the_type_of_its_key(project):
    text = project.read_text().replace("grid", "random")
    project.write_text(text.replace("{choices: [1, 2]}", "{low: 1, high: 2.5}"))
    with pytest.raises(ConfigError, match=r"epochs\.high: input should be a valid integer"):
        load(str(project))
    project.write_text(text.replace("shape:\n        choices: [cosine, linear]", "shape: {low: 1}"))
    with pytest.raises(ConfigError, match="a range needs both"):
        load(str(project))
    project.write_text(text.replace("epochs: {choices: [1, 2]}", "compile: {low: 0, high: 1}"))
    with pytest.raises(ConfigError, match=r"space\.compile: takes no range: give it choices"):
        load(str(project))


def test_workers_are_as_many_as_the_search_wants(project):
    assert runners.workers_of(load(str(project))) == 1
    assert runners.workers_of(load(str(project), ["finetune.search.parallel=3"])) == 3
    few = ["finetune.search.parallel=9", "finetune.search.trials=4"]
    assert runners.workers_of(load(str(project), few)) == 4
    assert runners.workers_of(load(str(project), ["finetune.search=null"])) == 0


def test_a_project_without_a_search_cannot_be_tuned(toy_desk):
    done = toy_desk.tokiwa("tune", "toy.yaml", expect=2)
    assert "toy.yaml has no finetune.search" in done.stderr


# --- what a person sees


def trial(number: int, state: str, score: float | None, **more: object) -> dict[str, object]:
    values = {"learning_rate": 0.000123456, "schedule.shape": "[/b]"}
    known = {"number": number, "state": state, "score": score, "values": values}
    return {"metric": "macro_f1", "seconds": 1.26, "reason": "", **known, **more}


@pytest.fixture
def search_run(tmp_path):
    """A run that is in the middle of a search."""
    run = runners.Run("x", "tuning", tmp_path)
    step = runners.Step("search", "running", 0.0, tmp_path / "search.jsonl")
    step.trials = {
        1: trial(1, "failed", None, reason="out of [/b] memory"),
        0: trial(0, "complete", 0.91234),
        2: trial(2, "running", None, seconds=None),
    }
    run.steps["search"] = step
    return run


def test_each_finished_trial_is_told_once_in_plain_progress(search_run, capsys):
    with watching("search of toy", verbose=False) as watch:
        for _ in range(3):
            watch(search_run, None, "a line")
    failed, complete = sorted(capsys.readouterr().err.splitlines()[1:], reverse=True)
    rest = "learning_rate=0.0001235, schedule.shape=[/b], 1.3 s"
    assert failed == f"    trial 1   failed: {rest}, out of [/b] memory"
    assert complete == f"    trial 0   complete: valid macro f1 0.9123, {rest}"


def test_a_terminal_gets_a_table_of_trials(search_run, capsys, monkeypatch):
    for name, value in {
        "TTY_COMPATIBLE": "1",
        "TTY_INTERACTIVE": "0",
        "COLUMNS": "120",
        "TERM": "xterm",
    }.items():
        monkeypatch.setenv(name, value)
    with watching("search of toy", verbose=False) as watch:
        watch(search_run, None, "a line")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    header, *rows = [line.split() for line in shown.splitlines() if line][-4:]
    assert header[:5] == ["trial", "state", "valid", "macro", "f1"]
    assert [row[:3] for row in rows] == [
        ["0", "complete", "0.9123"],
        ["1", "failed", "–"],
        ["2", "running", "–"],
    ]


# --- a run


@pytest.mark.slow
@pytest.mark.e2e
def test_a_search_is_shown_carried_on_and_used_by_a_run(project, toy_desk):
    long = ("--set", "finetune.search.space.epochs.choices=[5, 6]")
    some = ("--window", "2026-01-05", "--set", "finetune.search.sampler=random", *long)
    first = toy_desk.json("tune", "toy.yaml", "--trials", "2", *some)
    assert len(first["trials"]) == 2
    assert first["trials"][0] == first["best"]
    assert toy_desk.trained() == 0, "no challenger was trained"

    done = toy_desk.tokiwa("tune", "toy.yaml", "--trials", "4", *some)
    before, after = toy_desk.executed().values()
    assert {"search", "choose"} <= before and {"search", "choose"} <= after
    assert "prepare" not in after, "what was prepared came from the cache"
    told = [line.split()[:3] for line in done.stderr.splitlines() if line.startswith("    trial")]
    assert sorted(word[1] for word in told) == ["0", "1", "2", "3"]
    head, tail = done.stdout.split("for the project file:\n")
    assert "valid macro f1" in head
    text, page = tail.split("report:")
    assert "Validation macro f1 by trial" in Path(page.strip()).read_text()
    best = yaml.safe_load(text)["finetune"]

    outcome = toy_desk.json("run", "toy.yaml", *some)
    assert outcome["result"] == "promoted"
    *_, ran = toy_desk.executed().values()
    assert "finetune" in ran
    assert not {"search", "choose"} & ran, "nothing was left to search"
    (bundle,) = toy_desk.home.glob("objects/bundles/*/bundle.json")
    recipe = json.loads(bundle.read_text())["recipe"]
    assert recipe["search"] is None
    assert recipe["epochs"] == best["epochs"]
    assert recipe["schedule"]["shape"] == best["schedule"]["shape"]


@pytest.mark.slow
@pytest.mark.e2e
def test_workers_share_a_search_within_one_graph(project, toy_desk):
    more = ("--set", "finetune.search.parallel=2", "--window", "2026-01-05")
    found = toy_desk.json("tune", "toy.yaml", *more)
    tried = [tuple(each["values"].values()) for each in found["trials"]]
    assert sorted(tried) == [(1, "cosine"), (1, "linear"), (2, "cosine"), (2, "linear")]
    assert {each["state"] for each in found["trials"]} == {"complete"}
    assert len({each.parent for each in toy_desk.home.glob("objects/studies/*/**/*.json")}) == 1
    (run,) = toy_desk.executed()
    lines = (toy_desk.home / "runs" / run / "search.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["event"] == "finished" for line in lines) == 2
