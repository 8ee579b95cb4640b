from __future__ import annotations

import itertools
import json
import tempfile
import uuid
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import SourceError
from components.ingest.core import LINEAGE, MANIFEST, ROWS, IngestConfig, Manifest, ingest
from components.plan import Data, WindowData
from components.sources import open_source
from components.sources.files import ColumnNames, FilesConfig, Part
from components.sources.rows import declared_metadata
from components.split import content_digest
from components.windows import ALL_TIME, Window

WEEKS = [Window.of_days(date(2026, 1, day), 7, ZoneInfo("UTC")) for day in (5, 12)]
KEEP = IngestConfig(drop_duplicates=False)


def data_of(rows, folder):
    """Write ``(week, text, label)`` rows and plan to ingest them."""
    table = pd.DataFrame(rows, columns=["week", "text", "label"])
    table["when"] = [WEEKS[week].start for week in table["week"]]
    table["id"] = [f"{number:04d}" for number in range(len(table))]
    table.astype("string").to_parquet(folder / "source.parquet")
    source = FilesConfig(
        root=str(folder),
        files=[Part(path="source.parquet")],
        columns=ColumnNames(time="when", id="id"),
    )
    planned = []
    for window in WEEKS:
        read = open_source(source).read(window)
        planned.append(
            WindowData(window=window, fingerprint=read.fingerprint(), rows=len(read.frame))
        )
    return Data(source=source, windows=planned)


TEXTS = st.none() | st.sampled_from(["a", "A ", "b", "語", ""]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=5
)  # fmt: skip
# A label that is written like a missing value is none.
ROWS_ = st.lists(
    st.tuples(st.integers(0, 1), TEXTS, st.sampled_from(["x", "NaN", None])), max_size=12
)


@settings(max_examples=30, deadline=None)
@given(ROWS_)
def test_every_row_that_was_read_is_kept_or_counted_as_a_duplicate(rows):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        report = ingest(data_of(rows, folder), folder / "snapshot", IngestConfig())
        frame = pd.read_parquet(folder / "snapshot" / ROWS)
    assert report.read == len(rows) == report.rows + report.duplicates
    assert report.rows == len(frame) == sum(report.rows_by_window.values())
    kept = [
        (content_digest(text), label)
        for text, label in zip(frame["text"], frame["label"], strict=True)
        if text is not None
    ]
    assert len(set(kept)) == len(kept)
    assert set(kept) == {
        (content_digest(text), label) for _, text, label in rows if text is not None
    }
    # A row that holds nothing is for the validation to find, each of them.
    assert frame["text"].isna().sum() == sum(text is None for _, text, _ in rows)


@settings(max_examples=15, deadline=None)
@given(ROWS_)
def test_equal_content_gives_equal_bytes_and_nothing_is_lost_unasked(rows):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = data_of(rows, folder)
        reports = [ingest(data, folder / name, KEEP) for name in ("one", "two")]
        assert reports[0] == reports[1]
        # The manifest has the report, and as what the files were known besides.
        assert (folder / "one" / ROWS).read_bytes() == (folder / "two" / ROWS).read_bytes()
        frame = pd.read_parquet(folder / "one" / ROWS)
    assert reports[0].read == reports[0].rows == len(rows)
    expected = sorted([(WEEKS[week].name, str(text), str(label)) for week, text, label in rows])
    found = zip(frame["window"], frame["text"].map(str), frame["label"].map(str), strict=True)
    assert sorted(found) == expected


def test_of_equal_rows_the_first_in_the_order_of_the_windows_is_kept(tmp_path):
    rows = [(1, "The film", "x"), (0, "the  FILM", "x"), (1, "the film", "y"), (1, "more", "x")]
    report = ingest(data_of(rows, tmp_path), tmp_path / "snapshot", IngestConfig())
    frame = pd.read_parquet(tmp_path / "snapshot" / ROWS)
    assert frame[["id", "window"]].to_records(index=False).tolist() == [
        ("0001", "2026-01-05"),
        ("0002", "2026-01-12"),
        ("0003", "2026-01-12"),
    ]
    assert report.rows_by_window == {"2026-01-05": 1, "2026-01-12": 2}
    assert (report.read, report.duplicates) == (4, 1)


@pytest.mark.parametrize("names", [("", ""), ("a", "b"), ("", "b")])
def test_rows_of_several_files_without_ids_are_told_apart(tmp_path, names):
    """Two people with the same answers may well be in two files."""
    for name, label in (("one", "x"), ("two", "y")):
        (tmp_path / f"{name}.csv").write_text(f"text,label\nthe same,{label}\n{name},x\n")
    parts = [
        Part(path=f"{path}.csv", name=name)
        for path, name in zip(("one", "two"), names, strict=True)
    ]
    source = FilesConfig(root=str(tmp_path), files=parts)
    facts = open_source(source).facts(ALL_TIME)
    data = Data(source=source, windows=[WindowData(window=ALL_TIME, **facts.model_dump())])
    assert ingest(data, tmp_path / "snapshot", IngestConfig()).rows == 4
    ids = pd.read_parquet(tmp_path / "snapshot" / "rows.parquet")["id"]
    assert ids.is_unique
    assert ids.str.contains("~2").sum() == (names == ("", ""))


def test_rows_of_one_declared_id_keep_it(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text(f"id,text,label\n7,{name},x\n")
    parts = [Part(path="one.csv"), Part(path="two.csv")]
    source = FilesConfig(root=str(tmp_path), files=parts, columns=ColumnNames(id="id"))
    facts = open_source(source).facts(ALL_TIME)
    data = Data(source=source, windows=[WindowData(window=ALL_TIME, **facts.model_dump())])
    ingest(data, tmp_path / "snapshot", IngestConfig())
    assert pd.read_parquet(tmp_path / "snapshot" / "rows.parquet")["id"].tolist() == ["7", "7"]


def test_the_digest_names_the_content(tmp_path):
    digests = set()
    for number, rows in enumerate(
        itertools.permutations([(0, "a", "x"), (0, "b", "y"), (1, "c", "x")])
    ):
        (tmp_path / str(number)).mkdir()
        data = data_of(rows, tmp_path / str(number))
        digests.add(ingest(data, tmp_path / f"snapshot-{number}", IngestConfig()).digest)
    assert len(digests) == 6  # the ids differ


def test_the_manifest_says_what_the_snapshot_is_made_of(tmp_path):
    data = data_of([(0, "a", "x"), (1, "b", "y")], tmp_path)
    report = ingest(data, tmp_path / "snapshot", IngestConfig(), code="c0de")
    manifest = Manifest.from_json((tmp_path / "snapshot" / MANIFEST).read_text())
    assert manifest.report == report
    assert manifest.code == "c0de"
    assert manifest.windows == data.windows
    [(name, version, rows)] = manifest.tables
    assert (name, rows) == (str(tmp_path / "source.parquet"), 2)
    assert version
    assert sorted(manifest.columns) == sorted(pd.read_parquet(tmp_path / "snapshot" / ROWS))


def test_rows_that_changed_since_the_plan_stop_the_run(tmp_path):
    data = data_of([(0, "a", "x"), (1, "b", "x")], tmp_path)
    stale = data.windows[1].model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(SourceError, match="2026-01-12 changed after the run began"):
        ingest(
            data.model_copy(update={"windows": [data.windows[0], stale]}),
            tmp_path / "snapshot",
            IngestConfig(),
        )
    assert not (tmp_path / "snapshot").exists()


def test_what_the_source_leaves_out_is_summed_over_the_windows(tmp_path):
    data = data_of([(0, "a", "0"), (0, "b", "9"), (1, "c", "0"), (1, "d", "0")], tmp_path)
    source = data.source.model_copy(update={"label_bins": {"high": (1, None)}})
    windows = [
        each.model_copy(update={"fingerprint": open_source(source).read(each.window).fingerprint()})
        for each in data.windows
    ]
    report = ingest(Data(source=source, windows=windows), tmp_path / "snapshot", IngestConfig())
    assert report.left_out == {"label-in-no-bin": 3}
    assert report.rows == 1


def test_the_snapshot_can_be_read_even_without_rows(tmp_path):
    report = ingest(data_of([], tmp_path), tmp_path / "snapshot", IngestConfig())
    frame = pd.read_parquet(tmp_path / "snapshot" / ROWS)
    assert list(frame) == ["id", "group", "time", "source", "text", "label", "window"]
    assert report.rows == len(frame) == 0


def test_a_snapshot_says_what_its_further_columns_are(tmp_path):
    data = data_of([(0, "a", "x"), (1, "b", "y")], tmp_path)
    digests = set()
    for number, metadata in enumerate(
        (
            {},
            {"week": {}},
            {"week": {"kind": "number"}},
            {"week": {"kind": "number", "required": True}},
            {"week": {"column": "week", "kind": "number", "required": True}},
        )
    ):
        columns = ColumnNames.model_validate({"time": "when", "id": "id", "metadata": metadata})
        source = data.source.model_copy(update={"columns": columns})
        opened = open_source(source)
        windows = [
            each.model_copy(update={"fingerprint": opened.read(each.window).fingerprint()})
            for each in data.windows
        ]
        planned = Data(source=source, windows=windows)
        digests.add(ingest(planned, tmp_path / str(number), IngestConfig()).digest)
        path = tmp_path / str(number) / ROWS
        assert declared_metadata(path) == columns.metadata
        if metadata:
            assert pd.read_parquet(path)["week"].tolist() == ["0", "1"]
    assert len(digests) == 4  # under which name the files know it is not the rows' concern


def test_an_event_of_openlineage_names_what_was_read_and_what_came_of_it(tmp_path):
    at = datetime(2026, 1, 20, tzinfo=UTC)
    data = data_of([(0, "a", "x")], tmp_path)
    report = ingest(data, tmp_path / "snapshot", IngestConfig(), at=at)
    event = json.loads((tmp_path / "snapshot" / LINEAGE).read_text())
    assert (event["eventType"], event["eventTime"]) == ("COMPLETE", at.isoformat())
    assert uuid.UUID(event["run"]["runId"]).version == 5
    [read], [written] = event["inputs"], event["outputs"]
    assert (read["namespace"], read["name"]) == ("file", str(tmp_path / "source.parquet"))
    assert written["name"] == f"snapshot/{report.digest}"
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 1
    names = [field["name"] for field in written["facets"]["schema"]["fields"]]
    assert names == list(pd.read_parquet(tmp_path / "snapshot" / ROWS))


@pytest.mark.parametrize(("one", "other"), [(None, "NaN"), ("NaN", None), ("x", None)])
def test_a_label_is_told_from_none(tmp_path, one, other):
    rows = [(0, "a text", one), (1, "a text", other)]
    report = ingest(data_of(rows, tmp_path), tmp_path / "snapshot", IngestConfig())
    assert (report.rows, report.duplicates) == (2, 0)


def test_near_duplicates_of_one_label_go_and_are_counted(tmp_path):
    text = "the quick brown fox jumps over the lazy dog and runs away from all of them"
    rows = [(0, text, "x"), (1, text + "!", "x"), (1, text + "!", "y"), (1, "else", "x")]
    config = IngestConfig(near_duplicates=0.9)
    report = ingest(data_of(rows, tmp_path), tmp_path / "snapshot", config)
    frame = pd.read_parquet(tmp_path / "snapshot" / ROWS)
    assert frame["id"].tolist() == ["0000", "0002", "0003"]
    assert (report.read, report.rows, report.duplicates, report.near_duplicates) == (4, 3, 0, 1)
