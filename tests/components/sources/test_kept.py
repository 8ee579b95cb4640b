from __future__ import annotations

import json
import os
from datetime import date
from zoneinfo import ZoneInfo

import pytest

from components.errors import ConfigError, SourceError
from components.sources import files, reading
from components.sources.files import ColumnNames, FilesConfig, FilesSource, Part
from components.sources.reading import refuse_store
from components.store import LocalStore
from components.windows import ALL_TIME, Window

DAYS = [Window.of_days(date(2026, 1, day), 1, ZoneInfo("UTC")) for day in (5, 6, 7)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of files, a store that keeps what was read, and a count of what is read."""
    (tmp_path / "data").mkdir()
    return Place(tmp_path, monkeypatch)


class Bucket:
    """A store whose objects are files that nobody can open but through it."""

    def __init__(self, store):
        self.within = store

    def __getattr__(self, name):
        return getattr(self.within, name)

    def local_path(self, key):
        return None


class Place:
    def __init__(self, folder, monkeypatch):
        self.data, self.store = folder / "data", LocalStore(folder / "objects")
        self.read: list[str] = []
        original = files.read_file

        def noticed(path, form, wanted):
            self.read.append(path.name)
            return original(path, form, wanted)

        monkeypatch.setattr(files, "read_file", noticed)

    def write(self, name, *rows):
        lines = "".join(f"{text},x,{day}\n" for text, day in rows)
        (self.data / name).write_text(f"text,label,when\n{lines}")
        # Long ago, as files are that nobody writes to any more.
        os.utime(self.data / name, (1.7e9, 1.7e9))

    def open(self, **config):
        part = Part(path="*.csv")
        columns = ColumnNames(time="when")
        return FilesSource(
            FilesConfig(root=str(self.data), files=[part], columns=columns, **config), self.store
        )


def test_only_what_is_new_is_read(place):
    place.write("a.csv", ("one", "2026-01-05"))
    first = place.open().facts(DAYS[0])
    assert place.read == ["a.csv"]
    place.write("b.csv", ("two", "2026-01-06"))
    opened = place.open()
    assert opened.facts(DAYS[0]) == first
    assert opened.read(DAYS[1]).frame["text"].tolist() == ["two"]
    assert place.read == ["a.csv", "b.csv"]
    assert place.open().read(ALL_TIME).frame["text"].tolist() == ["one", "two"]
    assert place.read == ["a.csv", "b.csv"]


def test_what_is_known_of_a_window_is_not_computed_twice(place, monkeypatch):
    place.write("a.csv", ("one", "2026-01-05"))
    facts = place.open().facts(DAYS[0])
    monkeypatch.setattr(FilesSource, "table", None)
    assert place.open().facts(DAYS[0]) == facts


@pytest.mark.parametrize("rows", [[("two", "2026-01-05")], [], [("one", "2026-01-06")]])
def test_any_change_of_a_file_is_seen(place, rows):
    place.write("a.csv", ("one", "2026-01-05"))
    before = place.open().facts(DAYS[0])
    place.write("a.csv", *rows)
    assert place.open().facts(DAYS[0]) != before
    assert place.open().read(ALL_TIME).frame["text"].tolist() == [text for text, _ in rows]


def test_a_change_of_the_same_size_right_after_reading_is_seen(place):
    path = place.data / "a.csv"
    path.write_text("text,label,when\none,x,2026-01-05\n")
    known = path.stat()
    before = place.open().facts(DAYS[0])
    path.write_text("text,label,when\ntwo,x,2026-01-05\n")
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert place.open().facts(DAYS[0]) != before


def test_rows_that_come_late_change_their_window_and_no_other(place):
    place.write("a.csv", ("one", "2026-01-05"), ("two", "2026-01-06"))
    before = [place.open().facts(day) for day in DAYS]
    place.write("late.csv", ("late", "2026-01-06"))
    after = [place.open().facts(day) for day in DAYS]
    assert [now == then for now, then in zip(after, before, strict=True)] == [True, False, True]
    assert after[1].rows == 2


def test_a_file_that_is_gone_takes_its_rows_with_it(place):
    place.write("a.csv", ("one", "2026-01-05"))
    place.write("b.csv", ("two", "2026-01-05"))
    assert place.open().facts(DAYS[0]).rows == 2
    (place.data / "a.csv").unlink()
    assert place.open().read(DAYS[0]).frame["text"].tolist() == ["two"]


def test_a_file_is_read_anew_where_it_is_read_otherwise(place):
    place.write("a.csv", ("one", "2026-01-05"))
    place.open().facts(ALL_TIME)
    opened = place.open(timezone="Asia/Tokyo")
    assert opened.read(ALL_TIME).frame["time"].tolist() == ["2026-01-04T15:00:00+00:00"]
    assert place.read == ["a.csv", "a.csv"]
    assert place.open(max_rows_per_window=1).read(ALL_TIME).frame["text"].tolist() == ["one"]
    assert place.read == ["a.csv", "a.csv"]


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_what_was_kept_and_is_lost_is_read_again(place, damage):
    place.write("a.csv", ("one", "2026-01-05"))
    place.open().facts(ALL_TIME)
    [rows] = [
        path
        for path in (place.store.root / "sources").rglob("*.parquet")
        if "unreadable" not in path.name
    ]
    rows.unlink() if damage == "deleted" else os.truncate(rows, 10)
    assert place.open().read(ALL_TIME).frame["text"].tolist() == ["one"]
    assert place.read == ["a.csv", "a.csv"]


@pytest.mark.parametrize("suffix", [".parquet", ".unreadable.parquet"])
def test_what_a_bucket_let_go_is_read_again(place, suffix):
    place.store = Bucket(place.store)
    place.write("a.csv", ("one", "2026-01-05"))
    place.open().facts(ALL_TIME)
    [manifest] = [
        path
        for path in (place.store.root / "sources").glob("*/*.json")
        if path.parent.name != "facts"
    ]
    manifest.with_suffix(suffix).unlink()
    assert place.open().read(ALL_TIME).frame["text"].tolist() == ["one"]
    assert place.open().unreadable(ALL_TIME).num_rows == 0
    assert place.read == ["a.csv", "a.csv"]


def test_a_file_that_goes_right_after_it_was_listed_is_none(place, monkeypatch):
    place.write("a.csv", ("one", "2026-01-05"))
    place.write("part.csv", ("one", "2026-01-05"))
    original = files._version

    def gone(path, tree):
        if path.name == "part.csv":
            path.unlink(missing_ok=True)  # its writer gave it its name
        return original(path, tree)

    monkeypatch.setattr(files, "_version", gone)
    assert place.open().read(ALL_TIME).frame["text"].tolist() == ["one"]


def test_a_file_that_changes_once_while_it_is_read_is_read_again(place, monkeypatch):
    place.write("a.csv", ("one", "2026-01-05"))
    original, changes = files.read_file, iter([[("two", "2026-01-05")]])

    def changing(path, form, wanted):
        yield from original(path, form, wanted)
        for rows in changes:
            place.write("a.csv", *rows, *rows)
            break

    monkeypatch.setattr(files, "read_file", changing)
    monkeypatch.setattr(reading, "PAUSE_S", 0)
    assert place.open().read(ALL_TIME).frame["text"].tolist() == ["two", "two"]


def test_a_file_that_never_stops_changing_is_refused(place, monkeypatch):
    place.write("a.csv", ("one", "2026-01-05"))
    original = files.read_file

    def changing(path, form, wanted):
        yield from original(path, form, wanted)
        with path.open("a") as file:
            file.write("more,x,2026-01-05\n")

    monkeypatch.setattr(files, "read_file", changing)
    monkeypatch.setattr(reading, "PAUSE_S", 0)
    with pytest.raises(SourceError, match=r"a\.csv keeps changing while it is read"):
        place.open().read(ALL_TIME)


def test_many_small_files_are_read_side_by_side_in_one_order(place):
    for number in range(150):
        place.write(f"{number:03}.csv", (f"text {number}", "2026-01-05"), ("same", "2026-01-06"))
    frame = place.open().read(DAYS[0]).frame
    again = FilesSource(place.open()._config).read(DAYS[0]).frame
    assert len(frame) == 150
    assert frame.equals(again)


def test_rows_with_no_time_around_are_shown_on_request(place):
    place.write("a.csv", ("one", "2026-01-05"), ("two", "soon"))
    (place.data / "b.csv").write_text("text,label,when\nthree,x,never\n")
    opened = place.open()
    texts = [json.loads(row["raw"])["text"] for row in opened.unreadable(DAYS[0]).to_pylist()]
    assert texts == ["two"]
    assert opened.unreadable(DAYS[1]).num_rows == 0
    assert opened.unreadable(DAYS[1], with_undated=True).num_rows == 1


def test_rows_stay_in_the_stores_that_a_project_pins(place):
    place.write("a.csv", ("one", "2026-01-05"))
    here = place.store.root.as_uri()
    assert place.open(stores=[f"{here}/*"]).facts(ALL_TIME).rows == 1
    with pytest.raises(ConfigError, match=r"may not be written to .*source.stores allows s3://eu"):
        place.open(stores=["s3://eu-*"])


@pytest.mark.parametrize("address", ["s3://eu/sources", "s3://eu-2/x/sources"])
def test_a_pattern_of_stores_matches_the_whole_address(address):
    with pytest.raises(ConfigError, match="set TOKIWA_STORE"):
        refuse_store(address, ["s3://eu-1/*", "s3://e?/y/*"])
    refuse_store(address, ["s3://eu*"])
