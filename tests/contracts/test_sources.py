"""What every kind of source promises, whatever it reads from."""

from __future__ import annotations

import json
import shutil
import threading
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from zoneinfo import ZoneInfo

import pytest

from components.ingest.core import IngestConfig, ingest
from components.plan import Data, WindowData
from components.request_log import COLUMNS as LOGGED
from components.request_log import RequestLog, new_file
from components.sources import SOURCES, open_source, parse_source
from components.sources.mapping import ORDER
from components.sources.rows import COLUMNS
from components.store import LocalStore
from components.windows import ALL_TIME, Window

ZONE = ZoneInfo("Europe/Berlin")
# The clocks change on March 29: the day has 23 hours.
DAYS = [Window.of_days(date(2026, 3, day), 1, ZONE) for day in (28, 29, 30)]


def rows_of(windows):
    """Two rows right at the ends of each window, one of them the last that is inside."""
    found = []
    for number, window in enumerate(windows):
        last = datetime.fromisoformat(window.end) - timedelta(microseconds=1)
        for place, moment in (("first", window.begins), ("last", last)):
            row = f"{number}-{place}"
            found.append(
                {"id": row, "text": f"text {row}", "label": "x", "when": moment.isoformat()}
            )
    return found


class Files:
    def __init__(self, folder):
        self.path = folder / "rows.jsonl"
        self.section = {"kind": "files", "root": str(folder), "files": [{"path": "rows.jsonl"}]}

    def put(self, rows):
        self.path.write_text("\n".join(map(json.dumps, rows)))


class S3:
    def __init__(self, url):
        from components.store import open_store

        self.store = open_store(url)
        self.section = {"kind": "s3", "url": f"{url}/data", "pattern": "*.jsonl"}

    def put(self, rows):
        self.store.put("data/rows.jsonl", "\n".join(map(json.dumps, rows)).encode())


class Sql:
    def __init__(self, url, monkeypatch):
        from sqlalchemy import create_engine

        monkeypatch.setenv("TOKIWA_SQL_URL", url)
        self.engine = create_engine(url)
        self.section = {"kind": "sql", "table": "contract"}

    def put(self, rows):
        from sqlalchemy import text

        with self.engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS contract"))
            columns = 'id text, text text, label text, "when" timestamptz'
            connection.execute(text(f"CREATE TABLE contract ({columns})"))
            insert = "INSERT INTO contract VALUES (:id, :text, :label, CAST(:when AS timestamptz))"
            connection.execute(text(insert), rows)
        self.engine.dispose()


class Http:
    def __init__(self, monkeypatch):
        pages: list[list[dict[str, str]]] = []
        self.pages = pages

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                page = int(self.path.rpartition("=")[2] or 1)
                content = json.dumps(pages[page - 1] if page <= len(pages) else []).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TOKIWA_HTTP_NETWORKS", "127.0.0.0/8")
        url = f"http://127.0.0.1:{self.server.server_port}/rows"
        self.section = {"kind": "http", "url": url, "page_param": "page"}

    def put(self, rows):
        self.pages[:] = [rows[start : start + 2] for start in range(0, len(rows), 2)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Kafka:
    """A broker that librdkafka brings along, behind a real socket."""

    def __init__(self):
        from confluent_kafka import Producer

        self.producer = Producer(
            {"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0}
        )
        brokers = self.producer.list_topics(timeout=10).brokers.values()
        self.section = {
            "kind": "kafka",
            "brokers": [f"{each.host}:{each.port}" for each in brokers],
            "topic": "rows",
        }

    def put(self, rows):
        for number, row in enumerate(rows):
            self.producer.produce("rows", json.dumps(row).encode(), partition=number % 2)
        assert self.producer.flush(10) == 0


class Requests:
    def __init__(self, store, monkeypatch):
        monkeypatch.setenv("TOKIWA_STORE", str(store))
        self.folder = store / "projects/demo"
        self.log = RequestLog(LocalStore(store), "projects/demo")
        self.section = {"kind": "requests", "ledger": "projects/demo"}

    def put(self, rows):
        shutil.rmtree(self.folder, ignore_errors=True)
        file = new_file(datetime(2026, 3, 28, tzinfo=ZONE))
        known = dict.fromkeys(LOGGED)
        written = [{**row, "time": row["when"]} for row in rows]
        self.log.write(file, [{name: row.get(name) for name in known} for row in written])


@pytest.fixture(
    params=[
        "files",
        "requests",
        "s3",
        "sql",
        "http",
        "kafka",
    ]
)
def kind(request, tmp_path, monkeypatch):
    if request.param == "files":
        (tmp_path / "data").mkdir()
        yield Files(tmp_path / "data")
    elif request.param == "requests":
        yield Requests(tmp_path / "served", monkeypatch)
    elif request.param == "s3":
        yield S3(request.getfixturevalue("s3_url"))
    elif request.param == "sql":
        yield Sql(request.getfixturevalue("postgres_url"), monkeypatch)
    elif request.param == "kafka":
        yield Kafka()
    else:
        served = Http(monkeypatch)
        yield served
        served.close()


@pytest.fixture
def opened(kind, tmp_path):
    """Open the source anew, as another step would, on what is kept of it."""
    store = LocalStore(tmp_path / "objects")
    section = kind.section | {
        "columns": {"id": "id", "time": "time" if kind.section["kind"] == "requests" else "when"},
        "timezone": "Europe/Berlin",
        "name": "web",
    }
    if section["kind"] == "files":
        section["files"][0]["name"] = section.pop("name")
    config = parse_source(json.dumps(section))
    return lambda kept=True: open_source(config, store if kept else None)


def test_the_contract_knows_all_kinds():
    assert set(SOURCES) == {"files", "s3", "sql", "http", "kafka", "requests"}


def test_windows_are_half_open_also_when_the_clocks_change(kind, opened):
    kind.put(rows_of(DAYS))
    for number, window in enumerate(DAYS):
        frame = opened().read(window).frame
        assert list(frame) == list(COLUMNS)
        assert frame["id"].tolist() == [f"web:{number}-first", f"web:{number}-last"]
        assert set(frame["source"]) == {"web"}
    assert len(opened().read(ALL_TIME).frame) == 6
    assert opened().span() == (
        "2026-03-27T23:00:00+00:00",
        "2026-03-30T21:59:59.999999+00:00",
    )


@pytest.mark.parametrize(
    "kind",
    [
        "files",
        "requests",
        "s3",
        "sql",
        "http",
    ],
    indirect=True,
    # What a topic holds cannot be changed, see tests/components/sources/test_kafka.py.
)
def test_the_fingerprint_of_a_window_follows_its_rows_and_no_others(kind, opened):
    rows = rows_of(DAYS)
    kind.put(rows)
    facts = [opened().facts(window) for window in DAYS]
    assert [each.rows for each in facts] == [2, 2, 2]
    assert len({each.fingerprint for each in facts}) == 3
    assert [opened().facts(window) for window in DAYS] == facts
    assert [opened(kept=False).facts(window) for window in DAYS] == facts
    kind.put([*rows[:2], rows[2] | {"text": "changed"}, *rows[3:]])
    changed = [opened().facts(window) for window in DAYS]
    assert [now == then for now, then in zip(changed, facts, strict=True)] == [True, False, True]
    kind.put(rows[::-1])
    assert [opened().facts(window) for window in DAYS] == facts
    kind.put(rows[:-1])
    assert [opened().facts(window).rows for window in DAYS] == [2, 2, 1]


def test_parts_of_a_window_have_the_rows_of_the_whole_and_share_none(kind, opened):
    kind.put(rows_of(DAYS))
    source = opened()
    for window in DAYS:
        ids = source.read(window).frame["id"].tolist()
        for count in (1, 2, 5):
            parts = [list(source.batches(window, part)) for part in window.slices(count)]
            found = [[id_ for batch in part for id_ in batch["id"].to_pylist()] for part in parts]
            assert [id_ for part in found for id_ in part] == ids
            assert all(set(ORDER) <= set(each.column_names) for part in parts for each in part)
        # The first and the last instant are a day apart, and so in parts of their own.
        assert [len(part) for part in found] == [1, 0, 0, 0, 1]


def test_a_snapshot_has_the_rows_of_the_plan(kind, opened, tmp_path):
    kind.put(rows_of(DAYS))
    source = opened()
    planned = [WindowData(window=day, **source.facts(day).model_dump()) for day in DAYS]
    data = Data(source=source._config, windows=planned)
    reports = [
        ingest(Data.from_json(data.to_json()), tmp_path / name, IngestConfig(), store=store)
        for name, store in (("kept", LocalStore(tmp_path / "objects")), ("read", None))
    ]
    assert reports[0] == reports[1]
    assert reports[0].rows == 6


def test_rows_without_a_time_are_handed_over(kind, opened):
    rows = rows_of(DAYS)
    rows[1] = rows[1] | {"when": None}
    kind.put(rows)
    found = opened().unreadable(ALL_TIME, with_undated=True).to_pylist()
    if kind.section["kind"] == "sql":  # the database was asked for times: such rows are in none
        found = [row for row in found if row["reasons"] == "missing-time"]
    assert [row["reasons"] for row in found] == ["missing-time"]
    assert "text 0-last" in found[0]["raw"]
