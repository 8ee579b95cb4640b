"""How fast rows come in: one large CSV, many small objects, and the day after.

Each figure's two sides run one after the other, each in a process of its own that has
imported what it needs and whose peak of memory is its own. Ours resolves and ingests, as a
run does: every row is read, checked, mapped and kept, and the newest windows become a
snapshot. The peers only read: pandas a CSV, a loop over boto3 objects of JSON lines.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.figures import Figure, out, run

CSV_BYTES, QUICK_CSV_BYTES = 2_000_000_000, 60_000_000
OBJECTS, QUICK_OBJECTS, OBJECT_ROWS = 10_000, 500, 20
DAYS = 100
SPEED, MAX_PEAK_BYTES, MAX_NEW_SHARE = 3.0, 1_000_000_000, 0.05
BUCKET, KEY = "bench", "only-for-this-benchmark"
START_S = 60
_START = np.datetime64("2026-01-01T00:00:00", "s")
_WINDOWS = {"window_days": 1, "start": "2026-01-01", "history_windows": 1}


def measure(quick: bool) -> list[Figure]:
    """Compare rows a second, and look at memory and at what one more day costs."""
    with tempfile.TemporaryDirectory(prefix="tokiwa-ingest-") as place:
        folder = Path(place)
        figures = _large_file(folder / "csv", QUICK_CSV_BYTES if quick else CSV_BYTES)
        with _s3(folder / "s3") as environment:
            figures += _small_objects(environment, QUICK_OBJECTS if quick else OBJECTS)
    return figures


def _large_file(folder: Path, size: int) -> list[Figure]:
    (folder / "data").mkdir(parents=True)
    rows = _write_csv(folder / "data" / "events.csv", size)
    with (folder / "data" / "events.csv").open("rb") as file:
        while file.read(1 << 24):  # whoever comes first does not pay for the disk
            pass
    peer = _apart("pandas", folder)
    ours = _apart("files", folder)
    _write_day(folder / "data" / "next.csv", rows, DAYS, max(1, rows // 100))
    again = _apart("files", folder)
    share = again["seconds"] / ours["seconds"]
    return [
        Figure(
            figure="csv",
            ours=round(rows / ours["seconds"]),
            peer=round(rows / peer["seconds"]),
            ratio=round(peer["seconds"] / ours["seconds"], 2),
            goal=f"at least {SPEED:g} times the rows a second of pandas' read_csv",
            holds=peer["seconds"] >= SPEED * ours["seconds"],
        ),
        _memory("csv memory", ours, peer),
        Figure(
            figure="new day",
            ours=round(again["seconds"], 2),
            peer=round(ours["seconds"], 2),
            ratio=round(share, 3),
            goal=f"one per cent more rows in at most {MAX_NEW_SHARE:.0%} of the first time",
            holds=share <= MAX_NEW_SHARE,
        ),
    ]


def _small_objects(environment: dict[str, str], count: int) -> list[Figure]:
    _apart("upload", count, environment=environment)
    peer = _apart("boto3", environment=environment)
    ours = _apart("s3", environment=environment)
    rows = count * OBJECT_ROWS
    assert peer["rows"] == rows
    return [
        Figure(
            figure="objects",
            ours=round(rows / ours["seconds"]),
            peer=round(rows / peer["seconds"]),
            ratio=round(peer["seconds"] / ours["seconds"], 2),
            goal=f"at least {SPEED:g} times the rows a second of a loop over boto3",
            holds=peer["seconds"] >= SPEED * ours["seconds"],
        ),
        _memory("objects memory", ours, peer),
    ]


def _memory(figure: str, ours: dict[str, Any], peer: dict[str, Any]) -> Figure:
    return Figure(
        figure=figure,
        ours=round(ours["peak_bytes"] / 1e6),
        peer=round(peer["peak_bytes"] / 1e6),
        ratio=round(ours["peak_bytes"] / peer["peak_bytes"], 2),
        goal=f"at most {MAX_PEAK_BYTES / 1e6:,.0f} MB at the peak",
        holds=ours["peak_bytes"] <= MAX_PEAK_BYTES,
    )


# --- what is read ---


def _write_csv(path: Path, size: int) -> int:
    """Write a log of so many bytes over ``DAYS`` days, and return its rows."""
    sample = path.with_suffix(".sample")
    _write_day(sample, 0, 0, 20_000)
    rows = int(size / sample.stat().st_size * 20_000)
    sample.unlink()
    first = 0
    for day in range(DAYS):
        count = rows * (day + 1) // DAYS - first
        _write_day(path, first, day, count)
        first += count
    return rows


def _write_day(path: Path, first: int, day: int, count: int) -> None:
    """Add a day's rows to a CSV: ids from ``first``, times in order, quoted texts."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pv

    draw = np.random.default_rng(day)
    words = np.array([f"word{number}" for number in range(3000)])
    texts = np.array([" ".join(draw.choice(words, 12)) for _ in range(2000)], dtype=object)
    numbers = pa.array(np.arange(first, first + count)).cast(pa.string())
    seconds = np.sort(draw.integers(0, 86_400, count)).astype("timedelta64[s]")
    table = pa.table(
        {
            "id": numbers,
            "time": pc.strftime(pa.array(_START + np.timedelta64(day, "D") + seconds)),
            "customer": pc.binary_join_element_wise("c", numbers, ""),
            "text": pc.binary_join_element_wise(
                pa.array(texts[draw.integers(0, 2000, count)]), numbers, " "
            ),
            "label": pa.array(np.array(["good", "bad"], dtype=object)[draw.integers(0, 2, count)]),
            "country": pa.array(
                np.array(["jp", "de", "fr"], dtype=object)[draw.integers(0, 3, count)]
            ),
            "age": draw.integers(18, 90, count),
            "amount": np.round(draw.random(count) * 1000, 2),
        }
    )
    is_new = not path.exists()
    with path.open("ab") as file:
        pv.write_csv(table, file, pv.WriteOptions(include_header=is_new))


# --- the sides, each in a process of its own ---


def _resolve_and_ingest(section: dict[str, Any], folder: Path, days: int) -> None:
    from components.ingest.core import IngestConfig, ingest
    from components.plan import Data, WindowData
    from components.resolve.core import ResolveConfig, known_windows
    from components.sources import open_source, parse_source
    from components.store import LocalStore

    store = LocalStore(folder / "objects")
    config = ResolveConfig.model_validate(_WINDOWS)
    source = parse_source(json.dumps(section))
    opened = open_source(source, store)
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days)
    windows = known_windows(config, now)[-2:]
    planned = [WindowData(window=each, **opened.facts(each).model_dump()) for each in windows]
    assert all(each.rows for each in planned)
    snapshot = folder / "snapshot"
    shutil.rmtree(snapshot, ignore_errors=True)
    ingest(Data(source=source, windows=planned), snapshot, IngestConfig(), store=store)


_COLUMNS = {"id": "id", "group": "customer", "time": "time", "metadata": ["country", "age"]}


def _files(place: str) -> int:
    folder = Path(place)
    section = {"root": str(folder / "data"), "files": [{"path": "*.csv"}], "columns": _COLUMNS}
    days = DAYS + (folder / "data" / "next.csv").exists()
    _resolve_and_ingest(section, folder, days)
    return 0


def _pandas(place: str) -> int:
    import pandas as pd

    return len(pd.read_csv(Path(place) / "data" / "events.csv"))


def _s3_rows(number: int) -> Iterator[dict[str, str]]:
    for row in range(OBJECT_ROWS):
        name = f"{number}-{row}"
        text = f"what was said in {name}, and some words more"
        yield {"id": name, "customer": name, "time": "2026-01-01", "text": text, "label": "good",
               "country": "jp", "age": "30"}  # fmt: skip


def _upload(count: str) -> int:
    from components.store import s3_client

    client = s3_client()
    for _ in range(START_S * 10):
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
            break
        except Exception:  # whatever it says, it has not started yet
            time.sleep(0.1)

    def put(number: int) -> None:
        body = "\n".join(map(json.dumps, _s3_rows(number))).encode()
        client.put_object(Bucket=BUCKET, Key=f"in/{number:06}.jsonl", Body=body)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(int(count))))
    return 0


def _boto3() -> int:
    import boto3

    client, rows = boto3.client("s3"), []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="in/"):
        for each in page["Contents"]:
            content = client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read()
            rows += [json.loads(line) for line in content.splitlines()]
    return len(rows)


def _objects() -> int:
    section = {"kind": "s3", "url": f"s3://{BUCKET}/in", "columns": _COLUMNS}
    with tempfile.TemporaryDirectory() as folder:
        from components.ingest.core import IngestConfig, ingest
        from components.plan import Data, WindowData
        from components.sources import open_source, parse_source
        from components.store import LocalStore
        from components.windows import ALL_TIME

        store, source = LocalStore(Path(folder) / "objects"), parse_source(json.dumps(section))
        facts = open_source(source, store).facts(ALL_TIME)
        planned = WindowData(window=ALL_TIME, **facts.model_dump())
        data = Data(source=source, windows=[planned])
        return ingest(data, Path(folder) / "snapshot", IngestConfig(), store=store).read


_SIDES: dict[str, Callable[..., int]] = {
    "files": _files,
    "pandas": _pandas,
    "upload": _upload,
    "boto3": _boto3,
    "s3": _objects,
}


def _apart(side: str, *arguments: Any, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run one side in a process of its own; return its seconds, rows and peak of memory."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--side", side, *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _run_side(side: str, *arguments: str) -> None:
    # What a step has imported before it begins to read.
    for module in ("components.ingest.core", "components.resolve.core"):
        importlib.import_module(module)
    begun = time.perf_counter()
    rows = _SIDES[side](*arguments)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "rows": rows, "peak_bytes": peak}))


@contextmanager
def _s3(home: Path) -> Iterator[dict[str, str]]:
    """Run SeaweedFS on loopback, and give the environment that opens it."""
    home.mkdir(parents=True)
    identity = {
        "name": "bench",
        "credentials": [{"accessKey": BUCKET, "secretKey": KEY}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (home / "s3.json").write_text(json.dumps({"identities": [identity]}))
    roles = ["master", "volume", "filer", "s3"]
    names = [f"-{role}.port{kind}" for role in roles for kind in ("", ".grpc")]
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    command = [
        str(Path(sysconfig.get_path("scripts")) / "weed"),
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={home}",
        "-filer",
        "-s3",
        "-s3.config=s3.json",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.electionTimeout=1s",
        "-master.heartbeatInterval=100ms",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=200",
        *(f"-{role}.localSocket={home}/{role}.sock" for role in ("filer", "s3")),
        *(f"{name}={port}" for name, port in ports.items()),
    ]
    with (home / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
    try:
        yield {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{ports['-s3.port']}",
            "AWS_ACCESS_KEY_ID": BUCKET,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.kill()
        server.wait(10)


def show(figures: Sequence[Figure]) -> None:
    """Print the table."""
    table = Table(title="rows that come in", title_justify="left")
    for name in ("figure", "ours", "peer", "ratio", "goal", ""):
        table.add_column(name, justify="right" if name in ("ours", "peer", "ratio") else "left")
    units = {"csv": " rows/s", "objects": " rows/s", "new day": " s"}
    for each in figures:
        unit = units.get(each.figure, " MB")
        table.add_row(
            each.figure,
            f"{each.ours:,.6g}{unit}",
            f"{each.peer:,.6g}{unit}",
            f"{each.ratio:g}",
            each.goal,
            "holds" if each.holds else "does not hold",
        )
    out.print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        _run_side(*sys.argv[2:])
    else:
        sys.exit(run(measure, show))
