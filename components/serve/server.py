"""KServe's ``ModelServer`` over a follower: protocols V1 and V2 (REST), one model.

What differs from KServe's own server: it listens where it is told to; nobody can load
or unload a model from outside; gRPC, CloudEvents and the interactive documentation are
off; a bad request is always a 4xx answer with one sentence under ``error``. Images are
files of PNG, JPEG, GIF, BMP or WEBP. ::

    POST /v1/models/{name}:predict      {"instances": ["...", {"text": "..."}]}, or for images
                                        {"instances": [{"b64": "..."}, {"image": {"b64": "..."}}]}
    POST /v2/models/{name}/infer        BYTES tensor "text" of shape [n] or [n, 1], or "image"
                                        with base64 of image files
    GET  /v2/models/{name}              metadata, with state, version and generation
    GET  /v2/models/{name}/ready        also /v1/models/{name}, /v2/health/ready
    GET  /v2/health/live                also /
    GET  /v2  /v2/models  /v1/models  /metrics

A classifier answers with ``label``, ``confidence`` and ``probabilities``; one that may leave
rows to a person also with ``abstained``. Where that is true, ``label`` is null, in protocol V2
an empty string, and ``confidence`` is of the label that the model leans to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import kserve
from fastapi import FastAPI
from kserve.errors import InvalidInput
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse
from kserve.protocol.rest.server import RESTServer, metrics_handler
from kserve.protocol.rest.v2_datamodels import InferenceRequest
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from components.errors import SourceError, WorldError
from components.serve.follow import Follower, Served
from components.serve.model import Prediction, TooMuch
from components.tasks.model import Content

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 * 2**20
"""Of a request: room for all texts that a request may carry, in ASCII or not."""

GRACE_S = 20
"""How long requests in flight may take to finish; Kubernetes kills after 30."""

BACKLOG = 1024
"""Connections that may wait to be accepted."""

JSON = "application/json"
BINARY = "application/octet-stream"
JSON_LENGTH = "inference-header-content-length"


class Refused(Exception):
    """A request gets no prediction."""

    def __init__(self, status: int, sentence: str) -> None:
        """Take the HTTP status and a sentence for the client."""
        super().__init__(sentence)
        self.status = status


class ChampionModel(kserve.Model):
    """The follower's model as KServe knows it; it changes inside, its name stays."""

    def __init__(self, name: str, follower: Follower) -> None:
        """Answer as ``name`` with whatever the follower holds."""
        super().__init__(name, return_response_headers=True)
        self.follower = follower
        # A lock of the event loop: waiting requests must not fill the pool of threads.
        self._turn = asyncio.Lock()

    async def healthy(self) -> bool:
        """Tell whether there is a model to ask."""
        return self.follower.state.served is not None

    def load(self) -> bool:
        """Load nothing: KServe calls this on the event loop, and loading is the follower's."""
        return self.follower.state.served is not None

    def get_input_types(self) -> list[dict[str, Any]]:
        """Describe the input of protocol V2."""
        served = self.follower.state.served
        if served is None:
            return []
        return [{"name": served.model.content, "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Describe the outputs of protocol V2."""
        served = self.follower.state.served
        if served is None:
            return []
        return [
            {"name": each.name, "datatype": each.datatype, "shape": [-1, *each.shape[1:]]}
            for each in _tensors([served.model.sample])
        ]

    async def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Answer one request of either protocol, wholly from one model."""
        served = self._served()
        try:
            contents = served.model.checked(_contents_of(payload, served.model.content))
        except TooMuch as error:
            raise Refused(413, str(error)) from error
        except ValueError as error:
            raise Refused(400, str(error)) from error
        async with self._turn:
            # Read once, when it is this request's turn: the model may change at any moment.
            served = self._served()
            try:
                predictions = await asyncio.to_thread(served.model.predict, contents)
            except SourceError as error:
                raise Refused(400, str(error)) from error
        if response_headers is not None:
            response_headers["x-model-name"] = self.name
            response_headers["x-model-version"] = quote(served.version)
            response_headers["x-model-generation"] = str(served.entry.number)
        if isinstance(payload, InferRequest):
            return self._tensors_for(payload, served, predictions)
        return {
            "predictions": predictions,
            "model_name": self.name,
            "model_version": served.version,
            "generation": served.entry.number,
        }

    def _served(self) -> Served:
        served = self.follower.state.served
        assert served is not None, "a model that was served once is never taken away"
        return served

    def _tensors_for(
        self, request: InferRequest, served: Served, predictions: list[Prediction]
    ) -> InferResponse:
        return InferResponse(
            response_id=request.id or str(uuid4()),
            model_name=self.name,
            infer_outputs=_tensors(predictions),
            model_version=served.version,
            parameters={"version": served.version, "generation": served.entry.number},
            use_binary_outputs=bool(request.use_binary_outputs),
            requested_outputs=request.request_outputs,
        )


class ChampionServer(kserve.ModelServer):
    """KServe's server, listening where it is told to, with a closed model repository.

    A context manager that holds the listening socket; ``start`` blocks until ``stop``.
    """

    def __init__(self, follower: Follower, host: str, port: int) -> None:
        """Take the address, so that a port in use is known before anything is loaded.

        Raises:
            WorldError: the address cannot be listened on.
        """
        self.follower = follower
        self._listener = _bound(host, port)
        self.host, self.port = self._listener.getsockname()[:2]
        # All options that KServe would otherwise take from the command line.
        super().__init__(
            http_port=self.port,
            workers=1,
            enable_grpc=False,
            enable_docs_url=False,
            enable_latency_logging=False,
            access_log_format=None,
            grace_period=GRACE_S,
            ssl_certfile=None,
            ssl_keyfile=None,
        )
        # A line for each probe and each request says nothing that /metrics does not.
        for name in ("kserve", "uvicorn"):
            logging.getLogger(name).setLevel(logging.WARNING)

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the address back."""
        self._listener.close()

    def start(self, models: Sequence[ChampionModel]) -> None:
        """Answer until ``stop`` or a signal; requests in flight are finished.

        KServe's own refuses to start before a model is ready.

        Raises:
            WorldError: another process took the address meanwhile.
        """
        for model in models:
            self.register_model(model)
        self._rest_server = _RestServer(self.dataplane, models, self._listener, self.http_port)
        self.register_signal_handler()
        try:
            self._listener.listen(BACKLOG)
        except OSError as error:
            raise _unusable(self.host, self.port, error) from error
        log.info("listening on http://%s:%d", self.host, self.port)
        loops = self._rest_server.config.get_loop_factory()
        with asyncio.Runner(loop_factory=loops) as runner:
            runner.run(self._rest_server.start())
        log.info("stopped")

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """Stop from any thread; may be called more than once."""
        if self._rest_server is not None:
            self._rest_server.stop()

    def register_signal_handler(self) -> None:
        """Stop on the signals of Kubernetes and of a terminal."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda got, frame: self.stop(got))


class _RestServer(RESTServer):
    """KServe's REST server with our socket, and with our routes instead of all of its."""

    def __init__(
        self,
        dataplane: DataPlane,
        models: Sequence[ChampionModel],
        listener: socket.socket,
        port: int,
    ) -> None:
        # An application of its own: KServe's is one per process and keeps its routes.
        self.app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        super().__init__(self.app, dataplane, None, port, grace_period=GRACE_S)
        self.config.access_log = False
        # We have none, and a second Ctrl-C would break it off with a traceback.
        self.config.lifespan = "off"
        self._models = models
        self._listener = listener

    def create_application(self) -> None:
        routes = _Routes(self.dataplane, {model.name: model for model in self._models})
        # One by one: KServe's register functions would open load and unload to everybody,
        # and leave what a later version adds open too.
        for path, answer in {
            "/": routes.live,
            "/v2/health/live": routes.live,
            "/v2/health/ready": routes.ready,
            "/v2": routes.server,
            "/v1/models": routes.models,
            "/v2/models": routes.models,
            "/v1/models/{model_name}": routes.model_ready,
            "/v2/models/{model_name}/ready": routes.model_ready,
            "/v2/models/{model_name}": routes.metadata,
            "/metrics": metrics_handler,
        }.items():
            self.app.add_api_route(path, answer, methods=["GET"], response_model=None)
        for path, answer in {
            "/v1/models/{model_name}:predict": routes.predict,
            "/v2/models/{model_name}/infer": routes.infer,
        }.items():
            self.app.add_api_route(path, answer, methods=["POST"], response_model=None)
        for error in (Refused, InvalidInput, HTTPException, Exception):
            self.app.add_exception_handler(error, _explain)

    async def start(self) -> None:
        self.create_application()
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        self._server.should_exit = True


class _Routes:
    """What each address answers."""

    def __init__(self, dataplane: DataPlane, models: dict[str, ChampionModel]) -> None:
        self._dataplane = dataplane
        self._models = models

    async def live(self) -> Response:
        return JSONResponse({"live": True, "status": "alive"})

    async def server(self) -> Response:
        described = self._dataplane.metadata()
        return JSONResponse({**described, "extensions": ["binary_tensor_data"]})

    async def models(self) -> Response:
        return JSONResponse({"models": list(self._models)})

    async def ready(self) -> Response:
        states = [model.follower.state for model in self._models.values()]
        is_ready = all(state.served for state in states)
        troubles = [state.trouble for state in states if state.trouble]
        return _readiness({}, is_ready, states[0].word, "; ".join(troubles))

    async def model_ready(self, model_name: str) -> Response:
        state = self._model(model_name).follower.state
        is_ready = state.served is not None
        return _readiness({"name": model_name}, is_ready, state.word, state.trouble)

    async def metadata(self, model_name: str) -> Response:
        state = self._model(model_name).follower.state
        described = await self._dataplane.model_metadata(model_name)
        parameters: dict[str, Any] = {"state": state.word}
        if state.trouble:
            parameters["reason"] = state.trouble
        if served := state.served:
            described["versions"] = [served.version]
            parameters |= {
                "version": served.version,
                "generation": served.entry.number,
                "bundle": served.entry.bundle,
                "task": served.model.description.task.kind,
            }
            if served.model.labels:
                parameters["labels"] = list(served.model.labels)
            if (rule := served.model.rule) is not None:
                parameters["decides"] = " ".join(rule.sentences)
        return JSONResponse({**described, "parameters": parameters})

    async def predict(self, model_name: str, request: Request) -> Response:
        self._answering(model_name)
        _require_type(request, JSON)
        try:
            document = from_json(await _body(request), allow_inf_nan=False)
        except ValueError as error:
            raise Refused(400, f"the body is not JSON: {error}") from error
        answer, headers = await self._dataplane.infer(model_name, document, dict(request.headers))
        return JSONResponse(answer, headers=headers)

    async def infer(self, model_name: str, request: Request) -> Response:
        served = self._answering(model_name)
        if JSON_LENGTH in request.headers:
            _require_type(request, BINARY, JSON)
            asked = _binary_request(await _body(request), request.headers[JSON_LENGTH], model_name)
        else:
            _require_type(request, JSON)
            asked = _json_request(await _body(request), model_name)
        _require_known(asked, served)
        answer, headers = await self._dataplane.infer(model_name, asked, dict(request.headers))
        content, json_length = answer.to_rest()
        if json_length is None:
            return JSONResponse(content, headers=headers)
        headers[JSON_LENGTH] = str(json_length)
        return Response(content, headers=headers, media_type=BINARY)

    def _model(self, name: str) -> ChampionModel:
        if (model := self._models.get(name)) is None:
            raise Refused(404, f"there is no model {name!r} here, only {', '.join(self._models)}")
        return model

    def _answering(self, name: str) -> Served:
        state = self._model(name).follower.state
        if state.served is None:
            raise Refused(503, f"the model {name!r} is not ready: {state.trouble}")
        return state.served


def _readiness(about: dict[str, str], is_ready: bool, word: str, trouble: str) -> Response:
    content: dict[str, Any] = {**about, "ready": is_ready, "state": word}
    if trouble:
        content["reason" if is_ready else "error"] = trouble
    return JSONResponse(content, status_code=200 if is_ready else 503)


async def _explain(request: Request, error: Exception) -> Response:
    """Turn whatever was raised into an answer; what is our fault is logged by uvicorn."""
    headers = None
    match error:
        case Refused():
            status, sentence = error.status, str(error)
        case InvalidInput():
            status, sentence = 400, str(error)
        case HTTPException():
            status, headers = error.status_code, error.headers
            sentence = f"{request.method} {request.url.path}: {error.detail}"
        case _:
            status, sentence = 500, "the server failed; its log says why"
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)


def _require_type(request: Request, *accepted: str) -> None:
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() not in accepted:
        raise Refused(415, f"send the body with the header Content-Type: {' or '.join(accepted)}")


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise Refused(413, f"a body may have {MAX_BODY_BYTES} bytes")
    except ClientDisconnect as error:
        raise Refused(400, "the body ends too early") from error
    return bytes(body)


def _json_request(body: bytes, model_name: str) -> InferRequest:
    try:
        document = InferenceRequest.model_validate_json(body)
    except ValidationError as error:
        raise Refused(400, _first_problem(error)) from error
    return InferRequest.from_inference_request(document, model_name)


def _binary_request(body: bytes, json_length: str, model_name: str) -> InferRequest:
    if not json_length.isdecimal() or int(json_length) > len(body):
        raise Refused(
            400, f"{JSON_LENGTH} is {json_length[:20]!r}, not the length of the JSON part"
        )
    try:
        head = from_json(body[: int(json_length)], allow_inf_nan=False)
        # KServe trusts this part; what its own model of it refuses must not get there.
        for tensor in head["inputs"]:
            tensor.setdefault("data", [])
        InferenceRequest.model_validate(head)
        return InferRequest.from_bytes(body, int(json_length), model_name)
    except ValidationError as error:
        raise Refused(400, _first_problem(error)) from error
    # Any error: all that happens here is that KServe takes the client's bytes apart.
    except Exception as error:
        sentence = f"the binary request cannot be read: {type(error).__name__}: {error}"
        raise Refused(400, sentence) from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"the request is not of protocol V2: {place + ': ' if place else ''}{first['msg']}"


def _require_known(request: InferRequest, served: Served) -> None:
    known = list(served.model.sample)
    unknown = sorted({output.name for output in request.request_outputs or ()} - set(known))
    if unknown:
        raise Refused(400, f"there is no output {unknown[0]!r}, only {', '.join(known)}")


_DATATYPES = {str: "BYTES", type(None): "BYTES", bool: "BOOL", float: "FP64"}


def _tensors(predictions: Sequence[Prediction]) -> list[InferOutput]:
    """Return each key of predictions as a tensor of protocol V2."""
    rows, tensors = len(predictions), []
    for name, first in predictions[0].items():
        values = [prediction[name] for prediction in predictions]
        if isinstance(first, dict):
            flat = [number for value in values for number in value.values()]
            about = {"labels": json.dumps(list(first))}
            tensors.append(InferOutput(name, [rows, len(first)], "FP64", flat, about))
        else:
            datatype = _DATATYPES[type(first)]
            # A tensor cannot hold nothing: a row without a label has an empty one.
            data = ["" if value is None else value for value in values]
            tensors.append(InferOutput(name, [rows], datatype, data))
    return tensors


def _contents_of(payload: object, content: Content) -> list[object]:
    """Return the texts or images of a request; ``ValueError`` if it is no good one."""
    if isinstance(payload, InferRequest):
        return _values_of_tensor(payload, content)
    if not isinstance(payload, dict) or "instances" not in payload:
        raise ValueError(f'the body must be an object like {{"instances": [{_LIKE[content]}]}}')
    instances = payload["instances"]
    if not isinstance(instances, list):
        raise ValueError(f'"instances" must be a list of {content}s')
    values = [_within(instance, content) for instance in instances]
    return [_within(value, "b64") for value in values] if content == "image" else values


_LIKE = {"text": '"a text"', "image": '{"b64": "…"}', "record": '{"column": "value"}'}


def _within(value: object, key: str) -> object:
    """Return what an object with one key holds, anything else as it is."""
    return value[key] if isinstance(value, dict) and value.keys() == {key} else value


def _values_of_tensor(request: InferRequest, content: Content) -> list[object]:
    """Return the values of a V2 request; ``ValueError`` if it is not the one tensor we take."""
    if [tensor.name for tensor in request.inputs] != [content]:
        raise ValueError(f'there must be one input, called "{content}"')
    (tensor,) = request.inputs
    if tensor.datatype != "BYTES":
        raise ValueError(f'the input "{content}" must have the datatype BYTES')
    shape, values = list(tensor.shape), list(tensor.data or [])
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise ValueError(
            f'the input "{content}" must have the shape [n] or [n, 1], not {shape[:5]}'
        )
    if len(shape) == 2:
        # Both are allowed: the nested form and the flat one.
        values = [
            value[0] if isinstance(value, list) and len(value) == 1 else value for value in values
        ]
    if len(values) != shape[0]:
        raise ValueError(f'the input "{content}" has the shape {shape} but {len(values)} values')
    return values


_SENT = {
    "text": """'{"instances": ["a text"]}'""",
    "record": """'{"instances": [{"column": "value"}]}'""",
    "image": """'{"instances": [{"b64": "'$(base64 < picture.png | tr -d '\\n')'"}]}'""",
}


def example(host: str, port: int, name: str, content: Content) -> str:
    """Return a command for a terminal that asks the model called ``name``."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return (
        f"curl -s http://{reached}:{port}/v1/models/{name}:predict "
        f"-H 'Content-Type: application/json' -d {_SENT[content]}"
    )


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # Or a restarted server would wait for a minute for its own old connections.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise _unusable(host, port, error) from error
    return listener


def _unusable(host: str, port: int, error: OSError) -> WorldError:
    return WorldError(
        f"cannot listen on {host}:{port}: {error.strerror or error}; "
        "stop what uses it, or choose another host or port"
    )
