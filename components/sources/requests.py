"""Rows from the server's own log: what it was asked, and the labels that came later.

A file of requests never changes; what is known of its labels does. So a file is read again
when a label of one of its rows came or changed, and at no other time.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, cast

import pyarrow as pa

from components import home
from components.errors import ConfigError
from components.request_log import RequestLog
from components.settings import digest_of
from components.sources.block import Block, Form
from components.sources.columns import ColumnNames, Part, TableConfig
from components.sources.converting import SMALL_BYTES, Table
from components.sources.reading import TableSource
from components.sources.tables import blocks
from components.windows import Window

LABEL = "label"
_ID = "id"


class RequestsConfig(TableConfig):
    """Section ``source`` with ``kind: requests``."""

    kind: Literal["requests"]
    ledger: str = ""
    """Of the server whose requests are read; the project's own."""
    columns: ColumnNames = ColumnNames(id=_ID, time="time")
    """Of the log; ``version``, ``answer`` and ``confidence`` may be ``metadata``."""
    name: str = ""
    """Put before the row ids, and the ``source`` of the rows."""

    @property
    def parts(self) -> list[Part]:
        """All files alike."""
        return [Part(path="", name=self.name)]


class RequestsSource(TableSource):
    """Reads the requests and labels of one server."""

    _config: RequestsConfig

    def tables(self, window: Window) -> list[Table]:
        """Return the files of requests."""
        if not self._config.ledger:
            raise ConfigError("source.ledger is empty: name the ledger of a server")
        log = RequestLog(home.store(), self._config.ledger)
        labels: dict[str, dict[str, str]] = {}
        for row, label in log.feedback().items():
            labels.setdefault(row.rpartition("-")[0], {})[row] = label
        [part] = self._config.parts
        return [
            Table(
                name=f"requests {file}",
                version=digest_of(labels.get(file, {})),
                part=part,
                blocks=partial(self._blocks, log, file, labels.get(file, {})),
                is_current=lambda: True,  # a file never changes
                size=SMALL_BYTES,
                optional=True,
            )
            for file in log.files()
        ]

    def _blocks(
        self, log: RequestLog, file: str, labels: dict[str, str], form: Form, wanted: Sequence[str]
    ) -> Iterator[Block]:
        asked = sorted({*wanted, _ID} - {LABEL})
        content = cast("io.BufferedReader", io.BytesIO(log.content(file)))
        for block in blocks(content, f"{file}.parquet", form, asked):
            found = [labels.get(row) for row in block.table[_ID].to_pylist()]
            table = block.table.append_column(LABEL, pa.array(found, pa.string()))
            yield Block(table, block.rows, [*block.columns, LABEL])
