"""KServe's protocol V1: ``{"instances": […]}`` in, ``{"predictions": […]}`` out.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v1-protocol
"""

from __future__ import annotations

from typing import Any

import orjson

from components.serve.answers import Answers
from components.serve.model import require_few
from components.serve.refusal import Refused
from components.tasks.model import Content

_LIKE = {"text": '"a text"', "image": '{"b64": "…"}', "record": '{"column": "value"}'}


def document(body: bytes) -> Any:
    """Return what a body says.

    Raises:
        Refused: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error}") from error


def contents(asked: object, content: Content) -> list[object]:
    """Return the texts or images of a request; ``ValueError`` if it is no good one."""
    if not isinstance(asked, dict) or "instances" not in asked:
        raise ValueError(f'the body must be an object like {{"instances": [{_LIKE[content]}]}}')
    instances = asked["instances"]
    if not isinstance(instances, list):
        raise ValueError(f'"instances" must be a list of {content}s')
    require_few(instances, content)
    values = [_within(instance, content) for instance in instances]
    return [_within(value, "b64") for value in values] if content == "image" else values


def answer(name: str, answers: Answers, request_id: str | None) -> bytes:
    """Return the body of the answer of the model called ``name``."""
    said: dict[str, Any] = {
        "predictions": answers.predictions,
        "model_name": name,
        "model_version": answers.version,
        "generation": answers.generation,
    }
    if answers.truncated:
        said["truncated"] = answers.truncated
    if request_id:
        said["request_id"] = request_id
    return orjson.dumps(said)


def _within(value: object, key: str) -> object:
    """Return what an object with one key holds, anything else as it is."""
    return value[key] if isinstance(value, dict) and value.keys() == {key} else value
