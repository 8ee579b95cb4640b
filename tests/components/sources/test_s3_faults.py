"""What a store of objects gets wrong on the way, by a server that does so on purpose."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from components.errors import SourceError
from components.sources import open_source, parse_source
from components.sources.converting import SMALL_BYTES
from components.windows import ALL_TIME

LISTING = (
    '<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>'
    '<Contents><Key>in/a.csv</Key><ETag>"tag"</ETag><Size>{}</Size></Contents></ListBucketResult>'
)


class Server:
    """One object, of which some bytes are sent and some are promised."""

    def __init__(self):
        self.content, self.sent, self.promised = b"", 0, 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                listing = "list-type=2" in self.path
                body = LISTING.format(len(server.content)).encode() if listing else server.content
                promised = len(body) if listing else server.promised
                self.send_response(200)
                self.send_header("Content-Length", str(promised))
                self.send_header("ETag", '"tag"')
                self.end_headers()
                self.wfile.write(body if listing else body[: server.sent])
                self.close_connection = True

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    served = Server()
    for name, value in {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{served.http.server_port}",
        "AWS_ACCESS_KEY_ID": "user",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield served
    served.http.shutdown()
    served.http.server_close()


@pytest.mark.parametrize("size", [1000, SMALL_BYTES + 1000], ids=["small", "large"])
@pytest.mark.parametrize(
    ("promised", "says"),
    [
        # Bytes that are promised and do not come: else the rows before them would be all.
        (1.0, "broke off while it was read"),
        (0.5, "is sent with .* bytes, and is listed with"),
    ],
)
def test_an_object_that_ends_too_early_is_refused(server, size, promised, says):
    source = open_source(parse_source(json.dumps({"kind": "s3", "url": "s3://bucket/in"})))
    row = b"some text" * 1000 + b",x\n"
    server.content = b"text,label\n" + row * (size // len(row) + 1)
    server.promised, server.sent = round(len(server.content) * promised), len(server.content) // 2
    with pytest.raises(SourceError, match=rf"s3://bucket/in/a\.csv {says}"):
        source.read(ALL_TIME)
    server.promised = server.sent = len(server.content)
    whole = open_source(parse_source(json.dumps({"kind": "s3", "url": "s3://bucket/in"})))
    assert len(whole.read(ALL_TIME).frame) == size // len(row) + 1
