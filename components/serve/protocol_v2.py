"""The Open Inference Protocol, KServe's V2: tensors in and out, in JSON, binary or gRPC.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import orjson
from kserve.errors import InvalidInput
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse
from kserve.protocol.rest.v2_datamodels import InferenceRequest
from pydantic import ValidationError
from pydantic_core import from_json

from components.serve.answers import Answers
from components.serve.body import BINARY, JSON
from components.serve.model import MAX_CONTENTS, BundleModel, Prediction, TooMuch
from components.serve.refusal import Refused
from components.tasks.model import Content

JSON_LENGTH = "inference-header-content-length"
"""A header: how much of a body is JSON; binary tensors follow."""

_LARGE_BYTES = 64 * 1024
"""Of a request; in a smaller one there is no room for masses of anything."""
_MAX_TENSORS = 64

_DATATYPES = {str: "BYTES", type(None): "BYTES", bool: "BOOL", float: "FP64"}


def request(body: bytes, json_length: str | None, model_name: str) -> InferRequest:
    """Return the request in a body.

    Args:
        body: of the request.
        json_length: the header ``JSON_LENGTH``, if there is one.
        model_name: of the address.

    Raises:
        Refused: it is not of this protocol.
    """
    try:
        if json_length is None:
            return _json_request(body, model_name)
        return _binary_request(body, json_length, model_name)
    except InvalidInput as error:
        raise Refused(400, str(error)) from error


def contents(asked: InferRequest, content: Content) -> list[object]:
    """Return the values of a request; ``ValueError`` if it is not the one tensor we take."""
    if [tensor.name for tensor in asked.inputs] != [content]:
        raise ValueError(f'there must be one input, called "{content}"')
    (tensor,) = asked.inputs
    if tensor.datatype != "BYTES":
        raise ValueError(f'the input "{content}" must have the datatype BYTES')
    # Over gRPC, they may come as one string of bytes.
    raw: bytes | None = tensor._raw_data
    shape, values = list(tensor.shape), list(tensor.data or []) if raw is None else _values(raw)
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
    return [_decoded(value) for value in values]


def require_known(asked: InferRequest, model: BundleModel) -> None:
    """Refuse a request for outputs that the model does not have.

    Raises:
        Refused: with status 400.
    """
    if not asked.request_outputs:
        return
    known = list(model.sample)
    unknown = sorted({output.name for output in asked.request_outputs} - set(known))
    if unknown:
        raise Refused(400, f"there is no output {unknown[0]!r}, only {', '.join(known)}")


def response(
    name: str, asked: InferRequest, answers: Answers, request_id: str | None
) -> InferResponse:
    """Return the answer of the model called ``name``."""
    about: dict[str, Any] = {"version": answers.version, "generation": answers.generation}
    if answers.truncated:
        about["truncated"] = json.dumps(answers.truncated)
    if request_id:
        about["request_id"] = request_id
    outputs = tensors(answers.predictions)
    if asked.request_outputs:  # KServe leaves out the others in JSON only
        wanted = {each.name for each in asked.request_outputs}
        outputs = [each for each in outputs if each.name in wanted]
    return InferResponse(
        response_id=asked.id or str(uuid4()),
        model_name=name,
        infer_outputs=outputs,
        model_version=answers.version,
        parameters=about,
        use_binary_outputs=bool(asked.use_binary_outputs),
        requested_outputs=asked.request_outputs,
    )


def answer(said: InferResponse) -> tuple[bytes, dict[str, str]]:
    """Return the body of an answer, and what its headers say of it."""
    content, json_length = said.to_rest()
    if json_length is None:
        return orjson.dumps(content), {"content-type": JSON}
    return content, {"content-type": BINARY, JSON_LENGTH: str(json_length)}


def tensors(predictions: Sequence[Prediction]) -> list[InferOutput]:
    """Return each key of predictions as a tensor."""
    rows, found = len(predictions), []
    for name, first in predictions[0].items():
        values = [prediction[name] for prediction in predictions]
        if isinstance(first, dict):
            flat = [number for value in values for number in value.values()]
            about = {"labels": json.dumps(list(first))}
            found.append(InferOutput(name, [rows, len(first)], "FP64", flat, about))
        else:
            datatype = _DATATYPES[type(first)]
            # A tensor cannot hold nothing: a row without a label has an empty one.
            data = ["" if value is None else value for value in values]
            found.append(InferOutput(name, [rows], datatype, data))
    return found


def _values(data: bytes) -> list[bytes]:
    """Return binary values: each is four bytes of its length, least first, and then itself.

    Raises:
        TooMuch: more than one request may carry; millions of empty ones would stop the server
            for seconds.
        ValueError: they break off.
    """
    values: list[bytes] = []
    place = 0
    while place < len(data):
        if len(values) == MAX_CONTENTS:
            raise TooMuch(f"one request may carry {MAX_CONTENTS} contents, and there are more")
        end = place + 4 + int.from_bytes(data[place : place + 4], "little")
        if end > len(data):
            raise ValueError("the binary values break off")
        values.append(data[place + 4 : end])
        place = end
    return values


def _decoded(value: object) -> object:
    """Return the text of what gRPC carries as bytes; ``ValueError`` if it is not UTF-8."""
    return value.decode() if isinstance(value, bytes) else value


def _json_request(body: bytes, model_name: str) -> InferRequest:
    if len(body) > _LARGE_BYTES:
        _refuse_masses(body)
    try:
        document = InferenceRequest.model_validate_json(body)
    except ValidationError as error:
        raise Refused(400, _first_problem(error)) from error
    return InferRequest.from_inference_request(document, model_name)


def _binary_request(body: bytes, json_length: str, model_name: str) -> InferRequest:
    # More digits than any length has are not even read: Python refuses to.
    if not json_length.isdecimal() or len(json_length) > 9 or int(json_length) > len(body):
        raise Refused(
            400, f"{JSON_LENGTH} is {json_length[:20]!r}, not the length of the JSON part"
        )
    if int(json_length) > _LARGE_BYTES:
        _refuse_masses(body[: int(json_length)])
    try:
        head = from_json(body[: int(json_length)], allow_inf_nan=False)
        # KServe trusts this part; what its own model of it refuses must not get there.
        for tensor in head["inputs"]:
            tensor.setdefault("data", [])
        InferenceRequest.model_validate(head)
        _values(body[int(json_length) :])
        return InferRequest.from_bytes(body, int(json_length), model_name)
    except ValidationError as error:
        raise Refused(400, _first_problem(error)) from error
    except TooMuch as error:
        raise Refused(413, str(error)) from error
    # Any error: all that happens here is that KServe takes the client's bytes apart.
    except Exception as error:
        sentence = f"the binary request cannot be read: {type(error).__name__}: {error}"
        raise Refused(400, sentence) from error


def _refuse_masses(head: bytes) -> None:
    """Refuse lists that no good request has, before pydantic tells of each item what is wrong.

    It would take minutes, and gigabytes, for what fits into one body.

    Raises:
        Refused: with status 413, or 400 for what is not JSON.
    """
    try:
        document = orjson.loads(head)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the request is not of protocol V2: {error}") from error
    if not isinstance(document, dict):
        return
    tensors = document.get("inputs")
    lists = [tensors, document.get("outputs")]
    if isinstance(tensors, list):
        lists += [each.get("shape") for each in tensors[:_MAX_TENSORS] if isinstance(each, dict)]
    if any(isinstance(each, list) and len(each) > _MAX_TENSORS for each in lists):
        raise Refused(413, f"inputs, outputs and shapes may have {_MAX_TENSORS} items")


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"the request is not of protocol V2: {place + ': ' if place else ''}{first['msg']}"
