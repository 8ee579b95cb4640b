"""What no server should choke on: malformed, wrong, too large, and at no address."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct

import pytest

from components.serve import body
from components.serve.body import MAX_BODY_BYTES
from components.serve.model import MAX_CHARACTERS, MAX_CONTENTS
from components.serve.protocol_v2 import JSON_LENGTH

V1 = "/v1/models/demo:predict"
V2 = "/v2/models/demo/infer"
EXPLAIN = "/v1/models/demo:explain"
AS_JSON = {"content-type": "application/json"}


def tensor(data, **changes):
    shape = [len(data)] if isinstance(data, list) else [1]
    return {"name": "text", "datatype": "BYTES", "shape": shape, "data": data} | changes


def binary(texts, **changes):
    """Return body and headers of a V2 request with its texts after the JSON."""
    raw = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    head = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [len(texts)],
        "parameters": {"binary_data_size": len(raw)},
    }
    document = json.dumps({"inputs": [head | changes]}).encode()
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(len(document))}
    return document + raw, headers


LONG = "a" * (MAX_CHARACTERS + 1)
MANY = ["a"] * (MAX_CONTENTS + 1)
DEEP = "[" * 100_000

MALFORMED = {
    "v1 empty": (V1, b"", AS_JSON, 400, "not JSON"),
    "v1 broken": (V1, b'{"instances": [', AS_JSON, 400, "not JSON"),
    "v1 deep": (V1, DEEP.encode(), AS_JSON, 400, "not JSON"),
    "v1 NaN": (V1, b'{"instances": [NaN]}', AS_JSON, 400, "not JSON"),
    "v1 not UTF-8": (V1, b'{"instances": ["\xff"]}', AS_JSON, 400, "not JSON"),
    "v1 surrogate": (V1, b'{"instances": ["\\ud800"]}', AS_JSON, 400, "not JSON"),
    "v1 no type": (V1, b'{"instances": ["a"]}', {}, 415, "Content-Type"),
    "v1 form": (
        V1,
        b'{"instances": ["a"]}',
        {"content-type": "application/x-www-form-urlencoded"},
        415,
        "Content-Type",
    ),
    "v1 gzip": (
        V1,
        gzip.compress(b'{"instances": ["a"]}'),
        {**AS_JSON, "content-encoding": "gzip"},
        415,
        "without Content-Encoding",
    ),
    "v2 gzip": (
        V2,
        gzip.compress(json.dumps({"inputs": [tensor(["a"])]}).encode()),
        {**AS_JSON, "content-encoding": "GZip"},
        415,
        "without Content-Encoding",
    ),
    "v1 list": (V1, ["a"], AS_JSON, 400, "instances"),
    "v1 string": (V1, "a", AS_JSON, 400, "instances"),
    "v1 no instances": (V1, {"inputs": ["a"]}, AS_JSON, 400, "instances"),
    "v1 null": (V1, {"instances": None}, AS_JSON, 400, "must be a list"),
    "v1 text": (V1, {"instances": "a"}, AS_JSON, 400, "must be a list"),
    "v1 object": (V1, {"instances": {"text": "a"}}, AS_JSON, 400, "must be a list"),
    "v1 none": (V1, {"instances": []}, AS_JSON, 400, "no text"),
    "v1 number": (V1, {"instances": ["a", 1]}, AS_JSON, 400, "text 1 is not a string"),
    "v1 nested": (V1, {"instances": [["a"]]}, AS_JSON, 400, "a list"),
    "v1 other key": (V1, {"instances": [{"txt": "a"}]}, AS_JSON, 400, "an object"),
    "v1 text of null": (V1, {"instances": [{"text": None}]}, AS_JSON, 400, "null"),
    "v1 many": (V1, {"instances": MANY}, AS_JSON, 413, "too many"),
    "v1 long": (V1, {"instances": [LONG]}, AS_JSON, 413, "characters"),
    "v1 huge": (V1, b" " * (MAX_BODY_BYTES + 1), AS_JSON, 413, "bytes"),
    "v1 other model": ("/v1/models/x:predict", {"instances": ["a"]}, AS_JSON, 404, "no model 'x'"),
    "v1 odd model": ("/v1/models/%ff:predict", {"instances": ["a"]}, AS_JSON, 404, "no model"),
    "v2 empty": (V2, b"", AS_JSON, 400, "protocol V2"),
    "v2 broken": (V2, b"{", AS_JSON, 400, "protocol V2"),
    "v2 deep": (V2, DEEP.encode(), AS_JSON, 400, "protocol V2"),
    "v2 surrogate": (
        V2,
        json.dumps({"inputs": [tensor(["\ud800"])]}).encode(),
        AS_JSON,
        400,
        "protocol V2",
    ),
    "v2 surrogate id": (
        V2,
        json.dumps({"id": "\ud800", "inputs": [tensor(["a"])]}).encode(),
        AS_JSON,
        400,
        "protocol V2",
    ),
    "v2 no type": (V2, json.dumps({"inputs": [tensor(["a"])]}).encode(), {}, 415, "Content-Type"),
    "v2 no length": (
        V2,
        b"abc",
        {"content-type": "application/octet-stream"},
        415,
        "application/json",
    ),
    "v2 no inputs": (V2, {}, AS_JSON, 400, "inputs"),
    "v2 none": (V2, {"inputs": []}, AS_JSON, 400, "one input"),
    "v2 two": (V2, {"inputs": [tensor(["a"])] * 2}, AS_JSON, 400, "one input"),
    "v2 name": (V2, {"inputs": [tensor(["a"], name="x")]}, AS_JSON, 400, "one input"),
    "v2 datatype": (V2, {"inputs": [tensor([1], datatype="INT64")]}, AS_JSON, 400, "BYTES"),
    "v2 half": (V2, {"inputs": [tensor([1.0], datatype="FP16")]}, AS_JSON, 400, "FP16"),
    "v2 numbers": (V2, {"inputs": [tensor([1])]}, AS_JSON, 400, "not a string"),
    "v2 data": (V2, {"inputs": [tensor("a")]}, AS_JSON, 400, "data"),
    "v2 empty data": (V2, {"inputs": [tensor([])]}, AS_JSON, 400, "no text"),
    "v2 shape": (V2, {"inputs": [tensor(["a"], shape=[2])]}, AS_JSON, 400, "shape"),
    "v2 negative": (V2, {"inputs": [tensor(["a"], shape=[-1])]}, AS_JSON, 400, "shape"),
    "v2 wide": (V2, {"inputs": [tensor(["a", "b"], shape=[1, 2])]}, AS_JSON, 400, "shape"),
    "v2 scalar": (V2, {"inputs": [tensor(["a"], shape=[])]}, AS_JSON, 400, "shape"),
    "v2 many": (V2, {"inputs": [tensor(MANY)]}, AS_JSON, 413, "too many"),
    "v2 long": (V2, {"inputs": [tensor([LONG])]}, AS_JSON, 413, "characters"),
    "v2 output": (
        V2,
        {"inputs": [tensor(["a"])], "outputs": [{"name": "logits"}]},
        AS_JSON,
        400,
        "no output 'logits'",
    ),
    "v2 other model": ("/v2/models/x/infer", {"inputs": []}, AS_JSON, 404, "no model 'x'"),
    "v2 version": ("/v2/models/demo/versions/8/infer", {}, AS_JSON, 404, "does not serve"),
    "v2 binary not UTF-8": (V2, *binary([b"\xff"]), 400, "binary"),
    "v2 binary shape": (V2, *binary([b"a"], shape=[3]), 400, "binary"),
    "v2 binary cut": (V2, binary([b"abcd"])[0][:-2], binary([b"abcd"])[1], 400, "binary"),
    "v2 binary size": (
        V2,
        *binary([b"a"], parameters={"binary_data_size": "x"}),
        400,
        "binary",
    ),
    "v2 binary length": (V2, b"{}", {**AS_JSON, JSON_LENGTH: "-1"}, 400, "length"),
    "v2 binary too long": (V2, b"{}", {**AS_JSON, JSON_LENGTH: "99"}, 400, "length"),
    "v2 binary endless": (V2, b"{}", {**AS_JSON, JSON_LENGTH: "9" * 5000}, 400, "length"),
    "v2 binary no inputs": (V2, b"{}", {**AS_JSON, JSON_LENGTH: "2"}, 400, "binary"),
    "v2 binary list": (V2, b"[]", {**AS_JSON, JSON_LENGTH: "2"}, 400, "binary"),
    "v2 masses of inputs": (
        V2,
        b'{"inputs": [' + b"{}, " * 20_000 + b"{}]}",
        AS_JSON,
        413,
        "may have 64 items",
    ),
    "v2 masses of outputs": (
        V2,
        {"inputs": [tensor(["a"])], "outputs": [{}] * 20_000},
        AS_JSON,
        413,
        "may have 64 items",
    ),
    "v2 masses of a shape": (
        V2,
        {"inputs": [tensor(["a"], shape=["x"] * 20_000)]},
        AS_JSON,
        413,
        "may have 64 items",
    ),
    "v2 large and broken": (V2, b"[" * 70_000, AS_JSON, 400, "protocol V2"),
    "v2 binary many": (V2, *binary([b""] * (MAX_CONTENTS + 1)), 413, "there are more"),
    "v2 binary none": (V2, *binary([]), 400, "no text"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_bad_requests_get_one_clear_sentence(served, case):
    path, sent, headers, status, says = MALFORMED[case]
    content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    answer = served.post(path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    sentence = answer.json()["error"]
    assert says in sentence
    assert len(sentence) < 300
    assert "Traceback" not in answer.text


def test_cloud_event_headers_change_nothing(served):
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "x", "ce-type": "y"}
    answer = served.post(V1, json={"instances": ["a"]}, headers=headers)
    assert answer.status_code == 200
    assert "predictions" in answer.json()


def test_a_body_that_is_said_to_be_as_it_is_is_read(served):
    headers = {"content-encoding": "identity"}
    assert served.post(V1, json={"instances": ["a"]}, headers=headers).status_code == 200


HEAD = f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def test_a_body_that_breaks_off_does_no_harm(served):
    url = served.base_url
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(f"{HEAD}Content-Length: 100\r\n\r\n{{".encode())
    assert served.post(V1, json={"instances": ["a"]}).status_code == 200


def test_many_large_bodies_at_once_are_refused_and_small_ones_are_not(served, monkeypatch, until):
    monkeypatch.setattr(body, "MAX_BODIES_BYTES", 1000)
    whole = b'{"instances": ["a"]}'.ljust(900)
    url = served.base_url
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(f"{HEAD}Content-Length: {len(whole)}\r\n\r\n".encode() + whole[:-1])
        # What is no JSON takes no time, in which the other body would find no room.
        large = b" " * 900
        until(lambda: _refused(served.post(EXPLAIN, content=large, headers=AS_JSON)), "no room")
        assert served.post(V1, json={"instances": ["a"]}).status_code == 200
    until(lambda: served.post(V1, content=whole, headers=AS_JSON).status_code == 200, "room again")


def _refused(answer):
    return (answer.status_code, answer.headers.get("retry-after")) == (429, "1")


@pytest.mark.parametrize("length", ["Transfer-Encoding: chunked", f"Content-Length: {2**24}"])
def test_a_body_takes_no_more_room_than_has_come_of_it(served, monkeypatch, length):
    monkeypatch.setattr(body, "MAX_BODIES_BYTES", MAX_BODY_BYTES)
    url = served.base_url
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(f"{HEAD}{length}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert b" 100 " in connection.recv(100), "it was let in, and its body is waited for"
        for content in (b'{"instances": ["a"]}', iter([b'{"instances": ', b'["a"]}'])):
            answer = served.post(V1, content=content, headers=AS_JSON)
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("act", ["load", "unload", "index"])
@pytest.mark.parametrize("place", ["/v2/repository/models/demo/", "/v2/repository/"])
def test_the_model_repository_is_closed(served, place, act):
    answer = served.post(place + act)
    assert answer.status_code == 404
    assert "error" in answer.json()
    assert served.get("/v2/models/demo/ready").status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/v3", "/openai/v1/models"])
def test_nothing_else_is_open(served, path):
    assert served.get(path).status_code == 404


def test_a_web_socket_is_no_way_in(served):
    asked = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    key = {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert served.get("/v2", headers=asked | key).status_code == 200
    assert served.get(V2, headers=asked | key).status_code == 405


def test_wrong_method_is_told(served):
    answer = served.get(V2)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert "Not Allowed" in answer.json()["error"]


def test_pipelined_garbage_is_not_a_crash(served):
    connection = http.client.HTTPConnection(served.base_url.host, served.base_url.port, timeout=20)
    connection.putrequest("POST", V1, skip_accept_encoding=True)
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    connection.send(b"zz\r\nnot a chunk\r\n")
    assert connection.getresponse().status == 400
    connection.close()
    assert served.get("/v2/health/live").status_code == 200
