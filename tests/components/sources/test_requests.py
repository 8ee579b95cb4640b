from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.errors import ConfigError
from components.request_log import COLUMNS, Feedback, RequestLog, new_file, row_id
from components.sources import open_source, parse_source
from components.store import LocalStore
from components.windows import ALL_TIME

NOW = datetime(2026, 1, 6, tzinfo=UTC)


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKIWA_STORE", str(tmp_path / "objects"))
    return RequestLog(LocalStore(tmp_path / "objects"), "projects/demo")


def ask(log, *texts, at=NOW):
    file = new_file(at)
    rows = [
        {"id": row_id(f"{file}-{number}", 0), "time": at.isoformat(), "text": text, "answer": "y"}
        for number, text in enumerate(texts)
    ]
    log.write(file, [dict.fromkeys(COLUMNS) | row for row in rows])
    return file


def opened(store=None, **section):
    given = {"kind": "requests", "ledger": "projects/demo", **section}
    return open_source(parse_source(json.dumps(given)), store)


def rows(source):
    frame = source.read(ALL_TIME).frame
    return dict(zip(frame["text"], frame["label"], strict=True))


def test_what_was_asked_gets_the_labels_that_came_later(log, tmp_path):
    store = LocalStore(tmp_path / "kept")
    first = ask(log, "a", "b")
    ask(log, "c", at=NOW + timedelta(hours=1))
    assert rows(opened(store)) == {"a": None, "b": None, "c": None}
    before = opened(store).facts(ALL_TIME)
    log.add_feedback([Feedback(request_id=f"{first}-1", label="x")], NOW)
    assert rows(opened(store)) == {"a": None, "b": "x", "c": None}
    after = opened(store).facts(ALL_TIME)
    assert after.fingerprint != before.fingerprint
    assert after.contents == before.contents


def test_answers_may_be_metadata_and_contents_may_be_withheld(log):
    ask(log, "a", None)
    columns: dict[str, Any] = {"id": "id", "time": "time"}
    with pytest.raises(ValueError, match="answer"):
        opened(columns=columns | {"metadata": {"answer_": {"column": "answer"}}})
    columns["metadata"] = {"said": {"column": "answer"}}
    frame = opened(columns=columns).read(ALL_TIME).frame
    said = [{"text": "a", "said": "y"}, {"text": None, "said": "y"}]
    assert frame[["text", "said"]].to_dict("records") == said


def test_a_log_without_requests_has_no_rows_and_one_without_a_name_is_refused(log):
    assert rows(opened()) == {}
    with pytest.raises(ConfigError, match=r"source\.ledger is empty"):
        opened(ledger="").read(ALL_TIME)
