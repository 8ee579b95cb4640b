"""Whatever is sent, the answer is a good one or a clear refusal."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

V1 = "/v1/models/demo:predict"
V2 = "/v2/models/demo/infer"
PATHS = (V1, V2, "/v1/models/demo:explain", "/v1/feedback")

KEYS = (
    *("instances", "text", "b64", "inputs", "name", "shape", "datatype", "data", "id"),
    *("parameters", "outputs", "feedback", "request_id", "row", "label"),
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["text", "image", ""]),
        "datatype": st.sampled_from(["BYTES", "bytes", "FP32", "INT64", "BOOL", "FP16", "x"]),
        "shape": st.lists(st.integers(-2, 3) | st.integers(), max_size=3),
        "data": st.lists(anything, max_size=3),
    },
    optional={"parameters": anything},
)
nearly = (
    st.fixed_dictionaries({"instances": st.lists(st.text() | anything, max_size=3)})
    | st.fixed_dictionaries(
        {"inputs": st.lists(tensors, max_size=2)},
        optional={"id": st.text() | anything, "outputs": anything, "parameters": anything},
    )
    | st.fixed_dictionaries(
        {"feedback": st.lists(st.fixed_dictionaries({"request_id": st.text(), "label": st.text()}))}
    )
)
headers = st.sampled_from(
    [
        {"content-type": "application/json"},
        {"content-type": "application/json; charset=utf-8", "x-request-id": "a"},
        {"content-type": "application/octet-stream", "inference-header-content-length": "2"},
        {"content-type": "application/octet-stream", "inference-header-content-length": "40"},
        {},
    ]
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(PATHS), nearly | anything | st.binary(max_size=60), headers)
def test_whatever_is_sent_the_server_stands(served, path, body, headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = served.post(path, content=content, headers=headers)
    assert answer.status_code in (200, 400, 404, 413, 415, 422), answer.text
    if answer.status_code != 200:
        assert list(answer.json()) == ["error"]


CASES = 5000
# They ask that whatever the document allows is taken and all else refused with 400 or 422. It
# cannot say which labels a model knows, and 413 is the answer to too much.
TOO_STRICT = "positive_data_acceptance,negative_data_rejection"


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_schemathesis_finds_nothing_wrong_in_five_thousand_cases(served, tmp_path):
    """Good and bad requests made from our own OpenAPI document, and answers held to it."""
    command = [
        f"{sysconfig.get_path('scripts')}/schemathesis",
        *("run", f"{served.base_url}/openapi.json", "--exclude-checks", TOO_STRICT),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", "720", "--seed", "6"),
        *("--continue-on-failure", "--no-color"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:]
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated and int(generated[1]) >= CASES, done.stdout[-2000:]
