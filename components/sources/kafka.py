"""Rows from a topic of Kafka: what lies in it when the run begins is read, and no more.

Each partition is cut into ranges of offsets, and a range is a table: a full one never changes
and is read once, the last one is read again while it grows. No offset is committed, so that
nobody else's reading is disturbed, and a run that died has taken nothing away. What the
topic's retention has deleted is gone for the source, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from components.errors import ConfigError, MissingPackage, SourceError, UserError
from components.settings import digest_of
from components.sources.block import Block, Form
from components.sources.columns import Part, TableConfig
from components.sources.converting import Changed, Table
from components.sources.files import read_file
from components.sources.reading import TableSource
from components.sources.sql import Variable
from components.windows import Window

RANGE = 50_000
"""Offsets of a partition that are one table; of a growing one, so many are read again."""
CONNECT_S, READ_S = 10.0, 60.0
AHEAD_KIB = 16 << 10
"""Of messages that the client fetches before they are asked for."""
TIME, KEY = "kafka.time", "kafka.key"
"""Columns that every message has besides what its value holds."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KafkaConfig(TableConfig):
    """Section ``source`` with ``kind: kafka``: a topic whose messages are JSON objects."""

    kind: Literal["kafka"]
    brokers: Annotated[list[str], Field(min_length=1)]
    """To begin with, such as ``kafka.example.com:9092``."""
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """Of SASL."""
    user_from: Variable | None = None
    """Environment variable with the user of SASL."""
    password_from: Variable | None = None
    """Environment variable with the password."""
    name: str = ""
    """Put before the row ids, and the ``source`` of the rows."""

    @model_validator(mode="after")
    def _sasl_has_a_user(self) -> KafkaConfig:
        named = [each is not None for each in (self.user_from, self.password_from)]
        if self.protocol.startswith("sasl") != all(named) or len({*named}) == 2:
            raise ValueError(
                "user_from and password_from belong to the protocols sasl_ssl and sasl_plaintext"
            )
        return self

    @property
    def parts(self) -> list[Part]:
        """The one topic."""
        return [Part(path="", name=self.name)]


class KafkaSource(TableSource):
    """Reads a topic from its first kept offset to its end as the run begins."""

    _config: KafkaConfig

    def tables(self, window: Window) -> list[Table]:
        """Return the ranges of all partitions."""
        [part] = self._config.parts
        return [
            Table(
                name=f"{self._config.topic}[{partition}] from {start // RANGE * RANGE}",
                version=digest_of([identity, start, end]),
                part=part,
                blocks=partial(self._blocks, partition, start, end),
                # A range of offsets holds what it holds.
                is_current=lambda: True,
                size=1 << 20,
                optional=True,
            )
            for identity, partition, start, end in self._ranges()
        ]

    def _ranges(self) -> Iterator[tuple[str, int, int, int]]:
        """Return what tells a range from another, its partition, first offset and end."""
        from confluent_kafka import TopicPartition

        topic = self._config.topic
        with self._consumer() as consumer:
            described = consumer.list_topics(topic, timeout=CONNECT_S).topics[topic]
            if described.error is not None:
                raise _explained(described.error, topic, self._server)
            for number in sorted(described.partitions):
                low, high = consumer.get_watermark_offsets(
                    TopicPartition(topic, number), timeout=CONNECT_S
                )
                for above in range(low // RANGE * RANGE, high, RANGE):
                    start, end = max(above, low), min(above + RANGE, high)
                    # A topic that was deleted and made anew has the same offsets.
                    first = next(self._messages(consumer, number, start, end), None)
                    witness = [first.offset(), *first.timestamp()] if first else []
                    yield digest_of(witness), number, start, end

    def _blocks(
        self, partition: int, start: int, end: int, form: Form, wanted: Sequence[str]
    ) -> Iterator[Block]:
        """Drain a range into a file of JSON lines, and read that as any other."""
        path = self._scratch / f"{self._config.topic}-{partition}-{start}-{end}.jsonl"
        offsets, times, keys = list[int](), list[str | None](), list[str | None]()
        with path.open("wb") as file, self._consumer() as consumer:
            for message in self._messages(consumer, partition, start, end):
                # JSON has no newline but between its parts. Nothing is a row that is none.
                file.write((message.value() or b"null").replace(b"\n", b" ") + b"\n")
                offsets.append(message.offset())
                times.append(_moment(*message.timestamp()))
                keys.append((message.key() or b"").decode("utf-8", "replace") or None)
        numbers = np.array(offsets, np.int64)
        further = {TIME: times, KEY: keys}
        asked = [each for each in wanted if each not in further]
        for block in read_file(path, form, asked):
            yield _placed(block, numbers, further, wanted)
        path.unlink()

    def _messages(self, consumer: Any, partition: int, start: int, end: int) -> Iterator[Any]:
        """Return the messages of a range; offsets may be missing, and the end among them."""
        from confluent_kafka import KafkaError, TopicPartition

        topic = self._config.topic
        consumer.assign([TopicPartition(topic, partition, start)])
        last = start - 1
        while last < end - 1:
            message = consumer.poll(READ_S)
            if message is None:
                raise SourceError(
                    f"{self._server} sent nothing of {topic} for {READ_S:g} s; run again"
                )
            error = message.error()
            if error is None:
                last = message.offset()
                if last < end:
                    yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                last = max(last, message.offset() - 1)
            elif error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, _RESET):
                raise Changed(f"{topic} on {self._server}")
            elif not error.retriable():
                raise _explained(error, topic, self._server)

    @property
    def _server(self) -> str:
        return ",".join(self._config.brokers)

    def _settings(self) -> dict[str, Any]:
        config = self._config
        settings: dict[str, Any] = {
            "bootstrap.servers": self._server,
            "security.protocol": config.protocol,
            "log_level": 0,
        }
        if config.user_from and config.password_from:
            user, password = (
                os.environ.get(each) for each in (config.user_from, config.password_from)
            )
            if not user or not password:
                raise UserError(
                    f"set {config.user_from} and {config.password_from} to the user and the "
                    f"password of {self._server}"
                )
            settings |= {
                "sasl.mechanism": config.mechanism,
                "sasl.username": user,
                "sasl.password": password,
            }
        return settings

    @contextmanager
    def _consumer(self) -> Iterator[Any]:
        """Give a client that commits nothing; errors become one clear line."""
        try:
            from confluent_kafka import Consumer, KafkaException
        except ModuleNotFoundError as error:
            raise MissingPackage("confluent_kafka", "tokiwa[kafka]") from error
        said: list[Any] = []
        consumer = Consumer(
            {
                **self._settings(),
                "group.id": "tokiwa",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                # What was asked before a jump to another offset is waited for.
                "fetch.wait.max.ms": 20,
                "queued.max.messages.kbytes": AHEAD_KIB,
                "error_cb": said.append,
            }
        )
        try:
            yield consumer
        except KafkaException as error:
            # What the client heard before it gave up says more than that it did.
            raise _explained((said or error.args)[-1], self._config.topic, self._server) from error
        finally:
            consumer.close()


_RESET = -140
"""librdkafka's own code for an offset that is not there: ``_AUTO_OFFSET_RESET``."""


def _explained(error: Any, topic: str, server: str) -> Exception:
    from confluent_kafka import KafkaError

    if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        return ConfigError(f"{server} has no topic {topic}; see source.topic")
    if error.code() in (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    ):
        return SourceError(
            f"{server} denies access to {topic}; check what source.user_from and "
            "source.password_from name"
        )
    return SourceError(f"cannot read {topic} from {server}: {error.name()}")


def _moment(kind: int, milliseconds: int) -> str | None:
    if kind == 0:  # the message carries none
        return None
    return (_EPOCH + timedelta(milliseconds=milliseconds)).isoformat()


def _placed(
    block: Block,
    offsets: NDArray[np.int64],
    further: dict[str, list[str | None]],
    wanted: Sequence[str],
) -> Block:
    """Number a block's rows by their offsets, and add what messages carry besides."""
    lines = block.rows - 1
    table = block.table
    for name, values in further.items():
        if not wanted or name in wanted:
            found = pa.array([values[line] for line in lines], pa.string())
            table = table.append_column(name, found)
    unreadable = [each._replace(row=int(offsets[each.row - 1])) for each in block.unreadable]
    return Block(
        table,
        offsets[lines],
        [*block.columns, *further],
        unreadable,
        block.images,
        block.columns_are_known,
    )
