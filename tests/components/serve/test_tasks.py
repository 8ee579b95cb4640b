"""What the server says for kinds of tasks other than text classification."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pandas as pd
import pytest

from components import bundle
from components.serve.protocol_v2 import JSON_LENGTH
from components.tasks import TASKS
from components.tasks.image_classification import encode_png

V1 = "/v1/models/demo:predict"
V2 = "/v2/models/demo/infer"
PNG = encode_png(np.full((8, 8), 200, np.uint8))
CUT = base64.b64encode(base64.b64decode(PNG)[:-30]).decode()


@pytest.fixture
def serving(world, running, until, learnt):
    """Serve a model of a kind of task; gives a context with a client."""
    from contextlib import contextmanager

    @contextmanager
    def serve(kind):
        world.promote(bundle.publish(world.store, learnt(kind)))
        with running(world) as client:
            until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
            yield client

    return serve


def test_both_protocols_answer_for_every_kind_what_the_bundle_answers(
    serving, case_of, learnt, kind
):
    case, model = case_of(kind), TASKS[kind].load(learnt(kind))
    contents = pd.read_parquet(case.prepared / "rows.parquet")["text"].tolist()[:3]
    expected = model.responses(model.predict(contents))
    asked = {
        "inputs": [{"name": model.content, "datatype": "BYTES", "shape": [3], "data": contents}]
    }
    with serving(kind) as client:
        first = client.post(V1, json={"instances": contents})
        second = client.post(V2, json=asked)
        described = client.get("/v2/models/demo").json()
    assert first.status_code == second.status_code == 200, first.text + second.text
    for prediction, one in zip(first.json()["predictions"], expected, strict=True):
        assert prediction.keys() == one.keys()
        numbers = {key: value for key, value in one.items() if isinstance(value, float)}
        assert {key: prediction[key] for key in numbers} == pytest.approx(numbers, abs=1e-6)
    tensors = {tensor["name"]: tensor for tensor in second.json()["outputs"]}
    assert tensors.keys() == expected[0].keys()
    if model.answer_names == ("value",):
        assert tensors["value"]["datatype"] == "FP64"
        assert tensors["value"]["data"] == pytest.approx([one["value"] for one in expected])
    else:
        assert tensors["label"]["data"] == [one["label"] for one in expected]
        assert tensors["probabilities"]["shape"] == [3, len(model.answer_names)]
    assert described["inputs"] == [{"name": model.content, "datatype": "BYTES", "shape": [-1]}]
    assert [each["name"] for each in described["outputs"]] == list(expected[0])
    assert described["parameters"]["task"] == kind
    assert described["parameters"].get("labels", []) == list(case.task.label_names)


def test_a_number_that_nobody_could_learn_from_is_no_label(serving, case_of):
    task = case_of("text-regression").task
    with serving("text-regression") as client:
        for label in (f"{task.high + 1:g}", f"{task.low - 1:g}", "nan", "inf", "good", "1,5"):
            sent = {"feedback": [{"request_id": "20261122T013000Z-1a2b3c4d-1", "label": label}]}
            refused = client.post("/v1/feedback", json=sent)
            assert refused.status_code == 422, (label, refused.text)
            said = f"{label!r} is no number from {task.low:g} to {task.high:g}"
            assert said in refused.json()["error"]
        sent["feedback"][0]["label"] = f"{task.high:g}"
        assert client.post("/v1/feedback", json=sent).status_code == 404  # no such request


def image(data, **changes):
    return {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": data} | changes]
    }


def test_images_come_as_base64_in_several_forms(serving):
    raw = struct.pack("<I", len(PNG)) + PNG.encode()
    about = {"binary_data_size": len(raw)}
    head = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": about}
    document = json.dumps({"inputs": [head]}).encode()
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(len(document))}
    with serving("image-classification") as client:
        forms = [PNG, {"b64": PNG}, {"image": {"b64": PNG}}, {"image": PNG}]
        found = client.post(V1, json={"instances": forms}).json()["predictions"]
        tensor = client.post(V2, json=image([PNG]))
        binary = client.post(V2, content=document + raw, headers=headers)
    first = found[0]["probabilities"]
    assert all(one["probabilities"] == pytest.approx(first) for one in found)
    for answer in (tensor, binary):
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"][2]["data"] == pytest.approx(list(first.values()))


HOSTILE = {
    "no base64": ({"instances": ["!!"]}, 400, "image 0: not an image"),
    "no image": ({"instances": [{"b64": "aGVsbG8="}]}, 400, "image 0: not an image"),
    "cut": ({"instances": [PNG, {"b64": CUT}]}, 400, "image 1: not an image"),
    "number": ({"instances": [{"b64": 3}]}, 400, "image 0 is not a string but a number"),
    "null": ({"instances": [{"image": None}]}, 400, "null"),
    "text": ({"instances": [{"text": "a"}]}, 400, "an object"),
    "nested": ({"instances": [{"image": {"b64": {"b64": PNG}}}]}, 400, "an object"),
    "none": ({"instances": []}, 400, "no image"),
    "many": ({"instances": [PNG] * 257}, 413, "too many"),
    "large": (
        {"instances": [encode_png(np.zeros((6000, 9000), np.uint8))]},
        413,
        "pixels",
    ),
    "svg": (
        {"instances": [base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode()]},
        400,
        "not an image",
    ),
    "postscript": (
        {"instances": [base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n").decode()]},
        400,
        "not an image",
    ),
    "no list": ({"instances": PNG}, 400, "a list of images"),
    "no instances": ({}, 400, "b64"),
    "v2 name": (image([PNG], name="text"), 400, 'called "image"'),
    "v2 number": (image([1]), 400, "not a string"),
    "v2 cut": (image([CUT]), 400, "image 0: not an image"),
    "v2 shape": (image([PNG], shape=[2]), 400, "shape"),
    "v2 output": (image([PNG]) | {"outputs": [{"name": "value"}]}, 400, "no output 'value'"),
}


def test_hostile_images_get_one_clear_sentence(serving):
    with serving("image-classification") as client:
        for case, (body, status, says) in HOSTILE.items():
            answer = client.post(V2 if "inputs" in body else V1, json=body)
            assert answer.status_code == status, (case, answer.text)
            assert says in answer.json()["error"], case
            assert len(answer.json()["error"]) < 300
        assert client.post(V1, json={"instances": [PNG]}).status_code == 200


def test_a_regression_knows_no_label(serving):
    asked = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["good"]}
    with serving("text-regression") as client:
        (prediction,) = client.post(V1, json={"instances": ["good"]}).json()["predictions"]
        refused = client.post(V2, json={"inputs": [asked], "outputs": [{"name": "label"}]})
    assert list(prediction) == ["value"]
    assert -2 <= prediction["value"] <= 2
    assert refused.status_code == 400
    assert "no output 'label', only value" in refused.json()["error"]


def test_records_come_as_objects_or_as_json(serving):
    record = {"age": 70, "job": "a"}
    text = json.dumps(record)
    asked = {"name": "record", "datatype": "BYTES", "shape": [1], "data": [text]}
    wrong = {
        "another column": ({"salary": 1}, "record 0: no such column: 'salary'"),
        "no object": ("[1]", "record 0: not a JSON object"),
        "nested": ({"age": [70]}, "'age' is no text, number or null"),
        "no number": ({"age": "old"}, "record 0: the value of 'age' is no number"),
        "number": (7, "record 0 is not a string but a number"),
    }
    with serving("tabular-classification") as client:
        forms = [record, {"record": record}, text, {"job": "a", "age": "70.0"}]
        found = client.post(V1, json={"instances": forms}).json()["predictions"]
        empty = client.post(V1, json={"instances": [{}]})
        tensor = client.post(V2, json={"inputs": [asked]})
        for case, (value, says) in wrong.items():
            answer = client.post(V1, json={"instances": [value]})
            assert answer.status_code == 400, (case, answer.text)
            assert says in answer.json()["error"], case
    first = found[0]["probabilities"]
    assert all(one["probabilities"] == pytest.approx(first) for one in found)
    assert empty.status_code == tensor.status_code == 200
    assert tensor.json()["outputs"][2]["data"] == pytest.approx(list(first.values()))
