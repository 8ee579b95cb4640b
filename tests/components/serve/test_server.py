from __future__ import annotations

import json
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from kserve import InferInput, InferRequest

from components.errors import WorldError
from components.serve.config import LimitsConfig, ServeConfig
from components.serve.model import BundleModel
from components.serve.protocol_v2 import JSON_LENGTH

V1 = "/v1/models/demo:predict"
V2 = "/v2/models/demo/infer"
TEXTS = ["the film was good", "awful"]
PATIENT = ServeConfig(limits=LimitsConfig(queue_ms=60_000))
"""On a busy machine nobody is refused."""


def tensor(data, **changes):
    shape = [len(data)] if isinstance(data, list) else [1]
    return {"name": "text", "datatype": "BYTES", "shape": shape, "data": data} | changes


@pytest.fixture
def expected(make_bundle):
    from components.tasks.text_classification import TextClassifier

    return TextClassifier.load(make_bundle(1)).predict(TEXTS)


def test_v1_takes_strings_and_objects(served, expected):
    answer = served.post(V1, json={"instances": [TEXTS[0], {"text": TEXTS[1]}]})
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["model_name"] == "demo"
    assert content["model_version"] == "7"
    assert content["generation"] == 1
    assert answer.headers["x-model-version"] == "7"
    assert answer.headers["x-model-generation"] == "1"
    for prediction, row in zip(content["predictions"], expected, strict=True):
        assert list(prediction["probabilities"].values()) == pytest.approx(list(row))
        assert prediction["confidence"] == max(prediction["probabilities"].values())
        assert prediction["probabilities"][prediction["label"]] == prediction["confidence"]


@pytest.mark.parametrize(
    "given",
    [
        tensor(TEXTS),
        tensor(TEXTS, shape=[2, 1]),
        tensor([[text] for text in TEXTS], shape=[2, 1]),
        tensor(TEXTS, datatype="bytes"),
    ],
)
def test_v2_answers_with_three_tensors(served, expected, given):
    answer = served.post(V2, json={"id": "ask-1", "inputs": [given]})
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["id"] == "ask-1"
    assert (content["model_name"], content["model_version"]) == ("demo", "7")
    assert content["parameters"] == {"version": "7", "generation": 1}
    label, confidence, probabilities = content["outputs"]
    assert (label["name"], label["datatype"], label["shape"]) == ("label", "BYTES", [2])
    assert (confidence["name"], confidence["datatype"]) == ("confidence", "FP64")
    assert (probabilities["datatype"], probabilities["shape"]) == ("FP64", [2, 2])
    assert probabilities["data"] == pytest.approx(list(expected.ravel()))
    assert json.loads(probabilities["parameters"]["labels"]) == ["negative", "positive"]
    assert answer.headers["x-model-generation"] == "1"


def test_v2_binary_tensors_in_and_out(served, expected):
    asked = InferInput("text", [2], "BYTES")
    asked.set_data_from_numpy(np.array(TEXTS, object), binary_data=True)
    body, length = InferRequest("demo", [asked]).to_rest()
    headers = {"content-type": "application/octet-stream", JSON_LENGTH: str(length)}
    plain = served.post(V2, content=body, headers=headers)
    assert plain.status_code == 200, plain.text
    assert plain.json()["outputs"][2]["data"] == pytest.approx(list(expected.ravel()))
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    answer = served.post(V2, json={"inputs": [tensor(TEXTS)], "outputs": wanted})
    length = int(answer.headers[JSON_LENGTH])
    (output,) = json.loads(answer.content[:length])["outputs"]
    assert output["name"] == "probabilities"
    assert struct.unpack("<4d", answer.content[length:]) == pytest.approx(list(expected.ravel()))


def test_kserve_client_understands_the_server(served):
    import asyncio

    from kserve import InferenceRESTClient, RESTConfig

    async def ask():
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        base = str(served.base_url)
        asked = InferRequest("demo", [InferInput("text", [2], "BYTES", TEXTS)])
        try:
            answer = await client.infer(base, asked, model_name="demo")
            return (
                answer,
                await client.is_server_ready(base),
                await client.is_model_ready(base, "demo"),
            )
        finally:
            await client.close()

    answer, server_ready, model_ready = asyncio.run(ask())
    assert server_ready and model_ready
    assert [output.name for output in answer.outputs] == ["label", "confidence", "probabilities"]


def test_metadata_and_health(served):
    content = served.get("/v2/models/demo").json()
    assert (content["name"], content["versions"]) == ("demo", ["7"])
    assert content["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert content["outputs"][2] == {
        "name": "probabilities",
        "datatype": "FP64",
        "shape": [-1, 2],
    }
    assert content["parameters"]["state"] == "serving"
    assert content["parameters"]["generation"] == 1
    assert "reason" not in content["parameters"]
    for path in ("/v2/health/ready", "/v2/models/demo/ready", "/v1/models/demo"):
        assert served.get(path).json()["ready"] is True, path
    assert served.get("/v2/health/live").json()["live"] is True
    assert served.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert (
        served.get("/v2/models").json() == served.get("/v1/models").json() == {"models": ["demo"]}
    )
    assert "request_predict_seconds" in served.get("/metrics").text


def test_listens_on_loopback_only(served):
    port = f"{served.base_url.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port}")]
    assert listening == [f"0100007F:{port}"]


def test_a_port_in_use_is_one_clear_line(world, served):
    from components.serve import serve

    port = served.base_url.port
    with pytest.raises(WorldError, match=f"127.0.0.1:{port}: Address already in use"):
        serve(str(world.store.root), "demo", "demo", "127.0.0.1", port, 1.0, ServeConfig())


def test_waits_for_the_first_champion(world, running, until):
    with running(world) as client:
        for path in ("/v2/health/ready", "/v2/models/demo/ready", "/v1/models/demo"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert answer.json()["error"] == "no champion yet"
        answer = client.post(V1, json={"instances": ["a"]})
        assert answer.status_code == 503
        assert "no champion yet" in answer.json()["error"]
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/models/demo").json()["parameters"] == {
            "state": "waiting",
            "reason": "no champion yet",
        }
        world.promote(world.publish(1), version="")
        until(lambda: client.get("/v2/health/ready").status_code == 200, "the first champion")
        content = client.post(V1, json={"instances": ["a"]}).json()
        assert content["model_version"] == world.ledger.head().bundle[:12]


def test_counters_of_a_version_begin_at_0_before_anybody_asks_it(world, running, until):
    world.promote(world.publish(1), version="asked by nobody")
    with running(world) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        told = client.get("/metrics").text.splitlines()
    about = 'model_name="demo",protocol="v1",status="503",version="asked by nobody"'
    assert f"tokiwa_requests_total{{{about}}} 0.0" in told
    about = 'le="0.05",model_name="demo",version="asked by nobody"'
    assert f"tokiwa_request_seconds_bucket{{{about}}} 0.0" in told


def test_an_altered_bundle_is_refused_while_the_old_one_answers(world, running, until):
    good, bad = world.publish(1), world.publish(2)
    world.promote(good)
    with running(world) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        before = client.post(V1, json={"instances": TEXTS}).json()
        weights = world.file(bad, "model.safetensors")
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
        world.promote(bad)

        def state():
            return client.get("/v2/models/demo").json()["parameters"]

        until(lambda: state()["state"] == "degraded", "the refusal")
        assert "altered" in state()["reason"]
        ready = client.get("/v2/health/ready")
        assert ready.status_code == 200
        assert (ready.json()["state"], "altered" in ready.json()["reason"]) == ("degraded", True)
        assert client.post(V1, json={"instances": TEXTS}).json() == before
        world.promote(good)
        until(lambda: state()["state"] == "serving", "the rollback")
        assert client.post(V1, json={"instances": TEXTS}).json()["generation"] == 3


def test_swaps_under_load_drop_nothing(world, running, until):
    swaps, clients = 6, 8
    digests = [world.publish(seed) for seed in (1, 2, 3)]
    models = [BundleModel.load(world.store, digest) for digest in digests]
    expected = [
        [pytest.approx(list(one["probabilities"].values())) for one in model.predict(TEXTS)]
        for model in models
    ]
    world.promote(digests[0])
    over = threading.Event()
    by_client: list[list[tuple[int, str, list[list[float]]]]] = [[] for _ in range(clients)]

    def ask(number):
        answers = by_client[number]
        with httpx.Client(base_url=base, timeout=20) as client:
            while not over.is_set():
                if number % 2:
                    content = client.post(V1, json={"instances": TEXTS}).raise_for_status().json()
                    rows = [list(one["probabilities"].values()) for one in content["predictions"]]
                    answers.append((content["generation"], content["model_version"], rows))
                else:
                    asked = {"inputs": [tensor(TEXTS)]}
                    content = client.post(V2, json=asked).raise_for_status().json()
                    flat = content["outputs"][2]["data"]
                    told = content["parameters"]
                    answers.append((told["generation"], told["version"], [flat[:2], flat[2:]]))

    def busy(requests):
        """Wait until so many more were answered, or a client has failed."""
        goal = sum(map(len, by_client)) + requests
        until(
            lambda: sum(map(len, by_client)) >= goal or any(one.done() for one in work),
            "answers under load",
        )

    with running(world, config=PATIENT) as client, ThreadPoolExecutor(clients) as pool:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        base = str(client.base_url)
        work = [pool.submit(ask, number) for number in range(clients)]
        try:
            busy(60)
            for generation in range(2, swaps + 2):
                world.promote(digests[(generation - 1) % 3])
                until(
                    lambda now=generation: (
                        client.get("/v2/models/demo").json()["parameters"]["generation"] == now
                    ),
                    "a swap",
                )
                busy(60)
        finally:
            over.set()
        for one in work:
            one.result()  # any failed request raises here
    answers = [answer for answers in by_client for answer in answers]
    print(f"{len(answers)} requests over {swaps} swaps, none failed")
    assert len(answers) >= 60 * (swaps + 1)
    assert {generation for generation, _, _ in answers} == set(range(1, swaps + 2))
    for generation, version, rows in answers:
        assert version == f"v{generation}"
        assert rows == expected[(generation - 1) % 3]
    for answers in by_client:
        told = [generation for generation, _, _ in answers]
        assert told == sorted(told), "a client never sees the old champion again"


def test_a_slow_prediction_stalls_nobody_else(world, running, until, monkeypatch):
    world.promote(world.publish(1))
    asked, go_on = threading.Event(), threading.Event()
    with running(world, config=PATIENT) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        genuine = BundleModel.respond

        def slow(self, texts):
            asked.set()
            assert go_on.wait(20)
            return genuine(self, texts)

        monkeypatch.setattr(BundleModel, "respond", slow)
        with ThreadPoolExecutor(12) as pool:
            waiting = [pool.submit(client.post, V1, json={"instances": ["a"]}) for _ in range(12)]
            assert asked.wait(20)
            assert client.get("/v2/health/live").elapsed.total_seconds() < 1
            go_on.set()
            assert {one.result().status_code for one in waiting} == {200}


def test_requests_in_flight_are_finished_before_the_end(world, running, until, monkeypatch):
    world.promote(world.publish(1))
    asked, go_on = threading.Event(), threading.Event()
    genuine = BundleModel.respond

    def slow(self, texts):
        asked.set()
        assert go_on.wait(20)
        return genuine(self, texts)

    with ThreadPoolExecutor(1) as pool, running(world) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        monkeypatch.setattr(BundleModel, "respond", slow)
        address = str(client.base_url.join(V1))
        waiting = pool.submit(httpx.post, address, json={"instances": ["a"]}, timeout=20)
        assert asked.wait(20)
        # The server is told to stop first, at the end of this block.
        threading.Timer(0.3, go_on.set).start()
    assert waiting.result().status_code == 200


def test_a_failing_model_is_a_500_without_its_traceback(world, running, until, monkeypatch):
    world.promote(world.publish(1))

    def broken(self, texts):
        raise RuntimeError("secret of the inside")

    with running(world) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        monkeypatch.setattr(BundleModel, "respond", broken)
        answer = client.post(V1, json={"instances": ["a"]})
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server failed; its log says why"}


def test_the_command_to_try_carries_a_token_where_one_is_asked_for():
    from components.serve.server import example

    assert "TOKEN" not in example("0.0.0.0", 80, "demo", "text", is_open=True)
    asked = example("127.0.0.1", 80, "demo", "text", is_open=False)
    assert '-H "Authorization: Bearer $TOKEN" -H' in asked
