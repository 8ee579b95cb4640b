"""Labels by people: out to annotation tools and back, with a tiny real champion."""

from __future__ import annotations

import json

import pytest

from components import bundle, home
from components.labels import Labels
from components.ledger import Ledger
from components.resolve.core import known_windows
from components.sources import open_source
from pipelines.cli import main
from pipelines.project_file import load

PROJECT = """\
name: demo
task: {{kind: text-classification, labels: [negative, positive], max_tokens: 16}}
source:
  kind: files
  files: [{{path: rows.csv}}]
  columns: {{id: id, text: text, label: label, time: day}}
resolve: {{timezone: UTC, window_days: 7, start: 2026-01-05}}
finetune: {{base: {base}}}
"""


@pytest.fixture
def desk(tmp_path, tiny_base, make_bundle, monkeypatch):
    """A project whose second week has no labels but one, and its champion."""
    for name in ("TOKIWA_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    lines = ["id,text,label,day"]
    for number in range(40):
        label = ("positive", "negative")[number % 2] if number <= 20 else ""
        day = "2026-01-06" if number < 20 else "2026-01-13"
        lines.append(f"r{number},the film was good {number},{label},{day}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "demo.yaml").write_text(PROJECT.format(base=tiny_base))
    return tmp_path


@pytest.fixture
def champion(desk, make_bundle):
    digest = bundle.publish(home.store(), make_bundle(1))
    Ledger(home.store(), "projects/demo").append(
        action="adopt", bundle=digest, key="k", by="a test", reason="", expected=0
    )
    return digest


@pytest.fixture
def tokiwa(capsys):
    def run(*words):
        capsys.readouterr()
        code = main(words)
        return code, *capsys.readouterr()

    return run


def answer(path, who, labels):
    """Write what an annotator says to the rows of a file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, label in zip(lines, labels, strict=True):
        line |= {"label": [label], "annotator": who}
    path.with_name(f"{who}.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_labels_go_out_and_come_back_and_are_trained_on(desk, champion, tokiwa):
    code, out, err = tokiwa("label", "export", "demo.yaml", "--rows", "4", "--out", "ask.jsonl")
    assert (code, err.splitlines()[:0]) == (0, [])
    assert "the 4 most telling of 19 rows without a label in window 2026-01-12" in out
    asked = [json.loads(line) for line in (desk / "ask.jsonl").read_text().splitlines()]
    assert len({each["row"] for each in asked}) == 4
    assert {each["window"] for each in asked} == {"2026-01-12"}
    assert all(each["answer"] in ("positive", "negative") for each in asked)

    answer(desk / "ask.jsonl", "ann", ["positive", "positive", "negative", "strange"])
    answer(desk / "ask.jsonl", "bob", ["positive", "negative", "negative", "positive"])
    code, out, err = tokiwa("label", "import", "demo.yaml", "ann.jsonl", "bob.jsonl")
    assert (code, err) == (0, "")
    assert "8 labels in 2 files: 7 kept, 0 of them said before" in out
    assert "labels that the task does not know: 'strange' 1" in out
    assert "3 rows have a label by people now, 0 of them by a majority; 1 have none" in out
    assert "ann, bob" in out and "67%" in out and "0.40" in out
    assert f"{asked[1]['row']}" in out and "ann: positive, bob: negative" in out

    # From now on the source gives these labels, and only these.
    config = load("demo.yaml")
    _, second = known_windows(config.resolve, home_now())[:2]
    frame = open_source(config.source).read(second).frame.set_index("id")["label"]
    given = {asked[0]["row"]: "positive", asked[2]["row"]: "negative", asked[3]["row"]: "positive"}
    assert frame.dropna().to_dict() == {"r20": "positive", **given}
    assert Labels(home.store(), config.ledger).rows_in("2026-01-12") == 3

    # Again: said before. And what has a label is not asked about again.
    _, out, _ = tokiwa("label", "import", "demo.yaml", "bob.jsonl", "--json")
    again = json.loads(out)
    assert (again["repeated"], again["changed"], again["labelled_rows"]) == (4, 0, 3)
    _, out, _ = tokiwa("label", "export", "demo.yaml", "--out", "more.jsonl", "--json")
    assert json.loads(out)["rows"] == 16


def test_a_label_of_the_source_that_the_task_does_not_know_is_nothing_to_ask_about(
    desk, champion, tokiwa
):
    path = desk / "rows.csv"
    path.write_text(path.read_text().replace(",,2026-01-13", ",Positive,2026-01-13"))
    code, _, err = tokiwa("label", "export", "demo.yaml", "--out", "ask.jsonl")
    assert code == 2
    assert "every row of window 2026-01-12 has a label; 19 have one that the task does not" in err
    assert not (desk / "ask.jsonl").exists()


def home_now():
    from datetime import UTC, datetime

    return datetime(2026, 6, 1, tzinfo=UTC)


def test_the_source_outweighs_people(desk, tokiwa):
    lines = [
        {"row": "r20", "label": ["positive"]},
        {"row": "r1", "label": ["positive"]},
        {"row": "nobody", "label": ["positive"]},
        {"row": "r30", "label": []},
    ]
    (desk / "ann.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, out, _ = tokiwa("label", "import", "demo.yaml", "ann.jsonl", "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["words"], report["annotations"], report["lines_without_label"]) == (3, 0, 1)
    assert (report["known_to_source"], report["unknown_rows"]) == (1, ["nobody"])
    assert report["against_source"] == [
        {"row": "r1", "said": {"the source": "negative", "ann": "positive"}}
    ]
    _, out, _ = tokiwa("label", "import", "demo.yaml", "ann.jsonl")
    assert "1 are the same, 1 contradict" in out
    assert "1 are about rows that are in no window: nobody" in out


def test_what_cannot_be_asked_or_read_is_said_in_a_sentence(desk, tokiwa, make_bundle):
    (desk / "bad.jsonl").write_text('{"row": "r1"\n')
    code, _, err = tokiwa("label", "import", "demo.yaml", "bad.jsonl")
    assert code == 2 and "line 1: is not JSON" in err
    code, _, err = tokiwa("label", "export", "demo.yaml")
    assert code == 1 and "train one: tokiwa run demo.yaml" in err
    code, _, err = tokiwa("label", "export", "demo.yaml", "--out", "nowhere/x.jsonl")
    assert code == 2 and "there is no folder nowhere" in err


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (
            [{"row": "x1", "label": ["positive"]}, {"row": "r30", "label": ["strange"]}],
            "1 are about rows that are in no window of demo, such as 'x1'",
        ),
        (
            [{"row": "r30", "label": ["strange"]}],
            "1 are labels that the task does not know, such as 'strange': it knows negative, p",
        ),
        ([{"row": "r30", "label": []}], "there is none on any of 1 lines"),
    ],
)
def test_files_of_which_no_label_can_be_kept_are_refused(desk, tokiwa, lines, why):
    (desk / "ann.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, _, err = tokiwa("label", "import", "demo.yaml", "ann.jsonl")
    assert code == 2
    assert "no label of ann.jsonl can be kept" in err and why in " ".join(err.split())
    assert not Labels(home.store(), load("demo.yaml").ledger).all()


def test_a_window_in_which_every_row_has_a_label_has_none_to_ask(desk, champion, tokiwa):
    code, _, err = tokiwa("label", "export", "demo.yaml", "--window", "2026-01-05")
    assert code == 2 and "every row of window 2026-01-05 has a label" in err
