"""Columns of Parquet of every kind, as the strings that rows are made of."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import ConfigError
from components.sources import open_source, parse_source
from components.windows import ALL_TIME

COLUMNS = {"id": "id", "text": "text", "label": "label"}


@pytest.fixture
def opened(tmp_path):
    """Write a table as Parquet and open it as a source."""

    def open_(table, **columns):
        pq.write_table(table, tmp_path / "rows.parquet")
        section = {"root": str(tmp_path), "files": [{"path": "rows.*"}], "columns": columns}
        return open_source(parse_source(json.dumps(section)))

    return open_


def rows_with(label):
    return pa.table({"id": ["1", "2"], "text": ["a", "b"], "label": label})


def broken_text():
    """Two strings, of which the second is none, as a careless writer leaves them."""
    ends = pa.py_buffer(np.array([0, 1, 2], np.int32).tobytes())
    return pa.Array.from_buffers(pa.string(), 2, [None, ends, pa.py_buffer(b"x\xff")])


@pytest.mark.parametrize(
    "label",
    [
        broken_text(),
        pa.array([b"x", b"\xff"], pa.binary()),
        pa.array([b"x", b"\xff"], pa.large_binary()),
    ],
    ids=["string", "binary", "large_binary"],
)
def test_bytes_that_are_no_text_cost_their_row_alone(opened, label):
    source = opened(rows_with(label), **COLUMNS)
    assert source.read(ALL_TIME).frame["label"].tolist() == ["x"]
    assert source.unreadable(ALL_TIME, True)["reasons"].to_pylist() == ["bad-encoding"]


@pytest.mark.parametrize(
    ("far", "near"),
    [
        (pa.array([2**62, 0], pa.timestamp("us")), "1970-01-01T00:00:00+00:00"),
        # Which in microseconds would overflow, and become 1970.
        (pa.array([2**62, 0], pa.timestamp("ms")), "1970-01-01T00:00:00+00:00"),
        (pa.array([-(2**62), 0], pa.timestamp("us", "Asia/Tokyo")), "1970-01-01T00:00:00+00:00"),
        # Days that look like a date, and are one of the year 57,000.
        (pa.array([20_260_105, 0], pa.date32()), "1970-01-01T00:00:00+00:00"),
    ],
    ids=["us", "ms", "zone", "date"],
)
def test_a_time_beyond_all_calendars_costs_its_row_alone(opened, far, near):
    table = rows_with(["x", "y"]).append_column("at", far)
    source = opened(table, **COLUMNS, time="at")
    assert source.read(ALL_TIME).frame["time"].tolist() == [near]
    assert source.unreadable(ALL_TIME, True)["reasons"].to_pylist() == ["unreadable-time"]


def test_a_length_of_time_beyond_all_clocks_is_text(opened):
    source = opened(rows_with(pa.array([2**62, 1], pa.duration("s"))), **COLUMNS)
    labels = source.read(ALL_TIME).frame["label"].tolist()
    assert labels == ["4611686018427387904 as duration[ms]", "0:00:01"] or labels == [
        "4611686018427387904 as duration[s]",
        "0:00:01",
    ]


def test_an_instant_in_a_zone_that_nobody_knows_is_the_instant(opened):
    table = rows_with(["x", "y"]).append_column(
        "at", pa.array([0, 1], pa.timestamp("s", "Foo/Bar"))
    )
    source = opened(table, **COLUMNS, time="at")
    seconds = ["1970-01-01T00:00:00+00:00", "1970-01-01T00:00:01+00:00"]
    assert source.read(ALL_TIME).frame["time"].tolist() == seconds


def test_of_two_columns_of_one_name_only_a_wanted_one_is_refused(opened):
    columns = [["1"], ["a"], ["x"], ["p"], ["q"]]
    table = pa.Table.from_arrays(list(map(pa.array, columns)), ["id", "text", "label", "z", "z"])
    assert opened(table, **COLUMNS).read(ALL_TIME).frame["text"].tolist() == ["a"]
    with pytest.raises(ConfigError, match=r"rows\.parquet has two columns z; rename one"):
        opened(table, **COLUMNS, group="z").read(ALL_TIME)
