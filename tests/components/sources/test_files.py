from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
from datetime import date
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from components.errors import ConfigError, MissingPackage, SourceError
from components.sources.files import ColumnNames, FilesConfig, FilesSource, Part, separator_of
from components.sources.rows import COLUMNS, Rows, fingerprint
from components.split import content_digest
from components.tasks.image_classification import decode
from components.windows import ALL_TIME, Window

WEEK = Window.of_days(date(2026, 1, 5), 7, ZoneInfo("UTC"))


@pytest.fixture
def source(tmp_path):
    """Write a file and open it as a source."""

    def open_(content, name="rows.csv", *, part=None, columns=None, **config):
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        return FilesSource(
            FilesConfig(
                root=str(tmp_path),
                files=[Part(path=name, **(part or {}))],
                columns=ColumnNames(**(columns or {})),
                **config,
            )
        )

    return open_


def rows(source, window=ALL_TIME):
    return source.read(window).frame.to_dict("records")


def values(source, column, window=ALL_TIME):
    return [row[column] for row in rows(source, window)]


# --- what a row is ---


def test_every_row_has_all_columns_as_strings_or_nothing(source):
    opened = source("id,text,label\n7,007,\n8,,1.0\n", columns={"id": "id"})
    nothing = {"time": None, "source": None}
    assert rows(opened) == [
        {"id": "7", "group": content_digest("007"), **nothing, "text": "007", "label": None},
        {"id": "8", "group": content_digest(""), **nothing, "text": None, "label": "1.0"},
    ]


def test_the_three_formats_say_the_same(source, tmp_path):
    table = pd.DataFrame({"id": ["1", "2", "3"], "text": ["a", 'b "c"\n,', None], "label": "x"})
    table.to_parquet(tmp_path / "source.parquet")
    lines = "\n".join(json.dumps(row) for row in table.to_dict("records"))
    columns = {"id": "id"}
    read = [
        rows(source(table.to_csv(index=False), columns=columns)),
        rows(source(lines, "rows.jsonl", columns=columns)),
        rows(source((tmp_path / "source.parquet").read_bytes(), "rows.pq", columns=columns)),
        rows(source(gzip.compress(lines.encode()), "rows.jsonl.gz", columns=columns)),
    ]
    assert [len(each) for each in read] == [3, 3, 3, 3]
    assert all(each == read[0] for each in read)


def test_what_is_missing_in_json_lines_stays_missing_and_numbers_stay_as_written(source):
    lines = [
        {"id": 9007199254740993, "text": "null", "label": 1},
        {"id": 2, "label": None},
        {"text": "b", "label": 0.10, "other": []},
    ]
    opened = source("\n\n".join(map(json.dumps, lines)), "rows.jsonl", columns={"id": "id"})
    found = {row["id"]: (row["text"], row["label"]) for row in rows(opened)}
    assert found == {
        "9007199254740993": ("null", "1"),
        "2": (None, None),
        None: ("b", "0.1"),
    }


def test_whole_numbers_in_parquet_stay_whole_where_some_are_missing(source, tmp_path):
    table = pa.table({"text": ["a", "b"], "label": pa.array([1, None])})
    pq.write_table(table, tmp_path / "source.parquet")
    opened = source((tmp_path / "source.parquet").read_bytes(), "rows.parquet")
    assert set(values(opened, "label")) == {"1", None}


def test_raw_tab_separated_text_keeps_its_quotes(source):
    opened = source('text\tlabel\n"good\tx\n', separator="\t", quoted=False)
    assert values(opened, "text") == ['"good']


def test_broken_bytes_are_refused_or_replaced_as_configured(source):
    with pytest.raises(SourceError, match="cannot read"):
        source(b"text,label\n\xe9t\xe9,x\n").read(ALL_TIME)
    opened = source(b"text,label\n\xe9t,x\n", "other.csv", encoding_errors="replace")
    assert values(opened, "text") == ["\ufffdt"]


# --- ids and groups ---


def test_rows_without_an_id_get_one_from_their_content(source):
    opened = source("text,label\nfilm,x\nFILM ,y\nstory,x\n")
    digest = content_digest("film")[:16]
    assert set(values(opened, "id")) == {digest, f"{digest}#2", content_digest("story")[:16]}


def test_a_row_without_its_declared_id_has_none(source):
    opened = source(
        "id,text,label\n,a,x\n2_1,b,x\n", columns={"id": "id"}, group_pattern=r"^(\d+)_"
    )
    groups = {row["id"]: row["group"] for row in rows(opened)}
    assert groups == {None: content_digest("a"), "2_1": "2"}


def test_ids_of_different_files_do_not_collide(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("id,text,label\n1,t,x\n")
    config = FilesConfig(
        root=str(tmp_path),
        files=[Part(path="a.csv", name="one"), Part(path="b.csv", name="two")],
        columns=ColumnNames(id="id"),
    )
    assert values(FilesSource(config), "id") == ["one:1", "two:1"]


def test_a_pattern_finds_the_group_in_the_id(source):
    opened = source(
        "id,text,label\n1_1,a,x\n1_2,b,x\n2_1,c,x\nplain,d,x\n",
        columns={"id": "id"},
        group_pattern=r"^(.*?)_\d+$",
    )
    assert dict(zip(values(opened, "id"), values(opened, "group"), strict=True)) == {
        "1_1": "1",
        "1_2": "1",
        "2_1": "2",
        "plain": "plain",
    }


def test_a_declared_group_counts_and_a_missing_one_is_the_content(source):
    opened = source("text,label,patient\na,x,7\nb,x,\n", columns={"group": "patient"})
    assert set(values(opened, "group")) == {"7", content_digest("b")}


@pytest.mark.parametrize("pattern", ["(", "no group", "(two)(groups)"])
def test_a_group_pattern_needs_exactly_one_group(pattern):
    with pytest.raises(ValidationError, match="group_pattern"):
        FilesConfig(files=[Part(path="x")], group_pattern=pattern)


# --- times and windows ---


def test_a_window_is_half_open(source):
    opened = source(
        "text,label,when\n"
        "before,x,2026-01-04T23:59:59.999999Z\n"
        "first,x,2026-01-05T00:00:00Z\n"
        "last,x,2026-01-11T23:59:59.999999Z\n"
        "after,x,2026-01-12T00:00:00Z\n",
        columns={"time": "when"},
    )
    assert values(opened, "text", WEEK) == ["first", "last"]
    assert len(rows(opened)) == 4


def test_rows_come_in_the_order_of_time_and_id_whatever_the_file_does(source):
    lines = ["b,x,2026-01-06,2", "c,x,2026-01-06,1", "a,x,2026-01-05,3"]
    header = "text,label,when,id\n"
    columns = {"time": "when", "id": "id"}
    forth = source(header + "\n".join(lines), "forth.csv", columns=columns).read(WEEK)
    back = source(header + "\n".join(lines[::-1]), "back.csv", columns=columns).read(WEEK)
    assert forth.frame["text"].tolist() == ["a", "c", "b"]
    assert forth.fingerprint() == back.fingerprint()


def test_times_without_an_offset_are_in_the_time_zone_of_the_source(source):
    opened = source(
        "text,label,when\na,x,2026-01-05 08:59:59\nb,x,2026-01-05 09:00:00\n",
        columns={"time": "when"},
        timezone="Asia/Tokyo",
    )
    assert values(opened, "text", WEEK) == ["b"]
    assert values(opened, "time", WEEK) == ["2026-01-05T00:00:00+00:00"]


def test_offsets_may_change_with_the_season(source):
    opened = source(
        "text,label,when\na,x,2026-01-05T00:00:00+01:00\nb,x,2026-07-01T00:00:00+02:00\n",
        columns={"time": "when"},
    )
    assert values(opened, "time") == ["2026-01-04T23:00:00+00:00", "2026-06-30T22:00:00+00:00"]


def test_hours_that_the_clocks_skip_or_repeat_have_a_place(source):
    opened = source(
        "text,label,when\na,x,2026-10-25T02:30:00\nb,x,2026-03-29T02:30:00\n",
        columns={"time": "when"},
        timezone="Europe/Berlin",
    )
    assert values(opened, "time") == ["2026-03-29T01:00:00+00:00", "2026-10-25T00:30:00+00:00"]


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        ("yesterday", "unreadable-time"),
        ("05.01.2026", "unreadable-time"),
        ("1767571200", "unreadable-time"),
        ("3026-01-05", "implausible-time"),
        ("", "missing-time"),
    ],
)
def test_rows_with_times_that_are_unclear_are_handed_over_as_unreadable(source, time, reason):
    content = f"text,label,when\na,x,2026-01-06\nb,y,{time}\n"
    opened = source(content, columns={"time": "when"})
    assert values(opened, "text", WEEK) == ["a"]
    [row] = opened.unreadable(WEEK).to_pylist()
    assert (row["row"], row["reasons"]) == (2, reason)
    assert json.loads(row["raw"]) == {"label": "y", "text": "b", "when": time or None}
    assert row["table"].endswith("rows.csv")


@pytest.mark.parametrize("good", ["2026-01-06T00:00:00Z", "2026-01-06T00:00:00"])
@pytest.mark.parametrize("time", ["yesterday", "05.01.2026", "2026-02-30", "at T5Z"])
def test_what_is_no_time_is_neither_with_an_offset_nor_without(source, good, time):
    content = f"text,label,when\na,x,{time}\nb,y,{good}\nc,y,{good}\n"
    opened = source(content, columns={"time": "when"})
    assert sorted(values(opened, "text", WEEK)) == ["b", "c"]
    [row] = opened.unreadable(WEEK).to_pylist()
    assert (row["row"], row["reasons"]) == (1, "unreadable-time")


@pytest.mark.parametrize("word", ["now", "today", "NOW"])
@pytest.mark.parametrize("style", ["iso", "%Y-%m-%d"])
def test_a_word_is_no_time_whatever_the_clock_says(source, word, style):
    table = f"text,at\na,2026-01-05\nb,{word}\n"
    opened = source(table, columns={"time": "at", "label": None, "time_format": style})
    assert values(opened, "text") == ["a"]
    assert opened.unreadable(ALL_TIME)["reasons"].to_pylist() == ["unreadable-time"]


@pytest.mark.parametrize(
    ("style", "times"),
    [
        ("iso", ["2026-01-05", "2300-01-01T10:00:00", "0001-01-01", "9999-12-31"]),
        ("iso", ["2026-01-05T10:00:00Z", "2300-01-01T10:00:00+09:00"]),
        ("%d.%m.%Y", ["05.01.2026", "05.01.2300", "05.01.1500"]),
        ("%d.%m.%Y %z", ["05.01.2026 +0900", "05.01.2300 +0000"]),
        ("unix-seconds", ["1767571200", "99999999999"]),
    ],
)
def test_a_time_centuries_away_is_implausible_in_whatever_company(source, style, times):
    table = "text,at\n" + "".join(f"{place},{time}\n" for place, time in enumerate(times))
    opened = source(
        table + "x,no time\n", columns={"time": "at", "label": None, "time_format": style}
    )
    assert values(opened, "text") == ["0"]
    far = ["implausible-time"] * (len(times) - 1)
    assert opened.unreadable(ALL_TIME)["reasons"].to_pylist() == [*far, "unreadable-time"]


def test_offsets_of_a_pattern_may_differ(source):
    table = "text,at\na,05.01.2026 10:00 +0900\nb,05.01.2026 10:00 +0000\n"
    columns = {"time": "at", "label": None, "time_format": "%d.%m.%Y %H:%M %z"}
    assert values(source(table, columns=columns), "time") == [
        "2026-01-05T01:00:00+00:00",
        "2026-01-05T10:00:00+00:00",
    ]


@pytest.mark.parametrize("pattern", ["%Q", "%d.%", "%s"])
def test_a_pattern_of_times_that_is_none_is_refused_with_the_section(pattern):
    with pytest.raises(ValidationError, match="time_format"):
        ColumnNames(time_format=pattern)


def test_times_of_which_only_some_carry_an_offset_are_refused(source):
    content = "text,label,when\na,x,2026-01-05T00:00:00+01:00\nb,x,2026-07-05T00:00:00\n"
    with pytest.raises(SourceError, match="ISO 8601"):
        source(content, columns={"time": "when"}).read(WEEK)


@pytest.mark.parametrize(
    ("style", "time"),
    [
        ("unix-seconds", "1767657600"),
        ("unix-milliseconds", "1767657600000"),
        ("unix-microseconds", "1767657600000000"),
        ("%d.%m.%Y %H:%M", "06.01.2026 09:00"),
        ("%d.%m.%Y %H:%M %z", "06.01.2026 01:00 +0100"),
    ],
)
def test_times_are_read_by_their_declared_format(source, style, time):
    opened = source(
        f"text,label,when\na,x,{time}\n",
        columns={"time": "when", "time_format": style},
        timezone="Asia/Tokyo",
    )
    assert values(opened, "time", WEEK) == ["2026-01-06T00:00:00+00:00"]


def test_a_file_without_times_can_be_given_a_day_and_shared_out(tmp_path):
    content = "id,text,label\n" + "".join(f"{number},t{number},x\n" for number in range(200))
    (tmp_path / "rows.csv").write_text(content)
    config = FilesConfig(
        root=str(tmp_path),
        files=[
            Part(path="rows.csv", at="2026-01-05", share=(0, 0.3)),
            Part(path="rows.csv", at="2026-01-12", share=(0.3, 1)),
        ],
        columns=ColumnNames(id="id"),
    )
    opened = FilesSource(config)
    next_week = Window.of_days(date(2026, 1, 12), 7, ZoneInfo("UTC"))
    first, second = values(opened, "id", WEEK), values(opened, "id", next_week)
    assert 40 < len(first) < 80
    assert sorted(map(int, first + second)) == list(range(200))
    assert opened.span() == ("2026-01-05T00:00:00+00:00", "2026-01-12T00:00:00+00:00")


def test_a_source_without_times_has_no_span(source):
    assert source("text,label\na,x\n").span() is None
    assert source("text,label,when\n", "empty.csv", columns={"time": "when"}).span() is None


# --- labels and caps ---


def test_numeric_labels_are_cut_into_bins_and_the_rest_is_counted(source):
    opened = source(
        "text,label\na,-2\nb,-0.5\nc,0.1\nd,3.5\ne,\n",
        label_bins={"negative": (None, -0.5), "positive": (0.5, None)},
    )
    read = opened.read(ALL_TIME)
    found = dict(zip(read.frame["text"], read.frame["label"], strict=True))
    assert found == {"a": "negative", "d": "positive", "e": None}
    assert read.left_out == {"label-in-no-bin": 2}


def test_labels_that_are_no_numbers_cannot_be_cut(source):
    with pytest.raises(SourceError, match="numeric"):
        source("text,label\na,good\n", label_bins={"negative": (None, 0)}).read(ALL_TIME)


def test_a_cap_counts_what_it_leaves_out_and_keeps_its_choice(source):
    lines = [f"{number},t{number},x\n" for number in range(100)]
    header = "id,text,label\n"
    config = {"columns": {"id": "id"}, "max_rows_per_window": 30}
    read = source(header + "".join(lines), "all.csv", **config).read(ALL_TIME)
    assert len(read.frame) == 30
    assert read.left_out == {"over-cap": 70}
    fewer = source(header + "".join(lines[:-1]), "fewer.csv", **config).read(ALL_TIME)
    assert len(set(read.frame["id"]) & set(fewer.frame["id"])) >= 29


# --- further columns ---

PEOPLE = "text,label,Land,age\na,x,jp, 31 \nb,y, ,\n"


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        (["Land", "age"], ["Land", "age"]),
        ({"country": "Land"}, ["country"]),
        ({"years": {"column": "age", "kind": "number"}, "country": "Land"}, ["country", "years"]),
        ({"age": {"required": True}}, ["age"]),
    ],
)
def test_declared_columns_travel_with_the_rows_as_they_are_written(source, metadata, names):
    opened = source(PEOPLE, columns={"metadata": metadata})
    frame = opened.read(ALL_TIME).frame.sort_values("text")
    assert list(frame) == [*COLUMNS, *names]
    found = {"Land": ["jp", None], "country": ["jp", None], "age": ["31", None]}
    found["years"] = found["age"]
    assert {name: frame[name].tolist() for name in names} == {name: found[name] for name in names}


def test_rows_say_which_named_file_they_come_from(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name},x\n")
    parts = [Part(path="a.csv", name="web"), Part(path="b.csv")]
    opened = FilesSource(FilesConfig(root=str(tmp_path), files=parts))
    assert {row["text"]: row["source"] for row in rows(opened)} == {"a": "web", "b": None}


def test_a_file_without_a_declared_column_is_refused_unless_it_says_so(tmp_path):
    (tmp_path / "new.csv").write_text("text,label,country\na,x,jp\n")
    (tmp_path / "old.csv").write_text("text,label\nb,y\n")
    columns = ColumnNames.model_validate({"metadata": ["country"]})
    new, old = Part(path="new.csv"), Part(path="old.csv")
    config = FilesConfig(root=str(tmp_path), files=[new, old], columns=columns)
    with pytest.raises(ConfigError, match=r"old.csv has no column country.*columns of its own"):
        FilesSource(config).read(ALL_TIME)
    old = old.model_copy(update={"columns": ColumnNames()})
    opened = FilesSource(config.model_copy(update={"files": [new, old]}))
    assert {row["text"]: row["country"] for row in rows(opened)} == {"a": "jp", "b": None}


# --- fingerprints ---


def test_the_fingerprint_follows_declared_columns(source):
    other = PEOPLE.replace("jp", "fr")
    of = [
        source(content, name, columns={"metadata": metadata}).read(ALL_TIME).fingerprint()
        for metadata, name, content in (
            ([], "rows.csv", PEOPLE),
            (["Land"], "rows.csv", PEOPLE),
            ({"country": "Land"}, "rows.csv", PEOPLE),
            (["Land"], "other.csv", other),
            (["Land", "age"], "rows.csv", PEOPLE),
        )
    ]
    assert len(set(of)) == 5
    assert source(other, "other.csv").read(ALL_TIME).fingerprint() == of[0]
    columns = {"metadata": ["age", "Land"]}
    assert source(PEOPLE, columns=columns).read(ALL_TIME).fingerprint() == of[4]


def test_a_number_and_the_text_that_shows_it_are_not_the_same():
    values = [["1.0"], [1.0], [float("nan")], [None], ["-"], [1]]
    digests = [fingerprint(pd.DataFrame({"a": each}), ["a"]) for each in values]
    assert len(set(digests)) == 4  # nothing is nothing, and 1 is 1.0
    assert fingerprint(pd.DataFrame({"b": ["1.0"]}), ["b"]) != digests[0]


def test_the_fingerprint_follows_the_content_and_nothing_else(source):
    header = "text,label,when,noise\n"
    base = header + "a,x,2026-01-05,1\nb,y,2026-01-06,1\n"
    of = {
        name: source(content, f"{name}.csv", columns={"time": "when"}).read(WEEK).fingerprint()
        for name, content in {
            "base": base,
            "noise": base.replace(",1\n", ",2\n"),
            "later": base + "c,x,2026-01-12,1\n",
            "text": base.replace("a,x", "A,x"),
            "label": base.replace("a,x", "a,y"),
            "time": base.replace("01-06", "01-07"),
            "none": base.replace("a,x", "a,"),
            "more": base + "c,x,2026-01-11,1\n",
        }.items()
    }
    assert of["base"] == of["noise"] == of["later"]
    assert len({of[name] for name in ("base", "text", "label", "time", "none", "more")}) == 6


CELLS = st.none() | st.text(max_size=4)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=4), st.lists(st.tuples(CELLS, CELLS), max_size=4))
def test_different_rows_have_different_fingerprints(one, two):
    columns = ("text", "label")
    digests = [fingerprint(pd.DataFrame(each, columns=columns), columns) for each in (one, two)]
    assert (digests[0] == digests[1]) == (one == two)


# --- hostile input ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("wider.csv", b"text,label\na,x,c,d\nb,x,c,d\n"),
        ("broken.jsonl", b'{"text": "a"\n'),
        ("list.jsonl", b'["a", "b"]\n'),
        ("bytes.jsonl", b"\xff\xfe"),
        ("surrogate.jsonl", b'{"text": "\\ud800", "label": "x"}\n'),
        ("empty.jsonl", b""),
        ("text.parquet", b"this is no parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_source_error_that_names_it(source, name, content):
    with pytest.raises(SourceError, match=name):
        source(content, name).read(ALL_TIME)


def test_a_missing_column_is_named_with_the_ones_there_are(source):
    with pytest.raises(
        ConfigError, match=r"no column label; it has text, sentiment\. Mend source\.col"
    ):
        source("text,sentiment\na,x\n").read(ALL_TIME)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text;label\na;x\n", "separated by ';', not by ','. Mend source.separator"),
        ("text|label\na|x\n", "separated by '|', not by ','. Mend source.separator"),
        ("text\tlabel\na\tx\n", r"separated by '\\t', not by ','. Mend source.separator"),
        ("text;of\na;x\n", "separated by ';', not by ','. Mend source.separator"),
        ("text\na\n", "Mend source.columns"),
    ],
)
def test_a_wrong_separator_is_named_and_not_the_columns(source, content, says):
    with pytest.raises(ConfigError, match=says):
        source(content).read(ALL_TIME)


def test_a_wrong_separator_that_tears_rows_apart_is_named_too(source):
    with pytest.raises(ConfigError, match=r"separated by ';', not by ','\. Mend source\.sep"):
        source("text;label\nhello, world, again;x\n").read(ALL_TIME)


@pytest.mark.parametrize(
    ("name", "content", "separator"),
    [
        ("a.csv", b"text,label\na; b; c,x\n", ","),
        ("a.csv", b"text;label\nhello, you;x\nand, you, too;y\n", ";"),
        ("a.csv", b'text|label\n"a|b, c;d"|x\n', "|"),
        ("a.tsv", b"text\tlabel\na, b\tx\n", "\t"),
        ("a.txt.gz", gzip.compress(b"\xef\xbb\xbftext;label\na;x\n", mtime=0), ";"),
        ("a.csv", b"subject, or less;body;label\na;b;c\na, b;c;d\ne;f;g\n", ";"),
        ("a.csv", b"text\nonly this\n", ","),
        ("a.csv", b"", ","),
        ("a.tsv.zst", b"\x28\xb5\x2f\xfd", "\t"),
        ("a.csv.gz", b"text;label\n", ","),
        ("a.jsonl", b'{"text": "a;b"}\n', ","),
    ],
)
def test_the_separator_is_what_cuts_the_first_rows_alike(tmp_path, name, content, separator):
    (tmp_path / name).write_bytes(content)
    assert separator_of(tmp_path / name) == separator


def test_missing_files_and_packages_are_told_apart(tmp_path):
    part = [Part(path="nope.csv")]
    with pytest.raises(ConfigError, match=r"there is no file .*nope\.csv; mend source\.files"):
        FilesSource(FilesConfig(root=str(tmp_path), files=part)).read(ALL_TIME)
    with pytest.raises(ConfigError, match="nothing at"):
        FilesSource(FilesConfig(root=str(tmp_path / "nope"), files=part)).read(ALL_TIME)
    with pytest.raises(MissingPackage, match="no-such==1"):
        FilesSource(FilesConfig(root="no_such:data", requirement="no-such==1", files=part)).read(
            ALL_TIME
        )


def test_a_file_with_only_a_header_has_no_rows(source):
    opened = source("text,label,when\n", columns={"time": "when"})
    read = opened.read(WEEK)
    assert isinstance(read, Rows)
    assert list(read.frame) == list(COLUMNS)
    assert len(read.frame) == 0
    assert len(read.fingerprint()) == 64


# --- images ---


def pixels_of(content):
    return np.asarray(decode(content)).tolist()


def png_file(path, shade=7):
    Image.fromarray(np.full((2, 2), shade, np.uint8)).save(path)


GREY = {"first": "a", "last": "d", "height": 2, "width": 2, "maximum": 16}


def test_pixels_become_images_row_by_row(source):
    opened = source(
        "id,a,b,c,d,label\n1,0,16,8,4,x\n2,1,1,1,1,y\n", columns={"id": "id", "pixels": GREY}
    )
    first, second = rows(opened)
    assert pixels_of(first["text"]) == [[0, 255], [128, 64]]
    assert pixels_of(second["text"]) == [[16, 16], [16, 16]]
    assert (first["id"], first["label"], first["group"]) == (
        "1",
        "x",
        content_digest(first["text"]),
    )


def test_columns_without_a_header_are_numbered(source):
    opened = source(
        "0,16,8,4,x\n1,1,1,1,y\n",
        header=False,
        columns={"label": "4", "pixels": GREY | {"first": "0", "last": "3"}},
    )
    assert values(opened, "label") == ["x", "y"]
    assert pixels_of(values(opened, "text")[0]) == [[0, 255], [128, 64]]


@pytest.mark.parametrize("pixel", ["", "-1", "17", "nan", "inf", "white"])
def test_an_image_with_a_pixel_that_is_none_is_missing(source, pixel):
    opened = source(f"a,b,c,d,label\n{pixel},0,0,0,x\n0,0,0,0,x\n", columns={"pixels": GREY})
    assert sorted(text is None for text in values(opened, "text")) == [False, True]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 3}, "4 columns from a to d, but an image of 2 x 3 needs 6"),
        ({"first": "d", "last": "a"}, "0 columns from d to a"),
        ({"last": "z"}, "has no column z"),
    ],
)
def test_columns_that_make_no_image_are_an_error(source, changes, says):
    opened = source("a,b,c,d,label\n0,0,0,0,x\n", columns={"pixels": GREY | changes})
    with pytest.raises(ConfigError, match=says):
        rows(opened)


def test_image_files_are_found_beside_the_table(source, tmp_path):
    (tmp_path / "pictures").mkdir()
    png_file(tmp_path / "pictures" / "one.png")
    opened = source(
        "id,file,label\n1,pictures/one.png,x\n2,pictures/none.png,x\n3,,x\n",
        columns={"id": "id", "image": "file"},
    )
    one, absent, unnamed = values(opened, "text")
    assert base64.b64decode(one) == (tmp_path / "pictures" / "one.png").read_bytes()
    assert absent is None and unnamed is None


@pytest.mark.parametrize("name", ["none.png", "a\0.png", "x" * 5000, "."])
def test_a_picture_that_is_not_there_costs_its_row_alone(source, tmp_path, name):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    opened = source(f"path,label\na.png,x\n{name},x\n", columns={"image": "path"})
    found = values(opened, "text")
    assert len(found) == 2 and sum(each is None for each in found) == 1


def test_another_picture_under_the_same_name_is_another_fingerprint(source, tmp_path):
    table = "file,label\none.png,x\n"
    found = []
    for shade in (1, 2, 1):
        png_file(tmp_path / "one.png", shade)
        found.append(source(table, columns={"image": "file"}).read(ALL_TIME).fingerprint())
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("way", ["../secret.png", "{above}/secret.png", "link.png"])
def test_a_picture_outside_of_the_root_is_refused(source, tmp_path, tmp_path_factory, way):
    above = tmp_path_factory.mktemp("above")
    png_file(above / "secret.png")
    (tmp_path / "link.png").symlink_to(above / "secret.png")
    path = way.format(above=above)
    opened = source(f"file,label\n{path},x\n", columns={"image": "file"})
    with pytest.raises(SourceError, match="lies outside of"):
        rows(opened)


def test_files_of_other_forms_and_places_are_one_source(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "a.csv").write_text("text,label\nof a,x\n")
    (tmp_path / "there" / "b.csv").write_text("body,kind\nof b,y\n")
    other = ColumnNames(text="body", label="kind")
    opened = FilesSource(
        FilesConfig(
            root=str(tmp_path / "here"),
            files=[
                Part(path="a.csv"),
                Part(path="b.csv", root=str(tmp_path / "there"), columns=other),
            ],
        )
    )
    assert sorted(zip(values(opened, "text"), values(opened, "label"), strict=True)) == [
        ("of a", "x"),
        ("of b", "y"),
    ]


def test_a_package_of_a_single_file_may_be_missing(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nof a,x\n")
    part = Part(path="b.csv", root="not_there:data", requirement="not-there==1")
    opened = FilesSource(FilesConfig(root=str(tmp_path), files=[Part(path="a.csv"), part]))
    with pytest.raises(MissingPackage, match="not-there==1"):
        rows(opened)


@pytest.mark.parametrize("columns", [{"text": "a", "image": "b"}, {"image": "a", "pixels": GREY}])
def test_a_row_holds_one_content(columns):
    with pytest.raises(ValidationError, match="one content"):
        ColumnNames(**columns)


def test_columns_travel_as_json():
    for columns in (ColumnNames(), ColumnNames(image="a"), ColumnNames(text="b")):
        assert ColumnNames.from_json(columns.to_json()) == columns


# --- many files ---


def test_a_pattern_takes_all_files_but_hidden_ones_in_a_fixed_order(tmp_path):
    for name in (
        "dt=2026-01-05/a.csv",
        "dt=2026-01-06/b.csv",
        "_tmp/c.csv",
        "dt=2026-01-06/.d.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text,label\n{path.stem},x\n")
    (tmp_path / "dt=2026-01-06" / "empty.csv").touch()
    part = Part(path="**/*.csv", partition="dt")
    opened = FilesSource(FilesConfig(root=str(tmp_path), files=[part], timezone="Asia/Tokyo"))
    assert values(opened, "text") == ["a", "b"]
    assert values(opened, "time") == ["2026-01-04T15:00:00+00:00", "2026-01-05T15:00:00+00:00"]
    day = Window.of_days(date(2026, 1, 6), 1, ZoneInfo("Asia/Tokyo"))
    assert values(opened, "text", day) == ["b"]


def test_of_folders_named_by_day_only_those_of_the_window_are_read(tmp_path):
    for day in ("2026-01-05", "2026-01-06"):
        (tmp_path / f"dt={day}").mkdir()
        (tmp_path / f"dt={day}" / "a.csv").write_text(f"text,label\n{day},x\n")
    (tmp_path / "dt=2026-01-05" / "a.csv").write_text("nonsense")
    part = Part(path="*/*.csv", partition="dt")
    opened = FilesSource(FilesConfig(root=str(tmp_path), files=[part]))
    second = Window.of_days(date(2026, 1, 6), 1, ZoneInfo("UTC"))
    assert values(opened, "text", second) == ["2026-01-06"]


def test_a_folder_is_all_files_below_it(tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "a.csv").write_text("text,label\na,x\n")
    (tmp_path / "data" / "deep" / "b.jsonl").write_text('{"text": "b", "label": "x"}')
    opened = FilesSource(FilesConfig(root=str(tmp_path), files=[Part(path="data")]))
    assert sorted(values(opened, "text")) == ["a", "b"]


@pytest.mark.parametrize("path", ["../secret.csv", "link.csv", "link*.csv", "../*.csv"])
def test_a_file_outside_of_the_root_is_refused(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.csv").write_text("text,label\na,x\n")
    (root / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(SourceError, match="lies outside of"):
        FilesSource(FilesConfig(root=str(root), files=[Part(path=path)])).read(ALL_TIME)


def test_a_file_whose_name_is_no_unicode_is_read_all_the_same(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.csv")).write_text("text,label\na,x\nb\n")
    source = FilesSource(FilesConfig(root=str(tmp_path), files=[Part(path="*.csv")]))
    assert values(source, "text") == ["a"]
    [place] = source.unreadable(ALL_TIME, True)["table"].to_pylist()
    assert place.endswith("caf\\xe9.csv")


def test_a_link_to_itself_is_no_file(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\n")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    config = FilesConfig(root=str(tmp_path), files=[Part(path="*.csv")])
    assert values(FilesSource(config), "text") == ["a"]


def test_a_pipe_cannot_be_read_twice_and_is_refused(tmp_path):
    os.mkfifo(tmp_path / "rows.csv")
    config = FilesConfig(root=str(tmp_path), files=[Part(path="rows.csv")])
    with pytest.raises(ConfigError, match=r"rows\.csv is no file that can be read more than once"):
        FilesSource(config).read(ALL_TIME)


def test_a_file_of_labels_that_is_not_there_is_named(tmp_path):
    (tmp_path / "rows.csv").write_text("id,text\n1,a\n")
    part = Part(path="rows.csv", labels="labels.csv")
    config = FilesConfig(root=str(tmp_path), files=[part], columns=ColumnNames(id="id"))
    with pytest.raises(ConfigError, match=r"there is no file .*labels\.csv"):
        FilesSource(config).read(ALL_TIME)


def test_a_place_that_names_no_day_is_refused(tmp_path):
    (tmp_path / "dt=soon").mkdir()
    (tmp_path / "dt=soon" / "a.csv").write_text("text,label\na,x\n")
    part = Part(path="*/*.csv", partition="dt")
    with pytest.raises(SourceError, match="no folder dt=YYYY-MM-DD"):
        FilesSource(FilesConfig(root=str(tmp_path), files=[part])).read(ALL_TIME)


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_images_may_lie_in_parquet_as_bytes(source, tmp_path, form):
    png_file(tmp_path / "one.png")
    picture = (tmp_path / "one.png").read_bytes()
    cells = [picture, None] if form == "bytes" else [{"bytes": picture, "path": "one.png"}, None]
    pq.write_table(pa.table({"file": cells, "label": ["x", "y"]}), tmp_path / "images.parquet")
    content = (tmp_path / "images.parquet").read_bytes()
    opened = source(content, "rows.parquet", columns={"image": "file"})
    found = {row["label"]: row["text"] for row in rows(opened)}
    assert found == {"x": base64.b64encode(picture).decode(), "y": None}


def test_packed_files_say_the_same_as_plain_ones(source):
    plain = b"text,label\na,x\n"
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packing:
        packing.write(plain)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packing:
        packing.writestr("a.csv", plain)
    packed = {
        ".gz": gzip.compress(plain),
        ".bz2": bz2.compress(plain),
        ".xz": lzma.compress(plain),
        ".zst": sink.getvalue().to_pybytes(),
        ".zip": archive.getvalue(),
    }
    expected = rows(source(plain))
    for suffix, content in packed.items():
        assert rows(source(content, f"rows.csv{suffix}")) == expected
