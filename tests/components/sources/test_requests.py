from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from components.request_log import COLUMNS, Feedback, RequestLog, new_file, row_id
from components.sources import open_source, parse_source
from components.store import LocalStore
from components.windows import ALL_TIME, Window

MONDAY = datetime(2026, 11, 16, 10, tzinfo=UTC)
WEEK = timedelta(days=7)


def kept(log, at, *texts):
    """Keep requests of one moment; return their ids."""
    file = new_file(at)
    rows = [
        dict.fromkeys(COLUMNS)
        | {
            "id": row_id(f"{file}-{number}", 0),
            "time": (at + timedelta(seconds=number)).isoformat(),
            "text": text,
            "version": "7",
        }
        for number, text in enumerate(texts)
    ]
    log.write(file, rows)
    return [f"{file}-{number}" for number in range(len(texts))]


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKIWA_STORE", str(tmp_path / "objects"))
    return RequestLog(LocalStore(tmp_path / "objects"), "projects/demo")


def source(store=None, more=""):
    return open_source(parse_source(f'{{"kind": "requests", "of": "projects/demo"{more}}}'), store)


def week_of(moment):
    return Window.of_days(moment.date(), 7, ZoneInfo("UTC"))


def test_what_production_was_asked_is_a_source_with_the_labels_that_came(log):
    first = kept(log, MONDAY, "good", "bad")
    kept(log, MONDAY + WEEK, "dull")
    log.add_feedback([Feedback(request_id=first[1], label="negative")], MONDAY + WEEK)
    frame = source().read(week_of(MONDAY)).frame
    assert frame["text"].tolist() == ["good", "bad"]
    assert frame["label"].tolist() == [None, "negative"]
    assert frame["id"].tolist() == [row_id(each, 0) for each in first]
    assert len(source().read(ALL_TIME).frame) == 3
    first_time, last_time = source().span()
    assert first_time.startswith("2026-11-16T10") and last_time.startswith("2026-11-23T10")


def test_a_label_that_comes_later_makes_another_window_of_it(log, tmp_path):
    store = LocalStore(tmp_path / "objects")
    (asked,) = kept(log, MONDAY, "good")
    before = source(store).facts(week_of(MONDAY))
    assert source(store).facts(week_of(MONDAY)) == before
    log.add_feedback([Feedback(request_id=asked, label="positive")], MONDAY + WEEK)
    after = source(store).facts(week_of(MONDAY))
    assert after.contents == before.contents
    assert after.fingerprint != before.fingerprint
    assert source(store).read(week_of(MONDAY)).frame["label"].tolist() == ["positive"]


def test_nothing_asked_yet_is_no_row(log):
    assert source().read(ALL_TIME).frame.empty


def test_further_columns_travel(log):
    kept(log, MONDAY, "good")
    columns = ', "columns": {"id": "id", "time": "time", "metadata": ["version"]}'
    assert source(more=columns).read(ALL_TIME).frame["version"].tolist() == ["7"]


def test_a_request_whose_text_was_not_kept_is_no_content(log):
    kept(log, MONDAY, None, "good")
    assert source().read(ALL_TIME).frame["text"].tolist() == [None, "good"]
