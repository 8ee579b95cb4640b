"""Does a head learn between retrains, serve when it has won, and leave when it has lost?"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components import bundle, home
from components.freeze import Freezes
from components.ledger import Entry, Ledger
from components.online.head import Head
from components.online.kept import KeptHead
from components.sources import open_source
from components.split import is_test
from components.windows import ALL_TIME
from pipelines.cli import main
from pipelines.project_file import load

PROJECT = """\
name: demo
task: {{kind: text-classification, labels: [negative, positive], max_tokens: 16}}
source:
  kind: files
  files: [{{path: rows.jsonl}}]
  columns: {{id: id, text: text, label: label, time: time}}
resolve: {{timezone: UTC, window_days: 7, start: 2026-01-05}}
finetune: {{base: "{base}"}}
online: {{publish_rows: 300}}
"""


@dataclass
class Stream:
    """A project with a champion of the first week, to which labels come."""

    file: Path
    run: Callable[..., tuple[int, str, str]]
    rows: int = 0

    def labels(self, rows: int, *, turned: bool) -> None:
        """Let labels of the second week come; turned ones call good what was bad."""
        draw = random.Random(self.rows)
        with self.file.open("a") as file:
            for _ in range(rows):
                self.rows += 1
                words = draw.choices(("the", "a", "film", "story", "was", "very", "and"), k=6)
                sign = draw.choice(("good", "bad"))
                words[draw.randrange(6)] = sign
                minute = f"{self.rows // 60:02d}:{self.rows % 60:02d}"
                row = {
                    "id": f"new-{self.rows}",
                    "time": f"2026-01-13T{minute}:00Z",
                    "text": f"{' '.join(words)} {self.rows}",
                    "label": "positive" if (sign == "good") != turned else "negative",
                }
                file.write(json.dumps(row) + "\n")

    def look(self) -> dict[str, Any]:
        code, out, err = self.run("online", "demo.yaml", "--json")
        assert (code, err) == (0, "")
        found: dict[str, Any] = json.loads(out)
        return found


@pytest.fixture
def stream(tmp_path, monkeypatch, capsys, toy_champion, tiny_base):
    for name in ("TOKIWA_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.yaml").write_text(PROJECT.format(base=tiny_base))
    digest = bundle.publish(home.store(), toy_champion)
    registry = home.registry("demo")
    version = registry.register(digest, home.store().uri(bundle.key_of(digest)), None, {})
    ledger = Ledger(home.store(), "projects/demo")
    said: dict[str, Any] = {
        "key": "first",
        "by": "a test",
        "reason": "it is the first",
        "expected": 0,
    }
    ledger.append(action="adopt", bundle=digest, version=version, **said)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(words)
        return code, *capsys.readouterr()

    found = Stream(tmp_path / "rows.jsonl", run)
    found.labels(5, turned=False)
    return found


def _ledger() -> Ledger:
    return Ledger(home.store(), "projects/demo")


def _head() -> Entry:
    head = _ledger().head()
    assert head is not None
    return head


def test_labels_as_ever_change_nothing_and_are_seen_once(stream):
    stream.labels(295, turned=False)
    report = stream.look()
    assert (report["new_rows"], report["rows"], report["serves"]) == (300, 300, False)
    assert stream.look()["new_rows"] == 0
    assert _ledger().generation == 1
    assert "the champion serves" in stream.run("online", "demo.yaml")[1]


def test_a_head_serves_after_the_concept_turned_and_the_champion_after_it_turned_back(stream):
    stream.labels(600, turned=True)
    report = stream.look()
    assert report["serves"] is True
    assert report["served_error"] < report["champion_error"]
    head = _head()
    assert (head.action, head.version, head.by) == ("promote", "2", "tokiwa online")
    served = bundle.describe(bundle.fetch(home.store(), head.bundle))
    assert served.lineage["online_of"] == _ledger().entries()[0].bundle
    assert served.lineage["window_end"] > "2026-01-13"
    code, out, _ = stream.run("predict", "demo.yaml", "a film was good and very", "--json")
    assert (code, json.loads(out)["predictions"][0]["label"]) == (0, "negative")
    # So few labels more that nothing is published anew.
    stream.labels(10, turned=True)
    assert stream.look()["act"] == ""
    assert _ledger().generation == 2
    stream.labels(400, turned=True)
    report = stream.look()
    assert "version 3 serves" in report["act"], report
    # At first the head is wrong in each record, and the champion in none.
    stream.labels(40, turned=False)
    report = stream.look()
    assert report["serves"] is False
    assert _head().bundle == _ledger().entries()[0].bundle
    assert (_head().action, _head().version) == ("rollback", "1")


def test_test_rows_are_answered_and_never_learnt(stream):
    stream.labels(300, turned=True)
    stream.look()
    frame = open_source(load("demo.yaml").source).read(ALL_TIME).frame
    learnable = int((~is_test(frame["group"])).sum())
    weights = np.zeros((2, 1))
    served = _ledger().entries()[0].bundle
    kept = KeptHead(home.store(), "projects/demo", served).last(Head(weights, weights[:, 0]))
    assert kept.progress.rows == len(frame) == 305
    assert kept.progress.learnt == learnable < 305


def test_a_person_who_rolls_back_makes_the_head_prove_itself_again(stream):
    stream.labels(600, turned=True)
    assert stream.look()["serves"] is True
    first, last = _ledger().entries()[0], _head()
    said: dict[str, Any] = {
        "key": "by hand",
        "by": "a person",
        "reason": "no",
        "expected": last.number,
    }
    _ledger().append(action="rollback", bundle=first.bundle, version="1", **said)
    report = stream.look()
    assert (report["serves"], report["act"]) == (False, "")
    stream.labels(150, turned=True)
    assert stream.look()["serves"] is True
    assert _head().action == "promote"


def test_a_frozen_project_keeps_its_champion(stream):
    stream.labels(600, turned=True)
    code, _, _ = stream.run("freeze", "demo.yaml", "--reason", "an audit")
    assert code == 0
    report = stream.look()
    assert report["serves"] is True
    assert "frozen" in report["held_back"]
    assert _ledger().generation == 1
    assert Freezes(home.store(), "projects/demo").state() is not None
    stream.run("thaw", "demo.yaml", "--reason", "done")
    assert "version 2 serves" in stream.look()["act"]


def test_without_a_champion_it_says_what_to_do(stream, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path / "other"))
    code, _, err = stream.run("online", "demo.yaml")
    assert code == 1
    assert "train one: tokiwa run demo.yaml" in err


def test_who_is_forgotten_is_not_learnt_from(stream):
    stream.labels(20, turned=False)
    assert stream.run("forget", "demo.yaml", "--id", "new-3", "--reason", "asked for")[0] == 0
    assert stream.look()["new_rows"] == 24


def test_a_head_that_learnt_from_who_is_forgotten_begins_anew_without_them(stream):
    stream.labels(600, turned=True)
    assert stream.look()["serves"] is True
    served = _ledger().entries()[-1]
    test = open_source(load("demo.yaml").source).read(ALL_TIME).frame
    test = test[is_test(test["group"])]["id"].tolist()
    taught = [name for name in ("new-3", "new-4", "new-5") if name not in test]
    flags = [flag for name in (*taught, test[0]) for flag in ("--id", name)]
    said = ("forget", "demo.yaml", *flags, "--reason", "asked for")
    code, out, _ = stream.run(*said, "--dry-run", "--json")
    (head,) = json.loads(out)["heads"]
    assert (code, head["rows"], head["versions"]) == (0, len(taught), [served.version])
    assert head["champion"] == _ledger().entries()[0].bundle
    assert stream.look()["new_rows"] == 0
    told = stream.run(*said)[1]
    assert f"learnt from {len(taught)} of the rows; version {served.version} carries it" in told
    again = stream.look()
    # Five rows are those of the champion's own week.
    assert again["new_rows"] == 605 - len(taught) - 1
    assert again["serves"] is True
    assert _head().bundle != served.bundle
    assert json.loads(stream.run(*said, "--dry-run", "--json")[1])["heads"] == []
