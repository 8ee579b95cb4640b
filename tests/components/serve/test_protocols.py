"""The server as a whole: explanations, long texts, tokens, gRPC, limits, its description."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from kserve.protocol.rest.v2_datamodels import (
    InferenceResponse,
    ListModelsResponse,
    ModelMetadataResponse,
    ModelReadyResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)

from components.errors import StoreError
from components.request_log import RequestLog
from components.serve import body, service
from components.serve.config import AccessConfig, LimitsConfig, RequestLogConfig, ServeConfig
from components.serve.model import BundleModel

V1 = "/v1/models/demo:predict"
V2 = "/v2/models/demo/infer"
EXPLAIN = "/v1/models/demo:explain"
TOKEN = "a-token-of-good-length"
LONG = "good " * 100
INFER = "/inference.GRPCInferenceService/ModelInfer"
HALF = b"POST / HTTP/1.1\r\nHost: x\r\n"


def tensor(*texts):
    return {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}


def test_long_texts_are_cut_and_said_to_be(served):
    first = served.post(V1, json={"instances": ["good", LONG]}).json()
    assert first["truncated"] == [1]
    second = served.post(V2, json={"inputs": [tensor(LONG, "good", LONG)]}).json()
    assert json.loads(second["parameters"]["truncated"]) == [0, 2]
    assert "truncated" not in served.post(V1, json={"instances": ["good"]}).json()


def test_exactly_as_long_as_the_model_reads_is_not_cut(world):
    model = BundleModel.load(world.store, world.publish(1))
    room = 16 - 2  # with [CLS] and [SEP]
    assert model.respond(["good " * room, "good " * (room + 1)]).truncated == [1]


def test_explanations_tell_what_each_word_does(served):
    told = served.post(EXPLAIN, json={"instances": ["the film was good", "dull"]}).json()
    assert told["generation"] == 1
    first, second = told["explanations"]
    assert [each["word"] for each in first["words"]] == ["the", "film", "was", "good"]
    assert first["answer"] == first["prediction"]["label"]
    without = served.post(V1, json={"instances": ["the film was"]}).json()["predictions"][0]
    lost = first["prediction"]["confidence"] - without["probabilities"][first["answer"]]
    assert first["words"][-1]["weight"] == pytest.approx(lost, abs=1e-5)
    assert len(second["words"]) == 1
    refused = served.post(EXPLAIN, json={"instances": ["a"] * 5})
    assert refused.status_code == 413
    assert served.post(EXPLAIN, json={"instances": [""]}).status_code == 200


def test_only_so_many_wait_for_explanations(world, running, until, monkeypatch):
    world.promote(world.publish(1))
    monkeypatch.setattr(service, "MAX_EXPLAINING", 1)
    asked, go_on = threading.Event(), threading.Event()
    explained = service._explanation

    def held(model, content):
        asked.set()
        assert go_on.wait(60)
        return explained(model, content)

    monkeypatch.setattr(service, "_explanation", held)
    body = {"instances": ["good"]}
    with running(world) as client, ThreadPoolExecutor() as pool:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        first = pool.submit(client.post, EXPLAIN, json=body)
        assert asked.wait(60)
        refused = client.post(EXPLAIN, json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert client.post(V1, json=body).status_code == 200
        go_on.set()
        assert first.result().status_code == 200
        assert client.post(EXPLAIN, json=body).status_code == 200


def test_a_clients_name_for_a_request_is_cut(world, running, until):
    world.promote(world.publish(1))
    config = ServeConfig(requests=RequestLogConfig(sample=1.0))
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        asked = {"id": "x" * 10_000, "inputs": [tensor("good")]}
        assert client.post(V2, json=asked).json()["id"] == asked["id"]
        client.post(V1, json={"instances": ["bad"]}, headers={"x-request-id": "y" * 10_000})
    now = datetime.now(UTC)
    rows = RequestLog(world.store, world.prefix).read(now - timedelta(hours=1), now)
    assert rows["key"].tolist() == ["x" * service.MAX_KEY, "y" * service.MAX_KEY]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v2", ServerMetadataResponse),
        ("/v2/health/live", ServerLiveResponse),
        ("/v2/health/ready", ServerReadyResponse),
        ("/v2/models", ListModelsResponse),
        ("/v2/models/demo", ModelMetadataResponse),
        ("/v2/models/demo/ready", ModelReadyResponse),
    ],
)
def test_answers_have_the_form_of_the_open_inference_protocol(served, path, form):
    answer = served.get(path)
    assert answer.status_code == 200
    form.model_validate_json(answer.content, strict=True)


def test_predictions_have_the_form_of_the_open_inference_protocol(served):
    answer = served.post(V2, json={"id": "1", "inputs": [tensor("good", LONG)]})
    said = InferenceResponse.model_validate_json(answer.content, strict=True)
    assert said.id == "1"
    for output in said.outputs:
        size = output.shape[0] if len(output.shape) == 1 else output.shape[0] * output.shape[1]
        assert len(output.data) == size
        kinds = {"BYTES": str, "FP64": float, "BOOL": bool}
        assert {type(value) for value in output.data} == {kinds[output.datatype]}


def test_every_address_of_the_description_answers(served):
    described = served.get("/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    for path, methods in described["paths"].items():
        for method in methods:
            answer = served.request(method, path.format(version="7"))
            assert answer.status_code in (200, 415), (method, path)
    used = set(json.dumps(described).split('"#/components/schemas/')[1:])
    names = {each.partition('"')[0] for each in used}
    assert names <= described["components"]["schemas"].keys()


def test_metrics_tell_versions_labels_batches_and_cost(served):
    served.post(V1, json={"instances": ["good", "bad"]})
    metrics = served.get("/metrics").text
    for name in (
        'tokiwa_request_seconds_bucket{le="0.01",model_name="demo",version="7"}',
        'tokiwa_requests_total{model_name="demo",protocol="v1",status="200",version="7"}',
        'tokiwa_batch_rows_count{model_name="demo",version="7"}',
        'tokiwa_queue_rows{model_name="demo"}',
        'tokiwa_confidence_count{model_name="demo",version="7"}',
        'tokiwa_device_seconds_per_1000_predictions{model_name="demo",version="7"}',
        'tokiwa_cost_per_1000_predictions{model_name="demo",version="7"}',
        'request_predict_seconds_count{model_name="demo"}',
    ):
        assert name in metrics, name
    assert 'tokiwa_predictions_total{label="' in metrics


@pytest.fixture(scope="module")
def port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def guarded(world, running, until, tmp_path, port):
    """A server with a token, gRPC and a price."""
    world.promote(world.publish(1), version="7")
    (tmp_path / "tokens").write_text(TOKEN)
    config = ServeConfig(grpc_port=port, access=AccessConfig(tokens_file=str(tmp_path / "tokens")))
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        yield client


def test_a_token_is_asked_for_everywhere_but_by_probes_and_grpc_asks_too(
    guarded, port, monkeypatch
):
    with_token = {"authorization": f"Bearer {TOKEN}"}
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert guarded.get(path).status_code == 200, path
    for path in ("/v2", "/v1/models", "/v2/models/demo", "/metrics", "/openapi.json", "/other"):
        assert guarded.get(path).status_code == 401, path
    for path in (V1, V2, EXPLAIN, "/v1/feedback"):
        refused = guarded.post(path, json={})
        assert refused.status_code == 401, path
        assert refused.headers["www-authenticate"] == "Bearer"
        assert guarded.post(path, json={}, headers=with_token).status_code == 400
    assert guarded.post(V1, json={"instances": ["a"]}, headers=with_token).status_code == 200
    asyncio.run(_ask_grpc(f"127.0.0.1:{port}"))
    # Only whoever has a token is told what is wrong, for that may name places of files.
    monkeypatch.setattr(service.Service, "trouble", "/somewhere/model.safetensors is missing")
    assert "somewhere" not in guarded.get("/v2/health/ready").text
    assert "somewhere" in guarded.get("/v2/models/demo/ready", headers=with_token).text
    monkeypatch.setattr(body, "MAX_BODIES_BYTES", 60)
    asyncio.run(_ask_grpc_without_room(f"127.0.0.1:{port}"))
    monkeypatch.undo()
    metrics = guarded.get("/metrics", headers=with_token).text
    for status in (200, 400, 401, 404, 429):
        assert f'protocol="grpc",status="{status}",version="7"' in metrics, status


async def _ask_grpc(where):
    from grpc import StatusCode, aio
    from kserve import InferInput, InferRequest, InferResponse
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    token = (("authorization", f"Bearer {TOKEN}"),)
    async with aio.insecure_channel(where) as channel:
        stub = GRPCInferenceServiceStub(channel)
        asked = InferRequest("demo", [InferInput("text", [2], "BYTES", [b"good", LONG.encode()])])
        answer = await stub.ModelInfer(asked.to_grpc(), metadata=token)
        said = InferResponse.from_grpc(answer)
        assert [each.name for each in said.outputs] == ["label", "confidence", "probabilities"]
        assert answer.parameters["generation"].int64_param == 1
        assert answer.parameters["truncated"].string_param == "[1]"
        assert (await stub.ServerLive(messages.ServerLiveRequest())).live
        assert (await stub.ServerReady(messages.ServerReadyRequest())).ready
        about = await stub.ModelMetadata(messages.ModelMetadataRequest(name="demo"), metadata=token)
        assert [each.name for each in about.inputs] == ["text"]

        # As Triton's clients send it.
        texts = b"".join(map(_with_length, (b"good", LONG.encode())))
        form = {"name": "text", "datatype": "BYTES", "shape": [2]}
        raw = messages.ModelInferRequest(
            model_name="demo",
            inputs=[form],
            outputs=[{"name": "label"}],
            raw_input_contents=[texts],
        )
        answered = InferResponse.from_grpc(await stub.ModelInfer(raw, metadata=token))
        assert [each.name for each in answered.outputs] == ["label"]
        assert answered.outputs[0].as_numpy().shape == (2,)
        for version, good in (("7", True), ("8", False)):
            for call, asks in (
                (stub.ModelReady, messages.ModelReadyRequest(name="demo", version=version)),
                (stub.ModelMetadata, messages.ModelMetadataRequest(name="demo", version=version)),
            ):
                if good:
                    await call(asks, metadata=token)
                else:
                    assert await _refused(call, asks, token) == StatusCode.NOT_FOUND
        assert list(about.versions) == ["7"]
        for broken in (_with_length(b"good")[:-1], b"\0" * 2000):
            raw.raw_input_contents[:] = [broken]
            assert await _refused(stub.ModelInfer, raw, token) == StatusCode.INVALID_ARGUMENT

        assert await _refused(stub.ModelInfer, asked.to_grpc(), ()) == StatusCode.UNAUTHENTICATED
        async with asyncio.timeout(20):  # nor is a message waited for
            assert await channel.stream_unary(INFER)().code() == StatusCode.UNAUTHENTICATED
        garbage = channel.unary_unary(INFER)
        assert await _refused(garbage, b"\xff", token) == StatusCode.INVALID_ARGUMENT
        unload = messages.RepositoryModelUnloadRequest(model_name="demo")
        assert await _refused(stub.RepositoryModelUnload, unload, token) == StatusCode.NOT_FOUND
        other = InferRequest("other", asked.inputs).to_grpc()
        assert await _refused(stub.ModelInfer, other, token) == StatusCode.NOT_FOUND
        for data in ([b"\xff"], []):
            wrong = InferRequest("demo", [InferInput("text", [len(data)], "BYTES", data)])
            code = await _refused(stub.ModelInfer, wrong.to_grpc(), token)
            assert code == StatusCode.INVALID_ARGUMENT, data


async def _ask_grpc_without_room(where):
    from grpc import StatusCode, aio

    token = (("authorization", f"Bearer {TOKEN}"),)
    async with aio.insecure_channel(where) as channel:
        call = channel.unary_unary(INFER)
        assert await _refused(call, b"a" * 61, token) == StatusCode.RESOURCE_EXHAUSTED
        # What was refused or answered is held no more.
        for _ in range(3):
            assert await _refused(call, b"\xff" * 40, token) == StatusCode.INVALID_ARGUMENT


async def _refused(call, request, metadata):
    from grpc import aio

    with pytest.raises(aio.AioRpcError) as caught:
        await call(request, metadata=metadata)
    return caught.value.code()


def _with_length(data):
    return len(data).to_bytes(4, "little") + data


def test_a_body_that_does_not_come_is_given_up(world, running, until, port):
    world.promote(world.publish(1))
    config = ServeConfig(grpc_port=port, limits=LimitsConfig(timeout_s=0.3))
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        url = client.base_url
        with socket.create_connection((url.host, url.port), timeout=10) as connection:
            head = f"POST {V1} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert b" 408 " in connection.recv(100)
        asyncio.run(_send_nothing(f"127.0.0.1:{port}"))


async def _send_nothing(where):
    from grpc import StatusCode, aio

    async with aio.insecure_channel(where) as channel, asyncio.timeout(20):
        assert await channel.stream_unary(INFER)().code() == StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("before", "sent"),
    [(b"", b""), (b"", HALF), (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", HALF)],
    ids=["nothing", "half a header", "half of another"],
)
def test_a_connection_on_which_no_request_comes_is_closed(world, running, before, sent):
    with running(world, config=ServeConfig(limits=LimitsConfig(timeout_s=0.2))) as client:
        url = client.base_url
        with socket.create_connection((url.host, url.port), timeout=60) as connection:
            connection.sendall(before)
            if before:
                assert b" 200 " in connection.recv(1000)
            connection.sendall(sent)
            while connection.recv(1000):
                pass
        assert client.get("/").status_code == 200


def test_a_draining_server_answers_and_says_that_it_goes(world, running, until):
    world.promote(world.publish(1))
    config = ServeConfig(limits=LimitsConfig(drain_s=1.0))
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        client.stop()
        ready = client.get("/v2/health/ready")
        assert (ready.status_code, ready.json()["state"]) == (503, "draining")
        answer = client.post(V1, json={"instances": ["good"]})
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"

    with pytest.raises(httpx.ConnectError):
        httpx.get(str(client.base_url))


def test_a_store_that_goes_away_leaves_the_answers_and_is_told(world, running, until, monkeypatch):
    world.promote(world.publish(1))
    config = ServeConfig(requests=RequestLogConfig(sample=1.0, flush_s=0.1))
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")

        def away(*args):
            raise StoreError("the store is away")

        with monkeypatch.context() as patch:
            for name in ("list", "put", "create_if_absent", "get"):
                patch.setattr(world.store, name, away)
            until(
                lambda: (
                    client.post(V1, json={"instances": ["good"]}).status_code == 200
                    and client.get("/v2/health/ready").json()["state"] == "degraded"
                    and "requests cannot be kept" in client.get("/v2/health/ready").json()["reason"]
                ),
                "the news",
            )
            kept = client.post(V1, json={"instances": ["good"]}).json().get("request_id", "none")
            label = {"feedback": [{"request_id": kept, "label": "positive"}]}
            assert client.post("/v1/feedback", json=label).status_code in (404, 503)
        until(lambda: client.get("/v2/health/ready").json()["state"] == "serving", "the end of it")
