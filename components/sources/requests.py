"""Rows that a server was asked about, with the labels that came later.

What ``tokiwa serve`` keeps of its requests (``serve.requests``) is read as any other source:
production's own rows, for ``monitoring`` to watch and for retrains to learn from.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Literal

from components import home
from components.request_log import RequestLog, file_of
from components.settings import digest_of
from components.sources.columns import ColumnNames, Part, TableConfig
from components.sources.reading import Table, TableSource
from components.sources.tables import Block, Form, blocks
from components.windows import Window


class RequestsConfig(TableConfig):
    """Section ``source`` with ``kind: requests``; of texts."""

    kind: Literal["requests"]
    of: str
    """Ledger whose server kept them: ``projects/`` and the name of the project."""
    columns: ColumnNames = ColumnNames(id="id", time="time")
    """Rows also have ``version``, ``answer``, ``confidence`` and ``key``, the client's own id,
    for ``metadata`` or ``group``."""


class RequestsSource(TableSource):
    """Reads the files of a request log, each again when labels for it have come."""

    _config: RequestsConfig

    def tables(self, window: Window) -> list[Table]:
        """Return the files."""
        [part] = self._config.parts
        return [self._table(file, part) for file in self._log.files()]

    @cached_property
    def _log(self) -> RequestLog:
        return RequestLog(home.store(), self._config.of)

    @cached_property
    def _labels(self) -> dict[str, dict[str, str]]:
        """The labels of each file by the ids of its rows."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for row, label in self._log.feedback().items():
            found[file_of(row.rpartition(".")[0]) or ""][row] = label
        return found

    def _table(self, file: str, part: Part) -> Table:
        labels = self._labels.get(file, {})
        return Table(
            name=f"{file}.parquet",
            version=digest_of(labels),
            part=part,
            blocks=lambda form, wanted: self._blocks(file, labels, form, wanted),
            # A file never changes, and its labels were read before.
            is_current=lambda: True,
            optional=True,
        )

    def _blocks(
        self, file: str, labels: dict[str, str], form: Form, wanted: Sequence[str]
    ) -> Iterator[Block]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = pq.read_table(io.BytesIO(self._log.content(file)))
        found = [labels.get(each) for each in rows["id"].to_pylist()]
        stream = io.BytesIO()
        pq.write_table(rows.append_column("label", pa.array(found, pa.string())), stream)
        stream.seek(0)
        return blocks(stream, f"{file}.parquet", form, wanted)
