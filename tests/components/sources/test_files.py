from __future__ import annotations

import gzip
import json
from datetime import date
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.errors import MissingPackage, SourceError
from components.sources.files import ColumnNames, FilesConfig, FilesSource, Part
from components.sources.rows import COLUMNS, Rows, fingerprint
from components.split import content_digest
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
    assert rows(opened) == [
        {"id": "7", "group": content_digest("007"), "time": None, "text": "007", "label": None},
        {"id": "8", "group": content_digest(""), "time": None, "text": None, "label": "1.0"},
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
    "times",
    [
        ["yesterday", "2026-01-05"],
        ["05.01.2026", "2026-01-05"],
        ["3026-01-05", "2026-01-05"],
        ["1767571200", "2026-01-05"],
        ["2026-01-05T00:00:00+01:00", "2026-07-05T00:00:00"],
    ],
)
def test_times_that_are_unclear_are_refused(source, times):
    lines = "".join(f"a,x,{time}\n" for time in times)
    with pytest.raises(SourceError, match="ISO 8601"):
        source(f"text,label,when\n{lines}", columns={"time": "when"}).read(WEEK)


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


# --- fingerprints ---


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
        ("wide.csv", b"text,label\na,x\nb,y,z\n"),
        ("wider.csv", b"text,label\na,x,c,d\nb,x,c,d\n"),
        ("broken.jsonl", b'{"text": "a"\n'),
        ("list.jsonl", b'["a", "b"]\n'),
        ("number.jsonl", b'{"text": "a", "label": "x"}\n5\n'),
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
    with pytest.raises(SourceError, match=r"no column label; it has text, sentiment"):
        source("text,sentiment\na,x\n").read(ALL_TIME)


def test_missing_files_and_packages_are_told_apart(tmp_path):
    part = [Part(path="nope.csv")]
    with pytest.raises(SourceError, match=r"nope\.csv"):
        FilesSource(FilesConfig(root=str(tmp_path), files=part)).read(ALL_TIME)
    with pytest.raises(SourceError, match="nothing at"):
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
