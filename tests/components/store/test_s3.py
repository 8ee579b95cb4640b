"""What servers of S3 may answer, and what is made of it."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.errors import StoreError
from components.store import (
    OutcomeUnknown,
    S3Store,
    open_store,
)


def test_what_the_server_refuses_is_one_clear_line(
    s3_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_bucket = S3Store("no-such-bucket")
    for refused in (
        lambda: no_bucket.get("a"),
        lambda: no_bucket.put("a", b""),
        lambda: no_bucket.create_if_absent("a", b""),
        lambda: no_bucket.list(),
    ):
        with pytest.raises(StoreError, match="no such bucket"):
            refused()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-wrong")
    with pytest.raises(StoreError, match="denies access") as caught:
        open_store(s3_url).create_if_absent("a", b"")
    assert "very-wrong" not in str(caught.value) and "\n" not in str(caught.value)
    assert s3_endpoint in str(caught.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="no S3 credentials"):
        open_store(s3_url).get("a")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not a url")
    with pytest.raises(StoreError, match="settings in the environment"):
        open_store(s3_url)


def test_a_listing_of_strangers_cannot_lead_out_of_the_target(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_url)
    assert isinstance(store, S3Store)
    store.put("bundle/good", b"")
    prefix = store.prefix

    class Pages:
        def paginate(self, **_: str) -> list[dict[str, list[dict[str, str]]]]:
            names = ["good", "../../evil", "/evil", "folder/", "a\\b"]
            return [{"Contents": [{"Key": f"{prefix}bundle/{name}"} for name in names]}]

    monkeypatch.setattr(store._client, "get_paginator", lambda _: Pages())
    assert store.list() == ["bundle/good"]
    store.download_directory("bundle", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["good"]


@contextmanager
def server(answers: list[int | None]) -> Iterator[tuple[str, list[str]]]:
    """Run an HTTP server that gives one status after the other; None hangs up instead."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            asked.append(f"{self.command} {self.headers.get('If-None-Match')}")
            if (status := answers.pop(0)) is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://user:hidden@127.0.0.1:{running.server_port}", asked
        finally:
            running.shutdown()
            thread.join(10)


@pytest.mark.usefixtures("s3_url")
@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([200, 412], True),
        ([200, 409, 412], True),
        ([200, None], True),  # the win stands, though the second look failed
        ([200, 403], True),
        ([412], False),
        ([409, 409, 412], False),
        ([409, 200, 412], True),
        ([409, 409, 409, 409, 200], False),
        ([409, 409, 409, 409, 404], StoreError),
        ([200, 200], StoreError),
        ([None], OutcomeUnknown),
        ([500], OutcomeUnknown),
        ([503], OutcomeUnknown),
        ([501], StoreError),
    ],
)
def test_every_answer_to_a_create_has_its_meaning(
    answers: list[int | None], outcome: bool | type[StoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.store.s3.CONFLICT_PAUSES", (0.0,) * 4)
    answers = answers.copy()
    with server(answers) as (url, asked):
        store = S3Store("bucket", endpoint_url=url)
        if isinstance(outcome, bool):
            assert store.create_if_absent("key", b"data") is outcome
        else:
            with pytest.raises(outcome) as caught:
                store.create_if_absent("key", b"data")
            assert caught.type is outcome
            assert "hidden" not in str(caught.value)
        assert answers == []
        assert {line for line in asked if line.startswith("PUT")} == {"PUT *"}


@pytest.mark.usefixtures("s3_url")
def test_a_server_that_is_not_there_is_no_unknown_outcome() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        store = S3Store("bucket", endpoint_url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(StoreError, match="cannot reach http://127") as caught:
            store.create_if_absent("key", b"")
    assert caught.type is StoreError
