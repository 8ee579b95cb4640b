from __future__ import annotations

import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from components.errors import ConfigError, SourceError, UserError
from components.sources import open_source, parse_source
from components.windows import ALL_TIME, Window

WEEK = Window(start="2026-01-05T00:00:00+00:00", end="2026-01-12T00:00:00+00:00")


class Api:
    """Answers of a server by path: a function of the query to status, headers and body."""

    def __init__(self):
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                parts = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                api.asked.append((parts.path, query, dict(self.headers)))
                status, headers, body = api.answers[parts.path](query)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}"


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setenv("TOKIWA_HTTP_NETWORKS", "127.0.0.0/8")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    served = Api()
    yield served
    served.server.shutdown()
    served.server.server_close()


def rows(texts):
    return [{"text": text, "label": "x"} for text in texts]


def read(api, path="/rows", window=ALL_TIME, **section):
    config = parse_source(json.dumps({"kind": "http", "url": f"{api.url}{path}", **section}))
    return sorted(open_source(config).read(window).frame["text"].tolist())


def test_pages_are_followed_by_their_link_header(api):
    def answer(query):
        page = int(query.get("page", "1"))
        link = {"Link": f'</rows?page={page + 1}>; rel="next"'} if page < 3 else {}
        return 200, link, rows([f"{page}"])

    api.answers["/rows"] = answer
    assert read(api) == ["1", "2", "3"]


def test_pages_are_followed_by_a_cursor_or_an_address_in_the_body(api):
    def by_cursor(query):
        after = int(query.get("after", "0"))
        return (
            200,
            {},
            {"data": {"items": rows([f"{after}"])}, "next": after + 1 if after < 2 else None},
        )

    def by_address(query):
        more = {"paging": {"next": "/more?x=1"}} if not query else {}
        return 200, {}, {"data": {"items": rows(["a" if not query else "b"])}, **more}

    api.answers |= {"/cursor": by_cursor, "/rows": by_address, "/more": by_address}
    items = {"records": "data.items"}
    assert read(api, "/cursor", **items, next_from="next", cursor_param="after") == ["0", "1", "2"]
    assert read(api, **items, next_from="paging.next") == ["a", "b"]


def test_the_ends_of_the_window_are_asked_for_and_other_windows_are_not(api):
    api.answers["/rows"] = lambda query: (200, {}, [
        {"text": query["from"], "label": "x", "when": query["from"]}
    ])  # fmt: skip
    section = {"params": {"from": "{start}", "to": "{end}"}, "columns": {"time": "when"}}
    assert read(api, window=WEEK, **section) == [WEEK.start]
    assert [query for _, query, _ in api.asked] == [{"from": WEEK.start, "to": WEEK.end}]


def test_an_address_may_be_a_file(api):
    api.answers["/rows.csv"] = lambda query: (200, {}, b"text,label\na,x\nb,y,z\n")
    assert read(api, "/rows.csv") == ["a"]


def test_a_token_is_sent_to_the_own_host_only(api, monkeypatch):
    other = Api()
    monkeypatch.setenv("API_TOKEN", "geheim")
    monkeypatch.setenv("TOKIWA_HTTP_HOSTS", "127.0.0.1,localhost")
    elsewhere = f"http://localhost:{other.server.server_port}/rows"
    api.answers["/rows"] = lambda query: (302, {"Location": elsewhere}, b"")
    other.answers["/rows"] = lambda query: (200, {}, rows(["a"]))
    assert read(api, token_from="API_TOKEN") == ["a"]
    assert api.asked[0][2]["Authorization"] == "Bearer geheim"
    assert "Authorization" not in other.asked[0][2]
    other.server.shutdown()
    other.server.server_close()


def test_a_busy_server_is_asked_again(api):
    answers = iter([(503, {}, b""), (429, {"Retry-After": "1"}, b""), (200, {}, rows(["a"]))])
    api.answers["/rows"] = lambda query: next(answers)
    assert read(api) == ["a"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, {}, b"Bearer geheim is wrong"), r"denies access \(401\)"),
        ((500, {}, b""), "answers 500"),
        ((404, {}, b""), "answers 404"),
        ((200, {}, b"<html>"), "page 1 is no JSON"),
        ((200, {}, {"data": []}), "holds no list as a whole; mend source.records"),
        ((200, {"Content-Length": "9999"}, b"[]"), "broke off"),
        ((200, {"Link": '</rows>; rel="next"'}, []), "round in a circle"),
        ((302, {"Location": "/rows"}, b""), "redirects more than 5 times"),
    ],
)
def test_answers_that_are_none_are_one_clear_line(api, answer, says, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "geheim")
    api.answers["/rows"] = lambda query: answer
    with pytest.raises(SourceError, match=says) as refusal:
        read(api, "/rows?key=secret", token_from="API_TOKEN")
    assert "geheim" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_more_pages_than_agreed_are_refused(api):
    api.answers["/rows"] = lambda query: (200, {}, rows(["a"]))
    with pytest.raises(SourceError, match="more than 3 pages"):
        read(api, page_param="page", max_pages=3)


# --- whom may be talked to ---


def test_a_private_address_is_refused_at_the_connected_socket(api, monkeypatch):
    monkeypatch.delenv("TOKIWA_HTTP_NETWORKS")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1, which is no public address"):
        read(api)
    assert api.asked == []


def test_a_name_that_resolves_to_a_private_address_is_refused(api, monkeypatch):
    monkeypatch.delenv("TOKIWA_HTTP_NETWORKS")
    section = {"kind": "http", "url": f"http://localhost:{api.server.server_port}/rows"}
    with pytest.raises(ConfigError, match=r"localhost is at .*, which is no public address"):
        open_source(parse_source(json.dumps(section))).read(ALL_TIME)
    assert api.asked == []


@pytest.mark.parametrize("way", ["redirect", "next page"])
def test_a_host_that_is_not_allowed_is_not_reached_by_the_way(api, way):
    elsewhere = f"http://localhost:{api.server.server_port}/secret"
    if way == "redirect":
        api.answers["/rows"] = lambda query: (302, {"Location": elsewhere}, b"")
    else:
        api.answers["/rows"] = lambda query: (200, {"Link": f'<{elsewhere}>; rel="next"'}, [])
    with pytest.raises(ConfigError, match="localhost is none of the hosts that may be read"):
        read(api)
    assert [path for path, _, _ in api.asked] == ["/rows"]


@pytest.mark.parametrize("way", ["redirect", "next page"])
def test_a_way_that_leads_to_no_address_is_one_clear_line(api, way):
    if way == "redirect":
        api.answers["/rows"] = lambda query: (302, {"Location": "http://[bad"}, b"")
    else:
        api.answers["/rows"] = lambda query: (200, {"Link": '<http://[bad>; rel="next"'}, [])
    with pytest.raises(SourceError, match=r"leads to 'http://\[bad', which is no address"):
        read(api)


@pytest.mark.parametrize("path", ["/rows.csv.gz", "/rows.csv"])
def test_a_file_whose_packing_the_server_calls_an_encoding_is_unpacked_once(api, path):
    packed = gzip.compress(b"text,label\na,x\n")
    api.answers[path] = lambda query: (200, {"Content-Encoding": "gzip"}, packed)
    assert read(api, path) == ["a"]


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://a"])
def test_a_redirect_to_another_protocol_is_refused(api, where):
    api.answers["/rows"] = lambda query: (302, {"Location": where}, b"")
    with pytest.raises(ConfigError, match="no address of HTTP"):
        read(api)


def test_the_operators_hosts_outweigh_the_projects(api, monkeypatch):
    monkeypatch.setenv("TOKIWA_HTTP_HOSTS", "*.example.com")
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1 is none of the hosts"):
        read(api)


def test_networks_that_are_none_are_named(api, monkeypatch):
    monkeypatch.setenv("TOKIWA_HTTP_NETWORKS", "10.0.0.0/99")
    with pytest.raises(UserError, match="TOKIWA_HTTP_NETWORKS is wrong"):
        read(api)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"url": "ftp://a/b"}, "should be an address"),
        ({"url": "https://user:pw@example.com"}, "token_from"),
        ({"url": "https://example.com", "cursor_param": "after"}, "needs next_from"),
        ({"url": "https://example.com", "page_param": "p", "next_from": "n"}, "stands alone"),
        ({"url": "https://example.com", "token_from": "Bearer abc"}, "environment variable"),
    ],
)
def test_sections_that_make_no_sense_are_refused(section, says):
    with pytest.raises(ValidationError, match=says):
        parse_source(json.dumps({"kind": "http", **section}))


def test_a_token_that_is_not_there_is_asked_for(api):
    with pytest.raises(UserError, match="set NO_SUCH_TOKEN"):
        read(api, token_from="NO_SUCH_TOKEN")
