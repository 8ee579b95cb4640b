"""Topics of a broker that librdkafka brings along: the real protocol, on a real socket."""

from __future__ import annotations

import json
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from components.errors import ConfigError, SourceError, UserError
from components.sources import kafka, open_source, parse_source, reading
from components.store import LocalStore
from components.windows import ALL_TIME, Window

DAY = Window.of_days(date(2026, 1, 5), 1, ZoneInfo("UTC"))


@pytest.fixture
def producer():
    from confluent_kafka import Producer

    return Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})


@pytest.fixture
def put(producer):
    """Append messages to a partition: dicts as JSON, bytes as they are."""

    def run(*messages, partition=0, topic="rows", key=None):
        for each in messages:
            value = json.dumps(each).encode() if isinstance(each, dict) else each
            producer.produce(topic, value, key, partition=partition)
        assert producer.flush(10) == 0

    return run


@pytest.fixture
def section(producer):
    brokers = producer.list_topics(timeout=10).brokers.values()
    return {
        "kind": "kafka",
        "brokers": [f"{each.host}:{each.port}" for each in brokers],
        "topic": "rows",
        "columns": {"id": "id", "time": "when"},
    }


@pytest.fixture
def opened(section, tmp_path):
    def open_(**changed):
        config = parse_source(json.dumps(section | changed))
        return open_source(config, LocalStore(tmp_path / "objects"))

    return open_


def row(number, text=""):
    return {
        "id": f"r{number:03d}",
        "text": text or f"text {number}",
        "label": "x",
        "when": f"2026-01-05T{number % 24:02d}:00:00+00:00",
    }


def ids(source):
    return sorted(source.read(ALL_TIME).frame["id"])


def test_full_ranges_are_read_once_and_a_growing_one_again(put, opened, monkeypatch):
    monkeypatch.setattr(kafka, "RANGE", 10)
    read = []
    drain = kafka.KafkaSource._blocks

    def counted(self, partition, start, end, form, wanted):
        read.append((partition, start, end))
        return drain(self, partition, start, end, form, wanted)

    monkeypatch.setattr(kafka.KafkaSource, "_blocks", counted)
    put(*map(row, range(25)))
    put(*map(row, range(100, 103)), partition=1)
    assert len(ids(opened())) == 28
    assert sorted(read) == [(0, 0, 10), (0, 10, 20), (0, 20, 25), (1, 0, 3)]
    read.clear()
    assert len(ids(opened())) == 28 and read == []
    before = opened().facts(DAY)
    put(*map(row, range(25, 32)))
    assert len(ids(opened())) == 35
    assert sorted(read) == [(0, 20, 30), (0, 30, 32)]
    after = opened().facts(DAY)
    assert (before.rows, after.rows) == (28, 35)
    assert before.fingerprint != after.fingerprint


def test_what_comes_while_a_run_reads_is_the_next_runs(put, opened):
    put(*map(row, range(5)))
    source = opened()
    planned = source.facts(DAY)
    put(row(5))
    assert source.facts(DAY) == planned
    assert len(ids(source)) == 5
    assert len(ids(opened())) == 6


def test_a_message_that_is_no_row_is_handed_over_with_its_offset(put, opened):
    put(
        row(0),
        b"no json",
        row(1),
        None,
        b"[1, 2]",
        b'{"id":\n "r002", "text": "t",\n "when": "2026-01-05T09:00:00Z"}',
    )
    source = opened()
    assert ids(source) == ["r000", "r001", "r002"]
    found = source.unreadable(ALL_TIME, with_undated=True).to_pylist()
    assert [(each["row"], each["reasons"]) for each in found] == [
        (1, "bad-json"),
        (3, "not-an-object"),
        (4, "not-an-object"),
    ]
    assert "no json" in found[0]["raw"]


def test_the_time_and_the_key_of_a_message_are_columns(put, opened):
    put(row(0), key=b"customer-7")
    put(row(1))
    source = opened(columns={"id": "id", "time": "kafka.time", "group": "kafka.key"})
    frame = source.read(ALL_TIME).frame.sort_values("id")
    assert frame["group"].tolist()[0] == "customer-7"
    assert frame["time"].str.startswith("20").all()
    assert source.span() is not None


def test_a_topic_that_was_made_anew_is_read_anew(put, opened, tmp_path):
    """The offsets are the same; the moment of the first message is not."""
    put(row(0))
    assert ids(opened()) == ["r000"]
    put(row(7), topic="again")
    tables = {name: opened(topic=name).tables(ALL_TIME)[0] for name in ("rows", "again")}
    assert tables["rows"].version != tables["again"].version


def test_an_empty_topic_has_no_rows(producer, opened):
    producer.list_topics("rows", timeout=10)
    assert opened().tables(ALL_TIME) == []


def test_no_offset_is_committed(put, opened, section):
    from confluent_kafka import Consumer, TopicPartition

    put(row(0))
    assert ids(opened()) == ["r000"]
    consumer = Consumer({"bootstrap.servers": section["brokers"][0], "group.id": "tokiwa"})
    (committed,) = consumer.committed([TopicPartition("rows", 0)], timeout=10)
    consumer.close()
    assert committed.offset < 0


def test_a_broker_that_does_not_answer_is_named(opened, monkeypatch):
    monkeypatch.setattr(kafka, "CONNECT_S", 0.5)
    with pytest.raises(SourceError, match=r"cannot read rows from 127\.0\.0\.1:1: "):
        opened(brokers=["127.0.0.1:1"]).read(ALL_TIME)


def test_credentials_come_from_the_environment_and_belong_to_sasl(opened, monkeypatch):
    with pytest.raises(ValidationError, match="belong to the protocols sasl_ssl"):
        opened(user_from="KAFKA_USER", password_from="KAFKA_PASSWORD")
    with pytest.raises(ValidationError, match="belong to the protocols sasl_ssl"):
        opened(protocol="sasl_ssl", user_from="KAFKA_USER")
    secured = {"protocol": "sasl_ssl", "user_from": "KAFKA_USER", "password_from": "KAFKA_PASSWORD"}
    monkeypatch.setenv("KAFKA_USER", "reader")
    with pytest.raises(UserError, match="set KAFKA_USER and KAFKA_PASSWORD"):
        opened(**secured).read(ALL_TIME)
    monkeypatch.setenv("KAFKA_PASSWORD", "hunter2")
    monkeypatch.setattr(kafka, "CONNECT_S", 0.5)
    with pytest.raises(SourceError) as refused:
        opened(**secured).read(ALL_TIME)
    assert "hunter2" not in str(refused.value)


def test_a_topic_that_is_not_there_is_the_projects_mistake():
    from confluent_kafka import KafkaError

    for code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        said = kafka._explained(KafkaError(code), "rows", "broker:9092")
        assert isinstance(said, ConfigError) and "has no topic rows" in str(said)
    denied = kafka._explained(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "rows", "b:1")
    assert isinstance(denied, SourceError) and "denies access to rows" in str(denied)


def flood(put):
    """Fill a partition until its retention drops the first messages: the mock keeps 5 MiB."""
    put(*(row(number, "z" * 900_000) for number in range(100, 108)))


def test_a_reader_that_retention_overtakes_begins_where_the_topic_does_now(
    put, opened, monkeypatch
):
    listed = kafka.KafkaSource.tables
    overtaken: list[Any] = []

    def tables(self, window):
        found = listed(self, window)
        if not overtaken:
            overtaken.extend(found)
            flood(put)
        return found

    put(*map(row, range(3)))
    monkeypatch.setattr(kafka.KafkaSource, "tables", tables)
    found = ids(opened())
    assert len(overtaken) == 1
    # What is gone is gone, and what is there is whole.
    assert "r000" not in found and found[-1] == "r107"
    assert found == sorted({f"r{number}" for number in range(108 - len(found), 108)})


def test_a_topic_whose_retention_is_always_faster_is_refused(put, opened, monkeypatch):
    listed = kafka.KafkaSource.tables

    def tables(self, window):
        found = listed(self, window)
        flood(put)
        return found

    put(row(0))
    monkeypatch.setattr(kafka.KafkaSource, "tables", tables)
    monkeypatch.setattr(reading, "PAUSE_S", 0.0)
    with pytest.raises(SourceError, match=r"rows on 127.* keeps changing while it is read"):
        opened().read(ALL_TIME)
