from __future__ import annotations

from datetime import UTC, datetime

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from components.sources.direct_get import signed

NOW = datetime(2026, 1, 5, 7, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8333/bucket/in/a.csv",
        "https://bucket.s3.eu-west-1.amazonaws.com/dt%3D1/a%20b%2F~%27.csv",
        "https://bucket.s3.eu-west-1.amazonaws.com:443/a",
        "http://[::1]:80/bucket/a",
        "https://[::1]:8443/bucket/a",
    ],
)
@pytest.mark.parametrize("token", [None, "of-a-session"])
def test_a_signature_is_that_of_botocore(monkeypatch, address, token):
    credentials = Credentials("an-access-key", "a-secret", token)
    request = AWSRequest("GET", address, headers={"If-Match": '"etag"'})
    request.context["payload_signing_enabled"] = True
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)
    S3SigV4Auth(credentials, "s3", "eu-west-1").add_auth(request)
    headers = signed(address, {"If-Match": '"etag"'}, "eu-west-1", credentials, NOW)
    expected = {name.lower(): value for name, value in request.headers.items()}
    assert headers | expected == headers
