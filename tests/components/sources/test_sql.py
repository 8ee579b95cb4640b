from __future__ import annotations

import json
from datetime import date
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, text

from components.errors import ConfigError, SourceError, UserError
from components.sources import open_source, parse_source
from components.sources.sql import SqlSource
from components.store import LocalStore
from components.windows import ALL_TIME, Window

DAY = Window.of_days(date(2026, 1, 5), 1, ZoneInfo("UTC"))
COLUMNS = {"id": "id", "time": "at"}


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A database of one file, which needs no server."""
    monkeypatch.setenv("TOKIWA_SQL_URL", f"sqlite:///{tmp_path}/rows.db")
    engine = create_engine(f"sqlite:///{tmp_path}/rows.db")
    yield engine
    engine.dispose()


def fill(engine, *rows, kind="text"):
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS reviews"))
        columns = f"id integer, text text, label text, at {kind}, version integer"
        connection.execute(text(f"CREATE TABLE reviews ({columns})"))
        for number, row in enumerate(rows):
            insert = "INSERT INTO reviews VALUES (:id, :text, :label, :at, :version)"
            connection.execute(text(insert), {"id": number, "label": "x", "version": number} | row)


def opened(store=None, **section):
    given = {"kind": "sql", "table": "reviews", "columns": COLUMNS, **section}
    return open_source(parse_source(json.dumps(given)), store)


def texts(source, window=ALL_TIME):
    return source.read(window).frame["text"].tolist()


def test_a_table_or_a_query_is_read(database):
    fill(database, {"text": "a", "at": "2026-01-05"}, {"text": "b", "at": "2026-01-06"})
    assert texts(opened(key="version"), DAY) == ["a"]
    query = "SELECT * FROM reviews WHERE text = 'b';"
    assert texts(opened(key="version", table=None, query=query)) == ["b"]


def test_a_query_may_end_with_a_comment(database):
    fill(database, {"text": "a", "at": "2026-01-05"})
    query = "SELECT * FROM reviews -- all of them"
    assert texts(opened(key="version", table=None, query=query)) == ["a"]


def test_rows_without_an_id_have_the_same_in_whatever_order_they_come(database):
    rows = [{"text": "a", "at": "2026-01-05", "label": label, "version": 1} for label in "xyz"]
    columns = {"time": "at"}
    fill(database, *rows)
    facts = opened(key="version", columns=columns).facts(DAY)
    fill(database, *rows[::-1])
    assert opened(key="version", columns=columns).facts(DAY) == facts


def test_count_and_key_tell_whether_anything_changed(database, tmp_path, monkeypatch):
    store = LocalStore(tmp_path / "objects")
    rows = [{"text": "a", "at": "2026-01-05"}, {"text": "b", "at": "2026-01-05"}]
    fill(database, *rows)
    facts = opened(store, key="version").facts(DAY)
    monkeypatch.setattr(SqlSource, "_blocks", None)
    assert opened(store, key="version").facts(DAY) == facts
    monkeypatch.undo()
    monkeypatch.setenv("TOKIWA_SQL_URL", str(database.url))
    fill(database, rows[0], rows[1] | {"version": 9, "text": "B"})
    assert opened(store, key="version").facts(DAY) != facts
    fill(database, rows[0])
    assert opened(store, key="version").facts(DAY).rows == 1


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("", UserError, "set TOKIWA_SQL_URL"),
        ("rubbish with geheim", UserError, "is no address of a database"),
        ("postgresql+nosuch://u:geheim@h/d", UserError, "is no address of a database"),
        ("sqlite:////no/such/folder/geheim.db", SourceError, "cannot read sqlite"),
    ],
)
def test_a_wrong_address_is_one_line_without_it(monkeypatch, url, error, says):
    monkeypatch.setenv("TOKIWA_SQL_URL", url)
    with pytest.raises(error, match=says) as refusal:
        opened(key="version").read(ALL_TIME)
    assert "u:geheim" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_database_that_cannot_hash_needs_a_key(database):
    fill(database, {"text": "a", "at": "2026-01-05"})
    with pytest.raises(ConfigError, match=r"source\.key is needed with sqlite"):
        opened().read(ALL_TIME)


def test_a_missing_column_is_named(database):
    fill(database, {"text": "a", "at": "2026-01-05"})
    with pytest.raises(ConfigError, match=r"no column body; it has id, text, label, at, version"):
        opened(key="version", columns={"text": "body"}).read(ALL_TIME)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"table": None}, "name a table or a query"),
        ({"query": "SELECT 1"}, "name a table or a query"),
        ({"table": "a; DROP TABLE b"}, "name of a table"),
        ({"url_from": "postgresql://u:pw@h/d"}, "environment variable"),
    ],
)
def test_sections_that_make_no_sense_are_refused(section, says):
    with pytest.raises(ValidationError, match=says):
        opened(**section)


# --- PostgreSQL ---


@pytest.fixture
def postgres(postgres_url, monkeypatch):
    monkeypatch.setenv("TOKIWA_SQL_URL", postgres_url)
    engine = create_engine(postgres_url)
    yield engine
    engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date", "text"])
def test_a_window_of_any_type_of_time(postgres, kind):
    days = ["2026-01-04", "2026-01-05", "2026-01-06"]
    fill(postgres, *({"text": day, "at": day} for day in days), kind=kind)
    with postgres.begin() as connection:
        connection.execute(text("SET TIME ZONE 'UTC'"))
    assert texts(opened(), DAY) == ["2026-01-05"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_a_time_that_python_does_not_know_costs_its_row_alone(postgres, kind):
    times = ["infinity", "2026-01-05", "0044-03-15 BC"]
    fill(postgres, *({"text": time, "at": time} for time in times), kind=kind)
    assert texts(opened()) == ["2026-01-05"]
    assert texts(opened(), DAY) == ["2026-01-05"]
    reasons = opened().unreadable(ALL_TIME, True)["reasons"].to_pylist()
    assert reasons == ["unreadable-time"] * 2


@pytest.mark.slow
def test_every_row_is_hashed_where_there_is_no_key(postgres):
    rows = [{"text": "a", "at": "2026-01-05"}, {"text": "b", "at": "2026-01-05"}]
    fill(postgres, *rows, kind="timestamptz")
    facts = opened().facts(DAY)
    fill(postgres, rows[0], rows[1] | {"text": "B"}, kind="timestamptz")
    assert opened().facts(DAY) != facts


@pytest.mark.slow
def test_rows_come_by_a_cursor_of_the_server(postgres, monkeypatch):
    from components.sources import sql

    monkeypatch.setattr(sql, "ROWS", 7)
    fill(postgres, *({"text": f"{number:02}", "at": "2026-01-05"} for number in range(30)))
    blocks = list(opened()._blocks(ALL_TIME, _version(opened()), ["text", "id"]))
    assert [len(block.rows) for block in blocks] == [7, 7, 7, 7, 2]
    assert sorted(texts(opened())) == [f"{number:02}" for number in range(30)]


def _version(source):
    with source._connected() as connection:
        return source._version(connection, ALL_TIME)


@pytest.mark.slow
def test_a_reader_cannot_write_and_is_told_what_it_may_not_read(
    postgres, postgres_url, monkeypatch
):
    fill(postgres, {"text": "a", "at": "2026-01-05"})
    with postgres.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS stranger"))
        connection.execute(text("CREATE ROLE stranger LOGIN PASSWORD 'geheim'"))
    with pytest.raises((SourceError, ConfigError)):
        query = "WITH gone AS (DELETE FROM reviews RETURNING *) SELECT * FROM gone"
        texts(opened(table=None, query=query))
    assert texts(opened()) == ["a"]
    monkeypatch.setenv("TOKIWA_SQL_URL", postgres_url.replace("postgres:@", "stranger:geheim@"))
    with pytest.raises(SourceError, match="does not let this user read") as refusal:
        texts(opened())
    assert "geheim" not in str(refusal.value)


@pytest.mark.slow
def test_a_slow_statement_is_broken_off(postgres):
    query = "SELECT 1 AS id, 'a' AS text, 'x' AS label, pg_sleep(9)::text AS at"
    with pytest.raises(SourceError, match="took more than 1 s"):
        texts(opened(table=None, query=query, statement_timeout_s=1))
