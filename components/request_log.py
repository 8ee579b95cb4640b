"""Requests that a server answered and labels that came later, in the store.

::

    {prefix}/requests/20261122T013000Z-1a2b3c4d.parquet    rows of one server, never changed
    {prefix}/feedback/20261129T090000Z-5e6f7a8b.json       labels that came together

The name of a file begins the ids of the requests in it: whoever has an id knows where to
look. A label that comes twice is one label; of two that differ, the last counts. A row that
was answered and never labelled has no label, and a window can be read at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from components.errors import SourceError, StoreError
from components.ledger import Moment, Name
from components.settings import Section
from components.store import ObjectMissing, Store

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "id",
    "request_id",
    "row",
    "key",
    "time",
    "version",
    "generation",
    "bundle",
    "text",
    "digest",
    "answer",
    "confidence",
    "truncated",
)
"""Of a row: ``text`` holds an image, too, as base64; it is missing where a policy says so,
and ``digest`` stands for it. ``answer`` is the label or the number; ``key`` the client's own
id of its request."""

LONGEST_FILE = timedelta(hours=2)
"""A file holds requests of no longer a time: servers begin one every hour at least
(``serve.requests.flush_s``), unless a slow store holds them up."""

SCHEMA = 1
"""Of a file of labels."""
_STAMP = "%Y%m%dT%H%M%SZ"
_FILE = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{8}")
_REQUEST = re.compile(rf"({_FILE.pattern})-\d{{1,9}}")


class Feedback(Section):
    """The label of one row of a request, as it turned out to be."""

    request_id: Name
    row: Annotated[int, Field(ge=0)] = 0
    """Place of the text or image in its request."""
    label: Name

    @property
    def row_id(self) -> str:
        """The id of the row among all rows."""
        return row_id(self.request_id, self.row)


class FeedbackFile(Section):
    """Labels that came together."""

    schema_version: Annotated[int, Field(le=SCHEMA)] = SCHEMA
    at: Moment
    labels: list[Feedback]


def row_id(request_id: str, row: int) -> str:
    """Return the id of a row of a request, the same in requests and in sources."""
    return f"{request_id}.{row}"


def new_file(now: datetime) -> str:
    """Return a name for a file that begins now and that no other server uses."""
    return f"{now.astimezone(UTC).strftime(_STAMP)}-{secrets.token_hex(4)}"


def file_of(request_id: str) -> str | None:
    """Return the name of the file that a request is in; None for what is no id.

    Examples:
        >>> file_of("20261122T013000Z-1a2b3c4d-17")
        '20261122T013000Z-1a2b3c4d'
        >>> file_of("nonsense")
    """
    found = _REQUEST.fullmatch(request_id)
    return found.group(1) if found else None


def digest_of_content(content: str) -> str:
    """Return what stands for a content that must not be kept."""
    return hashlib.sha256(content.encode()).hexdigest()


class RequestLog:
    """The requests and labels of one ledger."""

    def __init__(self, store: Store, prefix: str = "") -> None:
        """Name the place; nothing is written yet."""
        self._store = store
        self._requests = f"{prefix}/requests" if prefix else "requests"
        self._feedback = f"{prefix}/feedback" if prefix else "feedback"

    def write(self, file: str, rows: Sequence[dict[str, object]]) -> None:
        """Write a file of rows with ``COLUMNS``.

        Raises:
            StoreError: the store does not take it.
        """
        import pandas as pd

        buffer = io.BytesIO()
        pd.DataFrame(list(rows), columns=list(COLUMNS)).to_parquet(buffer, index=False)
        self._store.put(f"{self._requests}/{file}.parquet", buffer.getvalue())

    def files(self, start: datetime | None = None, end: datetime | None = None) -> list[str]:
        """Return the names of files, in the order in which they began.

        Args:
            start: leave out files all of whose rows are of before.
            end: leave out files that began then or later.

        Raises:
            StoreError: the store cannot be listed.
        """
        keys = self._store.list(f"{self._requests}/")
        names = [each.removeprefix(f"{self._requests}/").removesuffix(".parquet") for each in keys]
        return [
            name
            for name in names
            if (began := _began(name)) is not None
            and (start is None or began + LONGEST_FILE >= start)
            and (end is None or began < end)
        ]

    def content(self, file: str) -> bytes:
        """Return a file as it is in the store: Parquet with ``COLUMNS``.

        Raises:
            StoreError: it is not there, or cannot be read.
        """
        return self._store.get(f"{self._requests}/{file}.parquet")

    def rows(self, file: str) -> pd.DataFrame:
        """Return the rows of a file, with ``COLUMNS`` and ``moment``, their time as such.

        Raises:
            SourceError: it holds something else.
            StoreError: it is not there, or cannot be read.
        """
        import pandas as pd

        try:
            frame = pd.read_parquet(io.BytesIO(self.content(file)))
        except ValueError as error:  # pyarrow's own is one
            place = self._store.uri(f"{self._requests}/{file}.parquet")
            raise SourceError(f"{place} holds no requests: {error}") from error
        return frame.assign(moment=frame["time"].map(datetime.fromisoformat))

    def rows_of(self, file: str) -> frozenset[str]:
        """Return the ids of a file's rows; none if there is no such file.

        Raises:
            StoreError: the store cannot be read.
        """
        import pandas as pd

        try:
            data = self.content(file)
        except ObjectMissing:
            return frozenset()
        return frozenset(pd.read_parquet(io.BytesIO(data), columns=["id"])["id"])

    def add_feedback(self, labels: Iterable[Feedback], at: datetime) -> str:
        """Keep labels; when this returns, they outlive the process. Return their object's key.

        Raises:
            StoreError: the store does not take them.
        """
        file = FeedbackFile(at=at.isoformat(), labels=list(labels))
        key = f"{self._feedback}/{new_file(at)}.json"
        if not self._store.create_if_absent(key, file.to_json().encode()):
            raise StoreError(f"{self._store.uri(key)} is there already; send the labels again")
        return key

    def feedback(self, since: datetime | None = None) -> dict[str, str]:
        """Return the label of each labelled row, by the row's id; the last one counts.

        Args:
            since: leave out labels that came before.

        Raises:
            SourceError: an object holds something else.
        """
        labels = sorted(
            self._came(since), key=lambda each: (datetime.fromisoformat(each[1].at), each[0])
        )
        return {one.row_id: one.label for _, file in labels for one in file.labels}

    def withdraw(self, rows: Container[str]) -> int:
        """Take the labels of rows out of what came back; return how many they were.

        Args:
            rows: their ids.

        Raises:
            SourceError: an object holds something else.
        """
        withdrawn = 0
        for key, file in self._came():
            left = [each for each in file.labels if each.row_id not in rows]
            if len(left) < len(file.labels):
                withdrawn += len(file.labels) - len(left)
                self._store.put(key, file.model_copy(update={"labels": left}).to_json().encode())
        return withdrawn

    def read(self, start: datetime, end: datetime) -> pd.DataFrame:
        """Return the rows that were answered in ``[start, end)``, in order of time.

        Columns: ``COLUMNS`` and ``label``, None for a row without one.

        Raises:
            SourceError: an object holds something else.
            StoreError: the store cannot be read.
        """
        import pandas as pd

        # An erasure may have left a file without any row.
        parts = [rows for file in self.files(start, end) if len(rows := self.rows(file))]
        if not parts:
            return pd.DataFrame(columns=[*COLUMNS, "label"])
        frame = pd.concat(parts, ignore_index=True)
        inside = (frame["moment"] >= start) & (frame["moment"] < end)
        frame = frame[inside].drop(columns="moment").sort_values(["time", "id"])
        labels = self.feedback(since=start)
        return frame.assign(label=[labels.get(each) for each in frame["id"]]).reset_index(drop=True)

    def _came(self, since: datetime | None = None) -> Iterator[tuple[str, FeedbackFile]]:
        """Yield the objects of labels by their keys."""
        for key in self._store.list(f"{self._feedback}/"):
            began = _began(key.removeprefix(f"{self._feedback}/").removesuffix(".json"))
            if began is None or (since is not None and began < since - timedelta(seconds=1)):
                continue
            raw = self._store.get(key)
            try:
                yield key, FeedbackFile.from_json(raw.decode())
            except ValueError as error:
                place = self._store.uri(key)
                if _schema_of(raw) > SCHEMA:
                    raise SourceError(
                        f"{place} was written by a newer Tokiwa (schema {_schema_of(raw)}); "
                        "upgrade to read it"
                    ) from error
                raise SourceError(f"{place} holds no labels: {error}") from error


def _schema_of(raw: bytes) -> int:
    """Return the schema that an object says it has, 0 for none."""
    try:
        version = json.loads(raw).get("schema_version")
    except (ValueError, AttributeError):
        return 0
    return version if isinstance(version, int) else 0


def _began(file: str) -> datetime | None:
    found = _FILE.fullmatch(file)
    return datetime.strptime(found.group(1), _STAMP).replace(tzinfo=UTC) if found else None
