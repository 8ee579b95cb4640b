"""Our answers hold against the OpenAPI of the Open Inference Protocol, and so do addresses.

The forms below say what ``specification/protocol/open_inference_rest.yaml`` of
https://github.com/kserve/open-inference-protocol asks of each answer. What KServe's own models of
them say besides is in ``test_protocols.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from components.rollout.config import Stage


class Form(BaseModel):
    """An object of the protocol: what it names has exactly that type, and more may be there."""

    model_config = ConfigDict(strict=True, extra="allow")


class Server(Form):
    name: str
    version: str
    extensions: list[str]


class Tensor(Form):
    name: str
    datatype: str
    shape: list[int]


class Model(Form):
    name: str
    platform: str
    versions: list[str] = []
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []


class Output(Tensor):
    data: list[str | float | int | bool]
    parameters: dict[str, Any] = {}


class Answer(Form):
    model_name: str
    outputs: list[Output]
    model_version: str = ""
    id: str = ""
    parameters: dict[str, Any] = {}


class Error(Form):
    error: str


WELL = Path(__file__).with_name("bad_challenger.py")
INPUT = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["good", "bad " * 100]}
MODEL_PATHS = ("/v2/models/demo", "/v2/models/demo/versions/7")


def check(answer, form, status=200):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    form.model_validate_json(answer.content)
    return answer.json()


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_says_what_it_is(served, path):
    check(served.get(path), Server)


def test_probes_answer(served):
    paths = ("/v2/health/live", "/v2/health/ready", *(f"{path}/ready" for path in MODEL_PATHS))
    for path in paths:
        assert served.get(path).status_code == 200, path


@pytest.mark.parametrize("path", MODEL_PATHS)
def test_a_model_says_what_it_is_and_answers(served, path):
    about = check(served.get(path), Model)
    assert about["versions"] == ["7"]
    answer = check(served.post(f"{path}/infer", json={"id": "42", "inputs": [INPUT]}), Answer)
    assert (answer["id"], answer["model_version"]) == ("42", "7")
    names = [each["name"] for each in about["outputs"]]
    assert [each["name"] for each in answer["outputs"]] == names
    one = {"inputs": [INPUT], "outputs": [{"name": names[0]}], "parameters": {"priority": 1}}
    answer = check(served.post(f"{path}/infer", json=one), Answer)
    assert [each["name"] for each in answer["outputs"]] == names[:1]


def test_tensors_hold_as_many_values_as_they_say(served):
    answer = check(served.post("/v2/models/demo/infer", json={"inputs": [INPUT]}), Answer)
    for output in answer["outputs"]:
        rows, *more = output["shape"]
        assert len(output["data"]) == rows * (more[0] if more else 1)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"inputs": []}, 400),
        ({"inputs": [INPUT | {"datatype": "FP32"}]}, 400),
        ({"inputs": [INPUT | {"shape": [3]}]}, 400),
        ({"inputs": [INPUT | {"shape": [0], "data": []}]}, 400),
        ({"inputs": [INPUT], "outputs": [{"name": "other"}]}, 400),
    ],
)
def test_what_is_refused_is_told_in_the_form_of_the_protocol(served, body, status):
    check(served.post("/v2/models/demo/infer", json=body), Error, status)


@pytest.mark.parametrize("version", ["8", "7 ", "%37%37", "a" * 500, "\x00", "..."])
@pytest.mark.parametrize("part", ["", "/ready", "/infer"])
def test_a_version_that_does_not_serve_is_not_there(served, version, part):
    path = f"/v2/models/demo/versions/{version}{part}"
    body = {"json": {"inputs": [INPUT]}} if part == "/infer" else {}
    answer = served.request("POST" if body else "GET", path.replace("\x00", "%00"), **body)
    assert "does not serve here, only 7 does" in check(answer, Error, 404)["error"]


@pytest.mark.parametrize("path", ["/v2/models/demo/versions", "/v2/models/other/versions/7"])
def test_an_address_that_leads_nowhere_is_not_there(served, path):
    check(served.get(path), Error, 404)


def test_who_names_a_version_is_answered_by_no_challenger(world, until, running):
    world.promote(world.publish(1), version="7")
    canary = Stage(kind="canary", share=1.0, requests=10**6)
    world.begin("bundle", canary, max_disagreement=0.99, deadline_ms=20_000.0)
    with running(world, command=lambda digest: [sys.executable, str(WELL), "well"]) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")

        def asked(path="/v2/models/demo/infer"):
            return client.post(path, json={"inputs": [INPUT]}).json().get("model_version")

        until(lambda: asked() == "challenger", "the challenger")
        named = {asked("/v2/models/demo/versions/7/infer") for _ in range(5)}
        assert named == {"7"}
