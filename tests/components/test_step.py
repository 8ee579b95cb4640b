from __future__ import annotations

import json
import time

import pytest

from components import step
from components.errors import ConfigError, SourceError
from components.settings import Section


class Report(Section):
    rows: int

    @property
    def headline(self) -> str:
        return f"{self.rows} 行"


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_step_says_when_it_starts_and_when_it_is_through(capsys, monkeypatch):
    monkeypatch.setenv("TOKIWA_RUN", "run-7")
    with step.running("ingest"):
        pass
    started, finished = lines(capsys)
    assert (started["event"], finished["event"]) == ("started", "finished")
    assert {line["step"] for line in (started, finished)} == {"ingest"}
    assert {line["run"] for line in (started, finished)} == {"run-7"}
    assert started["at"] <= finished["at"]
    assert started["tokiwa"] == 1


@pytest.mark.parametrize(("error", "code"), [(SourceError, 1), (ConfigError, 2)])
def test_an_expected_error_is_one_line_and_its_exit_code(capsys, error, code):
    with pytest.raises(SystemExit) as exit_, step.running("ingest"):
        raise error("rows.csv\nis gone")
    assert exit_.value.code == code
    *_, failed = lines(capsys)
    assert failed["event"] == "failed"
    assert failed["error"] == "rows.csv\nis gone"
    assert failed["exit_code"] == code


def test_a_bug_keeps_its_traceback(capsys):
    with pytest.raises(SystemExit) as exit_, step.running("ingest"):
        raise KeyError("no such key")
    assert exit_.value.code == 1
    printed = capsys.readouterr().out.splitlines()
    assert any("Traceback" in line for line in printed)
    failed = json.loads(printed[-1])
    assert failed["event"] == "failed"
    assert failed["error"] == "KeyError: 'no such key'"


def test_an_interrupted_step_is_not_called_a_bug(capsys):
    with pytest.raises(KeyboardInterrupt), step.running("ingest"):
        raise KeyboardInterrupt
    assert [line["event"] for line in lines(capsys)] == ["started"]


def test_progress_is_said_at_most_twice_a_second_and_always_at_the_end(capsys, monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    log = step.Log("finetune")
    for done in range(1, 101):
        now_s += 0.1
        log.progress(done, 100, "steps")
    said = [line["done"] for line in lines(capsys)]
    assert said[-1] == 100
    assert len(said) <= 22
    assert len(said) >= 16


def test_a_report_is_handed_over_with_its_headline(capsys, tmp_path):
    path = tmp_path / "report"
    step.Log("ingest").hand_over(Report(rows=3), str(path))
    assert json.loads(path.read_text()) == {"headline": "3 行", "rows": 3}
    (line,) = lines(capsys)
    assert (line["event"], line["text"], line["report"]) == ("headline", "3 行", str(path))


def test_metadata_becomes_sorted_json():
    assert json.loads(step.as_json({"b": 1, "a": {"c": 0.5}})) == {"a": {"c": 0.5}, "b": 1}
    assert step.as_json({"b": 1, "a": 2}) == step.as_json({"a": 2, "b": 1})
