"""What the server says of rows that a champion leaves to a person."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from components import bundle
from components.operating_point import OperatingPointConfig, sureness
from components.serve.protocol_v2 import JSON_LENGTH
from components.tasks.text_classification import TextClassifier

V1 = "/v1/models/demo:predict"
V2 = "/v2/models/demo/infer"
TEXTS = ["the film was good", "a very dull story", "awful", "bad and dull", "a film", "not very"]


@pytest.fixture
def model(make_bundle):
    """A model that leaves half of the texts to a person."""
    loaded = TextClassifier.load(make_bundle(1))
    answers = loaded.predict(TEXTS)
    aim = OperatingPointConfig(aim="recall", label="positive", at_least=0.5)
    targets = np.arange(len(TEXTS)) % 2
    rule = loaded.fitted_rule(targets, answers, aim, calibrate=False)
    assert rule is not None
    middle = float(np.median(sureness(answers, rule.decided(answers), rule.point)))
    point = rule.point.model_copy(update={"min_sureness": middle})
    loaded.rule = rule.model_copy(update={"point": point})
    return loaded


@pytest.fixture
def client(world, running, until, model, seal_bundle, tmp_path):
    model.save(tmp_path / "bundle")
    seal_bundle(tmp_path / "bundle")
    world.promote(bundle.publish(world.store, tmp_path / "bundle"))
    with running(world) as found:
        until(lambda: found.get("/v2/health/ready").status_code == 200, "a champion")
        yield found


def test_a_row_that_is_left_to_a_person_has_no_label_in_either_protocol(client, model):
    answers = model.predict(TEXTS)
    left, leaning = model.abstained(answers), model.decisions(answers)
    assert left.any() and not left.all()
    labels = [None if each else label for each, label in zip(left, leaning, strict=True)]
    first = client.post(V1, json={"instances": TEXTS})
    assert first.status_code == 200, first.text
    predictions = first.json()["predictions"]
    assert [each["label"] for each in predictions] == labels
    assert [each["abstained"] for each in predictions] == left.tolist()
    for each, label in zip(predictions, leaning, strict=True):
        assert each["confidence"] == each["probabilities"][label]

    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
    second = client.post(V2, json={"inputs": [tensor]})
    assert second.status_code == 200, second.text
    tensors = {each["name"]: each for each in second.json()["outputs"]}
    assert tensors["label"]["datatype"] == "BYTES"
    assert tensors["label"]["data"] == [label or "" for label in labels]
    assert tensors["abstained"]["datatype"] == "BOOL"
    assert tensors["abstained"]["data"] == left.tolist()


def test_binary_answers_say_it_in_bytes(client, model):
    left = model.abstained(model.predict(TEXTS))
    raw = b"".join(struct.pack("<I", len(text)) + text.encode() for text in TEXTS)
    about = {"binary_data_size": len(raw)}
    head = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "parameters": about}
    wanted = [{"name": "abstained", "parameters": {"binary_data": True}}]
    document = json.dumps({"inputs": [head], "outputs": wanted}).encode()
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(len(document))}
    answer = client.post(V2, content=document + raw, headers=headers)
    assert answer.status_code == 200, answer.text
    length = int(answer.headers[JSON_LENGTH])
    assert np.frombuffer(answer.content[length:], dtype=bool).tolist() == left.tolist()


def test_the_form_is_told_before_anybody_asks(client, model):
    described = client.get("/v2/models/demo").json()
    types = {each["name"]: each["datatype"] for each in described["outputs"]}
    assert types == {
        "label": "BYTES",
        "confidence": "FP64",
        "abstained": "BOOL",
        "probabilities": "FP64",
    }
    assert described["parameters"]["decides"] == " ".join(model.rule.sentences)


def test_a_champion_that_abstains_from_everything_is_still_served(client, model):
    lone = [TEXTS[int(model.abstained(model.predict(TEXTS)).argmax())]]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": lone}
    answer = client.post(V2, json={"inputs": [tensor], "outputs": [{"name": "label"}]})
    assert answer.json()["outputs"][0]["data"] == [""]
