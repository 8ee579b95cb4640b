from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.erasures import Forgotten, digest_of_name
from components.errors import StoreError
from components.request_log import digest_of_content
from components.store import LocalStore
from pipelines.erasing import Traces, erase
from pipelines.project_file import load

HERS = "a content that nobody else writes"


@pytest.fixture
def traces():
    frame = pd.DataFrame(
        {
            "id": ["shop:r1", "shop:r2", None],
            "group": ["ann", "ann", "ann"],
            "source": ["shop", "shop", None],
            "text": [HERS, "ok", None],
        }
    )
    named = Forgotten({"group": frozenset([digest_of_name("ann")])})
    return Traces(named, frame, frozenset(["r3,ann"]))


@pytest.fixture
def project(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(
        "name: shop\n"
        "task: {kind: text-classification, labels: [bad, good]}\n"
        "source: {files: [{path: rows.csv}]}\n"
        f"finetune: {{base: {tmp_path}}}\n"
    )
    return load(str(path))


@pytest.mark.parametrize(
    ("table", "theirs"),
    [
        ({"id": ["a", "b", None], "group": ["ann", "bob", None]}, [True, False, False]),
        # As predictions and the server's log know rows: by ids, with or without their source.
        ({"id": ["shop:r1", "r2", "r22"]}, [True, True, False]),
        # A content tells whose it is, or its digest; one that anybody writes does not.
        ({"text": [HERS, "ok", None]}, [True, False, False]),
        (
            {"digest": [digest_of_content(HERS), digest_of_content("ok"), None]},
            [True, False, False],
        ),
        # A line that was no row, where it is kept and in quarantine.
        ({"raw": ["r3,ann", "r4,bob"]}, [True, False]),
        ({"text": ["r3,ann", "r4,bob"], "source": ["(not read)"] * 2}, [True, False]),
        ({"answer": ["ann"]}, [False]),
    ],
)
def test_somebodys_rows_are_told_in_any_table(traces, table, theirs):
    assert traces.rows(pd.DataFrame(table)).tolist() == theirs


def test_large_tables_are_cleaned_and_half_written_ones_deleted(
    traces, tmp_path, project, monkeypatch
):
    monkeypatch.setattr("pipelines.erasing.MAX_BYTES", 10)
    folder = tmp_path / "home" / "artifacts"
    folder.mkdir(parents=True)
    table = pa.table({"id": ["a", "b"], "group": ["ann", "bob"], "note": ["x", "y"]})
    pq.write_table(table.replace_schema_metadata({"k": "v"}), folder / "rows.parquet")
    (folder / "half.parquet").write_bytes((folder / "rows.parquet").read_bytes()[:60])
    (folder / "other.parquet").write_bytes(b"")
    cleaned = erase(LocalStore(tmp_path / "store"), project, traces, tmp_path / "home")
    assert (cleaned.rows, cleaned.deleted) == (1, [str(folder / "half.parquet")])
    left = pq.read_table(folder / "rows.parquet")
    assert left["id"].to_pylist() == ["b"]
    assert left.schema.metadata == {b"k": b"v"}
    assert sorted(each.name for each in folder.iterdir()) == ["other.parquet", "rows.parquet"]


def test_a_damaged_object_is_named(traces, tmp_path, project):
    store = LocalStore(tmp_path / "store")
    store.put("summaries/1.parquet", b"PAR1 and no more")
    with pytest.raises(StoreError, match=r"summaries/1\.parquet is damaged.*delete it"):
        erase(store, project, traces, tmp_path)
