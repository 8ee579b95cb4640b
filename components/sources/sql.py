"""Rows from a database that SQLAlchemy opens; PostgreSQL is the one that is tested.

A window is asked for by the time column, with a cursor on the server, so that no more than
some thousand rows are held. Before that, the database is asked what would change if a row
did: how many there are and the highest key, or, without a key, a hash over all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, Field, model_validator

from components.errors import ConfigError, SourceError, UserError
from components.settings import digest_of
from components.sources.block import Block
from components.sources.columns import Part, TableConfig
from components.sources.converting import Changed, Table
from components.sources.reading import TableSource
from components.windows import ALL_TIME, Window

ROWS = 20_000
"""Rows that are fetched at a time."""
EXAMPLES = 100
"""Times that tell of which type they are; some may be beyond Python's."""
CONNECT_S = 10
_NAME = re.compile(r"[A-Za-z_][\w$]*(\.[A-Za-z_][\w$]*)?")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def _table_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("should be the name of a table or view, such as sales.reviews")
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError(
            "should be the name of an environment variable, such as TOKIWA_SQL_URL; the "
            "address itself, which holds a password, is no part of a project"
        )
    return text


Variable = Annotated[str, AfterValidator(_variable)]
"""Name of an environment variable that holds a secret."""


class SqlConfig(TableConfig):
    """Section ``source`` with ``kind: sql``."""

    kind: Literal["sql"]
    url_from: Variable = "TOKIWA_SQL_URL"
    """Environment variable with the address, such as
    ``postgresql+psycopg://reader:secret@db.example/sales``."""
    table: Annotated[str, AfterValidator(_table_name)] | None = None
    """A table or view, such as ``sales.reviews``."""
    query: str | None = None
    """Instead of ``table``: a SELECT whose columns are taken."""
    key: Annotated[str, AfterValidator(_table_name)] | None = None
    """A column that grows with every row that comes or changes, such as ``updated_at``: then
    count and highest key tell whether anything did. Without one, every row is hashed, which
    only PostgreSQL can."""
    name: str = ""
    """Put before the row ids, and the ``source`` of the rows."""
    statement_timeout_s: int = Field(default=600, ge=1)
    """The longest that PostgreSQL may work on one statement."""

    @model_validator(mode="after")
    def _one_place(self) -> SqlConfig:
        if (self.table is None) == (self.query is None):
            raise ValueError("name a table or a query, and not both")
        return self

    @property
    def parts(self) -> list[Part]:
        """The one table."""
        return [Part(path="", name=self.name)]


class SqlSource(TableSource):
    """Reads one table, view or query, window by window."""

    by_window: ClassVar[bool] = True
    _config: SqlConfig

    def tables(self, window: Window) -> list[Table]:
        """Return the rows of the window as a table of its own."""
        with self._connected() as connection:
            version = self._version(connection, window)
        [part] = self._config.parts
        what = self._config.table or f"query {digest_of(self._config.query)[:8]}"
        return [
            Table(
                name=f"{what} of {window.name}",
                version=digest_of([window.to_json(), version]),
                part=part,
                blocks=lambda form, wanted: self._blocks(window, version, wanted),
                # It was read in the transaction that looked at its version.
                is_current=lambda: True,
                size=1 << 40,
                optional=True,
            )
        ]

    @cached_property
    def _engine(self) -> Any:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import ArgumentError
        from sqlalchemy.pool import NullPool

        variable = self._config.url_from
        address = os.environ.get(variable)
        if not address:
            raise UserError(f"set {variable} to the address of the database; see source.url_from")
        try:
            options = {"connect_timeout": CONNECT_S} if address.startswith("postgresql") else {}
            return create_engine(
                address, poolclass=NullPool, connect_args=options, hide_parameters=True
            )
        except ModuleNotFoundError as error:
            raise UserError(
                f"the driver {error.name} of the database in {variable} is not installed; "
                "for PostgreSQL: pip install 'tokiwa[sql]' and postgresql+psycopg://…"
            ) from error
        except (ArgumentError, ValueError) as error:
            # The address itself is not quoted: it may hold a password.
            raise UserError(
                f"what {variable} holds is no address of a database, such as "
                "postgresql+psycopg://user:password@host/database"
            ) from error

    @property
    def _server(self) -> str:
        url = self._engine.url
        return f"{url.get_backend_name()}://{url.host or ''}/{url.database or ''}"

    @property
    def _is_postgres(self) -> bool:
        return bool(self._engine.dialect.name == "postgresql")

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Give a connection in one read-only transaction; errors become one clear line."""
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            with self._engine.connect() as connection:
                if self._is_postgres:
                    connection = connection.execution_options(
                        isolation_level="REPEATABLE READ", postgresql_readonly=True
                    )
                    most = self._config.statement_timeout_s * 1000
                    connection.execute(text(f"SET LOCAL statement_timeout = {most}"))
                    _keep_far_times(connection.connection.driver_connection)
                yield connection
        except DBAPIError as error:
            raise self._explained(error.orig) from error
        except SQLAlchemyError as error:
            raise SourceError(f"cannot read {self._server}: {type(error).__name__}") from error

    def _explained(self, error: Any) -> Exception:
        state = getattr(error, "sqlstate", None) or ""
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        secret = self._engine.url.password
        if secret:
            said = said.replace(str(secret), "…")
        if state[:2] == "28" or "authentication failed" in said:
            return SourceError(
                f"{self._server} denies access; check the user and the password in "
                f"{self._config.url_from}"
            )
        if state == "42501":
            return SourceError(f"{self._server} does not let this user read: {said}")
        if state == "57014":
            return SourceError(
                f"{self._server} took more than {self._config.statement_timeout_s} s; give the "
                "time column an index, or raise source.statement_timeout_s"
            )
        if state[:2] == "42":
            return ConfigError(f"{self._server} refuses the question: {said}. Mend section source.")
        return SourceError(f"cannot read {self._server}: {said}")

    def _from(self) -> Any:
        from sqlalchemy import table, text

        if self._config.table is not None:
            schema, _, name = self._config.table.rpartition(".")
            return table(name, schema=schema or None)
        query = str(self._config.query).strip().rstrip(";").replace(":", "\\:")
        # A comment may end it.
        return text(f"({query}\n) AS source_rows")

    def _columns(self, connection: Any) -> list[str]:
        from sqlalchemy import false, select, text

        answer = connection.execute(select(text("*")).select_from(self._from()).where(false()))
        return list(answer.keys())

    def _selected(self, connection: Any, window: Window, wanted: Sequence[str]) -> Any:
        from sqlalchemy import column, select

        statement: Any = select(*(column(name) for name in wanted)).select_from(self._from())
        time = self._config.columns.time
        if time is None or window == ALL_TIME:
            return statement
        some: Any = select(column(time)).select_from(self._from())
        examples = (
            connection.execute(some.where(column(time).is_not(None)).limit(EXAMPLES))
            .scalars()
            .all()
        )
        example = next((each for each in examples if isinstance(each, date)), None)
        begins: date = window.begins
        ends: date = window.ends
        if isinstance(example, datetime) and example.tzinfo is None:
            # An hour may come twice by a wall clock: a day more, which is cut off later.
            zone, day = ZoneInfo(self._config.timezone), timedelta(days=1)
            begins = (window.begins - day).astimezone(zone).replace(tzinfo=None)
            ends = (window.ends + day).astimezone(zone).replace(tzinfo=None)
        elif isinstance(example, date) and not isinstance(example, datetime):
            begins = window.begins.date() - timedelta(days=1)
            ends = window.ends.date() + timedelta(days=1)
        elif not isinstance(example, datetime):
            return statement  # texts and numbers are read by their format, and then cut
        return statement.where(column(time) >= begins, column(time) < ends)

    def _version(self, connection: Any, window: Window) -> str:
        from sqlalchemy import func, select, text

        there = self._columns(connection)
        wanted = [each for each in there if each in {*self._config.columns.wanted.values()}]
        key = self._config.key
        inner = self._selected(connection, window, sorted({*wanted, *([key] if key else [])}))
        rows = inner.subquery("asked")
        if key is not None:
            what: list[Any] = [func.count(), func.max(rows.c[key])]
        elif self._is_postgres:
            # A hash over all rows that does not depend on their order.
            what = [func.count(), text("sum(hashtextextended(asked::text, 0)::numeric)")]
        else:
            raise ConfigError(
                f"source.key is needed with {self._engine.dialect.name}: a column that grows "
                "with every row that comes or changes"
            )
        answer = connection.execute(select(*what).select_from(rows)).one()
        return "-".join(str(_text(value)) for value in answer)

    def _blocks(self, window: Window, version: str, wanted: Sequence[str]) -> Iterator[Block]:
        from sqlalchemy import Text, cast, column

        with self._connected() as connection:
            there = self._columns(connection)
            if self._version(connection, window) != version:
                raise Changed(f"{self._config.table or 'the query'} on {self._server}")
            taken = [name for name in wanted or there if name in there]
            first_by = [each for each in (self._config.key, self._config.columns.id) if each]
            # Where these leave rows equal, a database gives them in any order, and each time in
            # another: then what is in them decides.
            rest = [cast(column(each), Text) for each in taken if each not in first_by]
            order: list[Any] = [*(column(each) for each in first_by), *rest]
            statement = self._selected(connection, window, taken).order_by(*order)
            answer = connection.execution_options(stream_results=True, max_row_buffer=ROWS).execute(
                statement
            )
            first = 1
            for rows in answer.partitions(ROWS):
                columns = list(zip(*rows, strict=True))
                values = {
                    name: pa.array([_text(value) for value in each], pa.string())
                    for name, each in zip(taken, columns, strict=True)
                }
                numbers = np.arange(first, first + len(rows), dtype=np.int64)
                first += len(rows)
                yield Block(pa.table(values), numbers, there)
            if first == 1:
                none = {name: pa.array([], pa.string()) for name in taken}
                yield Block(pa.table(none), np.zeros(0, np.int64), there)


def _keep_far_times(connection: Any) -> None:
    """Let a psycopg connection give times beyond Python's, such as ``infinity``, as texts.

    One of them is a bad row, and no reason to read none.
    """
    adapters = getattr(connection, "adapters", None)
    if adapters is None:
        return  # another driver
    from psycopg import DataError
    from psycopg.abc import Buffer
    from psycopg.adapt import Loader
    from psycopg.pq import Format

    for name in ("date", "timestamp", "timestamptz"):
        oid = adapters.types[name].oid
        usual = adapters.get_loader(oid, Format.TEXT)

        class Lenient(Loader):
            def __init__(self, oid: int, context: Any = None, usual: Any = usual) -> None:
                super().__init__(oid, context)
                self._usual = usual(oid, context)

            def load(self, data: Buffer) -> Any:
                try:
                    return self._usual.load(data)
                except DataError:
                    return bytes(data).decode()

        adapters.register_loader(name, Lenient)


def _text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "replace")
    return str(value)
