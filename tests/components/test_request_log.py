from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from components.errors import SourceError
from components.request_log import COLUMNS, Feedback, RequestLog, file_of, new_file, row_id

START = datetime(2026, 11, 22, 1, 30, tzinfo=UTC)


def rows(file, count, at=START):
    made = []
    for number in range(count):
        request = f"{file}-{number}"
        about = {"id": row_id(request, 0), "request_id": request, "row": 0, "text": f"t{number}"}
        made.append(dict.fromkeys(COLUMNS) | about | {"time": at.isoformat()})
    return made


def test_what_was_written_is_read_with_the_last_label(store):
    log, file = RequestLog(store, "p"), new_file(START)
    log.write(file, rows(file, 3))
    first, second = f"{file}-0", f"{file}-1"
    log.add_feedback([Feedback(request_id=first, label="good")], START)
    log.add_feedback([Feedback(request_id=first, label="good")], START + timedelta(days=1))
    log.add_feedback([Feedback(request_id=second, label="good")], START + timedelta(days=2))
    log.add_feedback([Feedback(request_id=second, label="bad")], START + timedelta(days=3))
    frame = log.read(START, START + timedelta(hours=1))
    assert frame["text"].tolist() == ["t0", "t1", "t2"]
    assert frame["label"].tolist() == ["good", "bad", None]
    assert list(frame) == [*COLUMNS, "label"]
    assert log.rows_of(file) == {f"{file}-{number}.0" for number in range(3)}


def test_labels_of_rows_are_withdrawn_and_no_others(store):
    log, file = RequestLog(store, "p"), new_file(START)
    log.write(file, rows(file, 3))
    labels = [Feedback(request_id=f"{file}-{number}", label="good") for number in range(3)]
    log.add_feedback(labels[:2], START)
    log.add_feedback(labels[1:], START + timedelta(days=1))
    assert log.withdraw({row_id(f"{file}-1", 0), "nobody"}) == 2
    assert set(log.feedback()) == {row_id(f"{file}-{number}", 0) for number in (0, 2)}
    assert log.withdraw({row_id(f"{file}-1", 0)}) == 0


def test_a_file_of_which_everything_is_forgotten_stands_in_nobodys_way(store):
    log, (gone, there) = RequestLog(store, "p"), (new_file(START), new_file(START))
    log.write(gone, [])
    log.write(there, rows(there, 2))
    assert log.read(START, START + timedelta(hours=1))["text"].tolist() == ["t0", "t1"]
    assert log.rows_of(gone) == frozenset()


def test_a_window_is_half_open_and_looks_into_files_that_began_before(store):
    log, file = RequestLog(store), new_file(START)
    later = START + timedelta(minutes=30)
    log.write(file, [*rows(file, 1), *rows(file, 2, later)[1:]])
    assert log.read(later, later + timedelta(minutes=1))["text"].tolist() == ["t1"]
    assert log.read(START, later)["text"].tolist() == ["t0"]
    assert log.read(later + timedelta(hours=3), later + timedelta(hours=4)).empty


def test_the_last_requests_of_a_file_that_took_an_hour_are_found(store):
    log, file = RequestLog(store), new_file(START)
    last = START + timedelta(seconds=3601)  # servers look at the clock once a second
    log.write(file, rows(file, 1, last))
    assert log.read(last, last + timedelta(minutes=1))["text"].tolist() == ["t0"]


def test_ids_lead_to_their_file():
    file = new_file(START)
    assert file_of(f"{file}-17") == file
    assert file != new_file(START)
    for wrong in ("", file, f"{file}-x", f"../{file}-1", f"{file}-1\n"):
        assert file_of(wrong) is None


def test_a_file_that_is_not_there_has_no_rows(store):
    assert RequestLog(store).rows_of(new_file(START)) == frozenset()


def test_damaged_objects_are_told(store):
    log, file = RequestLog(store, "p"), new_file(START)
    store.put(f"p/requests/{file}.parquet", b"nonsense")
    with pytest.raises(SourceError, match="holds no requests"):
        log.read(START, START + timedelta(hours=1))
    store.put(f"p/feedback/{file}.json", b"{}")
    with pytest.raises(SourceError, match="holds no labels"):
        log.feedback()
    store.put(f"p/feedback/{file}.json", b'{"schema_version": 2, "at": "then", "label": {}}')
    with pytest.raises(SourceError, match=r"newer Tokiwa \(schema 2\); upgrade to read it"):
        log.feedback()
