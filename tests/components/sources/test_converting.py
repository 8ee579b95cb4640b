from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import TokiwaError
from components.sources import json_lines, open_source, parse_source
from components.sources.block import Form
from components.sources.converting import Converter
from components.sources.mapping import Mapper
from components.sources.tables import blocks
from components.windows import ALL_TIME

ROW = {"id": "1", "text": "a text", "label": "x", "when": "2026-01-05T10:00:00"}
LATER = ROW | {"when": "2026-01-06T10:00:00.5"}
COLUMNS = {"id": "id", "time": "when"}


@pytest.fixture
def small(tmp_path):
    """Open small files of JSON lines, each given by its rows or its text."""

    def opened(files, columns=COLUMNS, **section):
        for number, rows in enumerate(files):
            content = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows))
            (tmp_path / f"{number}.jsonl").write_text(content)
        part = {"path": "*.jsonl", **section.pop("part", {})}
        section = {"root": str(tmp_path), "files": [part], "columns": columns, **section}
        return open_source(parse_source(json.dumps(section)))

    return opened


def found(source):
    """What comes of a source: its rows and what is none, or how it is refused."""
    try:
        rows, left_out = source.table(ALL_TIME)
        unreadable = source.unreadable(ALL_TIME, with_undated=True)
        # A version tells of the disk as well, such as how lately a file was written.
        listed = [(name, count) for name, _, count in source.listing(ALL_TIME)]
        return rows.to_pylist(), left_out, unreadable.to_pylist(), listed
    except TokiwaError as error:
        return type(error), str(error)


@pytest.mark.parametrize(
    ("files", "section"),
    [
        ([[ROW], [LATER], [ROW, LATER]], {}),
        ([[ROW], [ROW | {"when": "2026-01-05T10:00:00+09:00"}]], {}),
        ([[ROW, ROW | {"when": "2026-01-05T10:00:00Z"}], [ROW]], {}),
        ([[ROW], [ROW | {"when": "5 January"}, LATER], [ROW]], {}),
        ([[ROW], ["no object", ROW], "{not json", [ROW]], {}),
        ([[ROW], [{"id": "2", "text": "no time"}]], {}),
        ([[ROW], [{"id": "2", "text": "no label", "when": "2026-01-05"}]], {}),
        ([[ROW], "", [LATER]], {}),
        ([[ROW | {"more": 1}], [LATER], [{"other": None} | ROW]], {}),
        ([[ROW], [ROW, ROW], [ROW]], {"columns": {"time": "when"}}),
        ([[ROW], [LATER | {"label": "7"}], [ROW]], {"label_bins": {"high": [5, None]}}),
        ([[ROW | {"id": str(n)}] for n in range(20)], {"part": {"share": [0, 0.5]}}),
        ([[ROW], [LATER]], {"columns": {"id": "id"}}),
        ([[ROW], [LATER]], {"columns": {"id": "id"}, "part": {"at": "2026-01-05"}}),
        ([[ROW], [LATER]], {"group_pattern": "(.)", "part": {"name": "logs"}}),
        ([[ROW], [LATER]], {"timezone": "Asia/Tokyo"}),
    ],
)
def test_small_tables_together_give_what_each_gives_alone(small, monkeypatch, files, section):
    together = found(small(files, **section))
    monkeypatch.setattr(Converter, "_together", lambda self, held: None)
    assert found(small(files, **section)) == together


def test_small_tables_that_are_alike_are_mapped_at_once(small, monkeypatch):
    counts, original = [], Mapper.rows

    def counted(self, block):
        counts.append(len(block.rows))
        return original(self, block)

    monkeypatch.setattr(Mapper, "rows", counted)
    source = small([[ROW | {"id": str(number)}] for number in range(9)])
    assert sorted(row["id"] for row in source.table(ALL_TIME)[0].to_pylist()) == list("012345678")
    assert counts == [9]


VALUES = st.one_of(
    st.text(max_size=4),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([0, -0.0, "\ud800", "\ufdd0", [1, -0.0], {"a": None}]),
)
LINES = st.one_of(
    st.dictionaries(st.sampled_from(["text", "label", "é", "\ud800"]), VALUES).map(json.dumps),
    st.dictionaries(st.sampled_from(["text", "n"]), VALUES).map(
        lambda row: json.dumps(row, ensure_ascii=False)
    ),
    st.sampled_from(
        ["", " ", "{", "7", '{"n": -0}', '{"n": 1E5}', '{"n": 1, "n": 2}', '{"a":1},{"a":2}', "\r"]
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(LINES, max_size=4), st.sampled_from([(), ("n", "text")]))
def test_plain_json_lines_are_read_as_all_others(lines, wanted):
    content = "\n".join(lines).encode("utf-8", "surrogatepass")

    def read():
        return [
            (each.table.to_pylist(), each.rows.tolist(), each.columns, each.unreadable)
            for each in blocks(pa.BufferReader(content), "a.jsonl", Form(), wanted)
        ]

    quickly = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "_plain_json_rows", lambda data: None)
        assert read() == quickly
