"""Rows from an HTTP(S) API, page after page, or from one file behind an address.

Whom may be talked to is the operator's to say, not the project's: where a connection really
leads is checked at its socket, after the name was resolved and before anything is sent, for
the first address as for every redirect and next page.

=======================  =====================================================
``TOKIWA_HTTP_HOSTS``    hosts that may be read, such as ``api.example.com,*.corp.example``;
                         without it, a project's own host and no other
``TOKIWA_HTTP_NETWORKS`` private networks that may be read, such as ``10.1.0.0/16``;
                         without it none
=======================  =====================================================
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote, urlencode, urljoin, urlsplit

from pydantic import AfterValidator, Field, model_validator

from components.errors import ConfigError, SourceError, UserError
from components.settings import digest_of
from components.sources.columns import Part, TableConfig
from components.sources.converting import Table
from components.sources.files import read_file
from components.sources.packed import is_packed
from components.sources.reading import TableSource
from components.sources.sql import Variable
from components.sources.tables import JSON_LINES, PARQUET, kind_of
from components.windows import Window

CONNECT_S, READ_S = 10.0, 60.0
MAX_REDIRECTS = 5
ATTEMPTS = 4
MAX_WAIT_S = 60.0
"""The longest that a server's ``Retry-After`` is heeded."""
MAX_PAGE_BYTES = 64 << 20
_TABLES = (*PARQUET, *JSON_LINES, ".csv", ".tsv", ".txt")
_BUSY = (429, 500, 502, 503, 504)


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should be an address such as https://api.example.com/v1/reviews")
    if parts.username or parts.password:
        raise ValueError("holds credentials; name a variable with a token in token_from instead")
    return text


class HttpConfig(TableConfig):
    """Section ``source`` with ``kind: http``."""

    kind: Literal["http"]
    url: Annotated[str, AfterValidator(_address)]
    """Of the first page, or of a file of rows, which its suffix tells; ``{start}`` and
    ``{end}`` in it become the ends of the window, ISO 8601."""
    params: dict[str, str] = {}
    """Query parameters; ``{start}`` and ``{end}`` may stand in them, too."""
    records: str = ""
    """Where a page of JSON holds its list of rows, such as ``data.items``; empty is the page."""
    next_from: str = ""
    """Where a page holds the address of the next one, or a cursor for ``cursor_param``, such
    as ``paging.next``. Without it, a header ``Link: <…>; rel="next"`` is followed."""
    cursor_param: str = ""
    """Query parameter that takes the cursor."""
    page_param: str = ""
    """Query parameter that counts pages from 1, until one is empty."""
    max_pages: int = Field(default=10_000, ge=1)
    """More pages are taken for a loop and refused."""
    token_from: Variable | None = None
    """Environment variable with a bearer token, sent to the project's own host only."""
    name: str = ""
    """Put before the row ids, and the ``source`` of the rows."""

    @model_validator(mode="after")
    def _one_way_to_page(self) -> HttpConfig:
        if self.page_param and (self.next_from or self.cursor_param):
            raise ValueError("pages are counted or followed: page_param stands alone")
        if self.cursor_param and not self.next_from:
            raise ValueError("cursor_param needs next_from, where the cursor is found")
        return self

    @property
    def parts(self) -> list[Part]:
        """All pages alike."""
        return [Part(path="", name=self.name)]

    @property
    def asks_for_windows(self) -> bool:
        """Whether the address says which window is wanted."""
        return any("{start}" in each for each in (self.url, *self.params.values()))


class HttpSource(TableSource):
    """Fetches pages into a file of JSON lines, whose digest is their version."""

    by_window: ClassVar[bool] = True
    _config: HttpConfig

    def tables(self, window: Window) -> list[Table]:
        """Fetch the rows of a window, and return them as one table."""
        asked = window if self._config.asks_for_windows else None
        if asked not in self._fetched:
            self._fetched[asked] = self._fetch(window)
        path = self._fetched[asked]
        with path.open("rb") as file:
            version = hashlib.file_digest(file, "sha256").hexdigest()
        [part] = self._config.parts
        name = self._config.url.partition("?")[0]
        if asked is not None:
            name += f" of {window.name}"

        def blocks(form: Any, wanted: Any) -> Iterator[Any]:
            return read_file(path, form, wanted)

        return [
            Table(
                name=name,
                version=version,
                part=part,
                blocks=blocks,
                # It was fetched; what the API says now is the next run's to see.
                is_current=lambda: True,
                size=path.stat().st_size,
                optional=True,
            )
        ]

    @cached_property
    def _fetched(self) -> dict[Window | None, Path]:
        return {}

    def _fetch(self, window: Window) -> Path:
        config = self._config
        values = {"{start}": window.start, "{end}": window.end}
        url, params = config.url, dict(config.params)
        for sign, value in values.items():
            url = url.replace(sign, quote(value, safe=""))
            params = {key: each.replace(sign, value) for key, each in params.items()}
        suffix = kind_of(urlsplit(url).path)
        whole = suffix in _TABLES
        named = Path(urlsplit(url).path).name if whole else "pages.jsonl"
        path = self._scratch / f"{digest_of([url, params])[:16]}-{named}"
        client = Client(config.url, os.environ.get(config.token_from or "", ""))
        if config.token_from and not client.token:
            raise UserError(f"set {config.token_from} to the token of {_public(url)}")
        with path.open("wb") as file, closing(client):
            if whole:
                client.get(_with(url, params), into=file)
            else:
                for page in self._pages(client, url, params):
                    for record in page:
                        file.write(json.dumps(record).encode() + b"\n")
        return path

    def _pages(self, client: Client, url: str, params: dict[str, str]) -> Iterator[list[Any]]:
        config, seen = self._config, set[str]()
        address: str | None = _with(url, params)
        for number in range(1, config.max_pages + 1):
            if config.page_param:
                address = _with(url, {**params, config.page_param: str(number)})
            if address is None:
                return
            if address in seen:
                raise SourceError(f"the pages of {_public(url)} go round in a circle")
            seen.add(address)
            content, links = client.get(address)
            try:
                page = json.loads(content, parse_float=str, parse_int=str)
            except (ValueError, RecursionError) as error:
                raise SourceError(f"{_public(url)}: page {number} is no JSON") from error
            rows = _inside(page, config.records)
            if not isinstance(rows, list):
                place = f"at {config.records}" if config.records else "as a whole"
                raise SourceError(
                    f"{_public(url)}: page {number} holds no list {place}; mend source.records"
                )
            yield rows
            if config.page_param:
                if not rows:
                    return
                continue
            found = _inside(page, config.next_from) if config.next_from else links
            if not found:
                address = None
            elif config.cursor_param:
                address = _with(url, {**params, config.cursor_param: str(found)})
            else:
                address = _joined(address, str(found))
        if address is not None:
            raise SourceError(f"{_public(url)} has more than {config.max_pages} pages")


class Client:
    """Reads addresses that the operator allows, and no others."""

    def __init__(self, own: str, token: str = "") -> None:
        """Take the project's own address, and a token that is sent to its host only."""
        self._own = urlsplit(own)
        self.token = token
        self._hosts = _listed("TOKIWA_HTTP_HOSTS") or [str(self._own.hostname)]
        try:
            self._networks = [
                ipaddress.ip_network(each) for each in _listed("TOKIWA_HTTP_NETWORKS")
            ]
        except ValueError as error:
            raise UserError(f"TOKIWA_HTTP_NETWORKS is wrong: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def get(self, url: str, into: Any = None) -> tuple[bytes, str]:
        """Return the content of an address, and the next page that its ``Link`` header names.

        Args:
            url: to read; redirects are followed as far as they are allowed.
            into: file that takes the content instead, however long it is.

        Raises:
            SourceError: nobody answers, or not with a content.
            ConfigError: the address is none that may be read.
        """
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._asked(url)
            try:
                if answer.status in (301, 302, 303, 307, 308):
                    url = _joined(url, answer.headers.get("Location", ""))
                    continue
                self._check(answer.status, url)
                return self._content(answer, url, into), _next_link(answer.headers.get("Link", ""))
            finally:
                answer.close()
        raise SourceError(f"{_public(url)} redirects more than {MAX_REDIRECTS} times")

    def _asked(self, url: str) -> Any:
        import urllib3
        from urllib3.exceptions import HTTPError

        self._allow(url)
        headers = {"User-Agent": "tokiwa", "Accept-Encoding": "identity"}
        parts = urlsplit(url)
        if self.token and parts[:2] == self._own[:2]:
            headers["Authorization"] = f"Bearer {self.token}"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._pool.request(
                    "GET",
                    url,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
                )
            except HTTPError as error:
                if attempt == ATTEMPTS:
                    raise SourceError(
                        f"cannot reach {_public(url)}: {type(error).__name__}"
                    ) from error
                time.sleep(0.2 * 2**attempt)
                continue
            if answer.status not in _BUSY or attempt == ATTEMPTS:
                return answer
            wait = answer.headers.get("Retry-After", "")
            answer.close()
            time.sleep(min(MAX_WAIT_S, float(wait)) if wait.isdigit() else 0.2 * 2**attempt)
        raise AssertionError

    def _allow(self, url: str) -> None:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigError(
                f"{_public(url)} is no address of HTTP, where {self._own.hostname} leads"
            )
        if self._own.scheme == "https" and parts.scheme != "https":
            raise ConfigError(f"{_public(url)} is not encrypted, as {self._own.hostname} is")
        if not any(fnmatchcase(host, pattern) for pattern in self._hosts):
            raise ConfigError(
                f"{host} is none of the hosts that may be read ({', '.join(self._hosts)}); "
                "whoever runs Tokiwa can set TOKIWA_HTTP_HOSTS"
            )

    def _check(self, status: int, url: str) -> None:
        if status in (401, 403):
            raise SourceError(
                f"{_public(url)} denies access ({status}); check the token, see source.token_from"
            )
        if status != 200:
            raise SourceError(f"{_public(url)} answers {status}")

    def _content(self, answer: Any, url: str, into: Any) -> bytes:
        from urllib3.exceptions import HTTPError

        content = b""
        try:
            # A packed file is packed once, also where a server calls that its encoding.
            for chunk in answer.stream(1 << 20, decode_content=not is_packed(urlsplit(url).path)):
                if into is not None:
                    into.write(chunk)
                elif len(content) + len(chunk) > MAX_PAGE_BYTES:
                    raise SourceError(
                        f"a page of {_public(url)} is over {MAX_PAGE_BYTES >> 20} MiB; "
                        "ask for smaller pages"
                    )
                else:
                    content += chunk
        except HTTPError as error:
            raise SourceError(
                f"{_public(url)} broke off while it was read: {type(error).__name__}"
            ) from error
        return content

    @cached_property
    def _pool(self) -> Any:
        """Connections that look whom they have reached before they say a word."""
        from urllib3 import PoolManager
        from urllib3.connection import HTTPConnection, HTTPSConnection
        from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

        check = self._check_peer

        class Plain(HTTPConnection):
            def _new_conn(self) -> Any:
                return check(super()._new_conn(), self.host)

        class Encrypted(HTTPSConnection):
            def _new_conn(self) -> Any:
                return check(super()._new_conn(), self.host)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class EncryptedPool(HTTPSConnectionPool):
            ConnectionCls = Encrypted

        pool = PoolManager(num_pools=4)
        pool.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}
        return pool

    def _check_peer(self, connected: Any, host: str) -> Any:
        address = ipaddress.ip_address(connected.getpeername()[0].partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not address.is_global and not any(
            address in network for network in self._networks if network.version == address.version
        ):
            connected.close()
            raise ConfigError(
                f"{host} is at {address}, which is no public address; whoever runs Tokiwa can "
                "allow its network in TOKIWA_HTTP_NETWORKS"
            )
        return connected


def _listed(variable: str) -> list[str]:
    return [
        each.strip().lower() for each in os.environ.get(variable, "").split(",") if each.strip()
    ]


def _public(url: str) -> str:
    """Return an address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _joined(url: str, other: str) -> str:
    """Return the address that a page or a redirect names, which may be relative.

    Raises:
        SourceError: it is no address.
    """
    try:
        joined = urljoin(url, other)
        urlsplit(joined)
    except ValueError as error:
        raise SourceError(f"{_public(url)} leads to {other[:80]!r}, which is no address") from error
    return joined


def _with(url: str, params: dict[str, str]) -> str:
    if not params:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(params)}"


def _inside(page: Any, place: str) -> Any:
    """Return what lies at ``data.items`` in a page, None if there is nothing."""
    for key in filter(None, place.split(".")):
        page = page.get(key) if isinstance(page, dict) else None
    return page


def _next_link(header: str) -> str:
    """Return the address of ``rel="next"`` in a ``Link`` header (RFC 8288), or nothing.

    >>> _next_link('</a?page=1>; rel="prev", </a?page=3>; rel="next"')
    '/a?page=3'
    """
    for link in header.split(","):
        address, *attributes = link.split(";")
        if any(each.strip().replace('"', "").lower() == "rel=next" for each in attributes):
            return address.strip().strip("<>")
    return ""
