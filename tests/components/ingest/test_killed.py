"""An ingest that is killed anywhere, and run again: the same snapshot, and no row lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from zoneinfo import ZoneInfo

import pytest

from components.ingest.core import MANIFEST, ROWS, UNREADABLE, IngestConfig, Manifest, ingest
from components.plan import Data, WindowData
from components.sources import open_source, parse_source
from components.store import open_store
from components.windows import Window

DAYS = [Window.of_days(date(2026, 1, day), 1, ZoneInfo("UTC")) for day in (5, 6)]

KILLED = '''
"""Ingest again and again, each time in a process that dies a little later than the last."""
import os, sys
from pathlib import Path
from components.ingest.core import IngestConfig, ingest
from components.plan import Data
from components.store import Store, open_store
import numpy, pandas, pyarrow.parquet, components.sources.files  # once, and not in each process

plan, place, folder, what = sys.argv[1:]
data = Data.from_json(Path(plan).read_text())
calls = ("get", "put", "create_if_absent", "exists", "list", "upload", "download")
files = ("open", "os.rename", "os.link", "os.mkdir", "os.remove")
count = 0

def reached(last):
    global count
    count += 1
    if count == last:
        os._exit(9)

def dying(call, last):
    def run(self, *args):
        reached(last)          # before the store heard of it
        answer = call(self, *args)
        reached(last)          # when the store did it, and nobody heard that it did
        return answer
    return run

def attempt(last):
    store = open_store(f"{place}-{last}")
    if what == "store":
        kind = type(store)
        for name in calls:
            setattr(kind, name, dying(getattr(kind, name), last))
    else:
        sys.addaudithook(lambda name, args: reached(last) if name in files else None)
    ingest(data, Path(f"{folder}-{last}"), IngestConfig(), store=store)
    os._exit(0)

last, died = 1, 9
while died == 9:
    child = os.fork()
    if not child:
        try:
            attempt(last)
        finally:
            os._exit(1)
    died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    last += 1
print(last - 2 if died == 0 else f"failed with {died}")
'''


@pytest.fixture
def data(tmp_path):
    """Two days in two files, with a row that is none."""
    for number in range(2):
        rows = [f"{number}{row},text {row},x,2026-01-0{5 + row % 2}" for row in range(9)]
        text = "\n".join(["id,text,label,day", *rows, "one,too,many,fields,here"])
        (tmp_path / f"{number}.csv").write_text(text + "\n")
    section = {
        "root": str(tmp_path),
        "files": [{"path": "*.csv"}],
        "columns": {"id": "id", "time": "day"},
    }
    source = parse_source(json.dumps(section))
    opened = open_source(source)
    windows = [WindowData(window=day, **opened.facts(day).model_dump()) for day in DAYS]
    return Data(source=source, windows=windows)


def content(folder):
    return [(folder / name).read_bytes() for name in (ROWS, UNREADABLE)]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["store", "files"])
@pytest.mark.parametrize("where", ["local", "s3"])
def test_an_ingest_killed_anywhere_and_run_again_gives_the_same_snapshot(
    data, tmp_path, what, where, request
):
    place = str(tmp_path / "store") if where == "local" else request.getfixturevalue("s3_url")
    whole = ingest(data, tmp_path / "whole", IngestConfig())
    assert (whole.read, whole.unreadable, whole.duplicates) == (20, 2, 9)
    (tmp_path / "plan.json").write_text(data.to_json())
    words = [tmp_path / "plan.json", place, tmp_path / "killed", what]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
    )
    assert done.stdout.strip().isdigit(), done.stdout + done.stderr[-2000:]
    deaths = int(done.stdout)
    assert deaths >= 10
    for last in range(1, deaths + 1):
        folder = tmp_path / f"killed-{last}"
        if (folder / MANIFEST).exists():  # it is written last: all the rest was there
            assert Manifest.from_json((folder / MANIFEST).read_text()).report == whole
            assert content(folder) == content(tmp_path / "whole")
        store = open_store(f"{place}-{last}")
        assert ingest(data, folder, IngestConfig(), store=store) == whole
        assert content(folder) == content(tmp_path / "whole")
