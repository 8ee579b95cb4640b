"""The server's description of itself: OpenAPI 3.1, https://spec.openapis.org/oas/v3.1.0."""

from __future__ import annotations

from typing import Any

from kserve.protocol.rest.v2_datamodels import (
    InferenceRequest,
    InferenceResponse,
    ListModelsResponse,
    ModelMetadataResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
)
from pydantic.json_schema import models_json_schema

from components.serve.model import MAX_CONTENTS
from components.serve.service import MAX_EXPLAINED, Labels

_V2 = (
    InferenceRequest,
    InferenceResponse,
    ListModelsResponse,
    ModelMetadataResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
)
_STRINGS = {"type": "object", "additionalProperties": {"type": "number"}}
_PREDICTION = {
    "type": "object",
    "properties": {
        "label": {"type": ["string", "null"]},
        "confidence": {"type": "number"},
        "abstained": {"type": "boolean"},
        "probabilities": _STRINGS,
        "value": {"type": "number"},
    },
}
_MODEL = {
    "model_name": {"type": "string"},
    "model_version": {"type": "string"},
    "generation": {"type": "integer", "minimum": 1},
}


def _instances(most: int) -> dict[str, Any]:
    kinds = ("TextInstance", "ImageInstance", "RecordInstance")
    forms = [{"$ref": f"#/components/schemas/{kind}"} for kind in kinds]
    items = {"anyOf": [{"type": "string"}, *forms]}
    array = {"type": "array", "minItems": 1, "maxItems": most, "items": items}
    return {"type": "object", "required": ["instances"], "properties": {"instances": array}}


_OWN: dict[str, dict[str, Any]] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
    "Instances": _instances(MAX_CONTENTS),
    "Explained": _instances(MAX_EXPLAINED),
    "TextInstance": {
        "type": "object",
        "required": ["text"],
        "properties": {"text": {"type": "string"}},
        "additionalProperties": False,
    },
    "ImageInstance": {
        "type": "object",
        "required": ["b64"],
        "properties": {"b64": {"type": "string"}},
        "additionalProperties": False,
    },
    "RecordInstance": {
        "type": "object",
        "description": "Columns by name, for a model of records.",
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    },
    "Predictions": {
        "type": "object",
        "required": ["predictions", "model_name", "model_version", "generation"],
        "properties": {
            "predictions": {"type": "array", "items": _PREDICTION},
            **_MODEL,
            "truncated": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "request_id": {"type": "string"},
        },
    },
    "Explanations": {
        "type": "object",
        "required": ["explanations", "model_name", "model_version", "generation"],
        "properties": {
            "explanations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["answer", "prediction"],
                    "properties": {
                        "answer": {"type": "string"},
                        "prediction": _PREDICTION,
                        "words": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "word": {"type": "string"},
                                    "weight": {"type": "number"},
                                },
                            },
                        },
                        "tiles": {
                            "type": "array",
                            "items": {"type": "array", "items": {"type": "number"}},
                        },
                    },
                },
            },
            **_MODEL,
        },
    },
    "Ready": {
        "type": "object",
        "required": ["ready", "state"],
        "properties": {
            "name": {"type": "string"},
            "ready": {"type": "boolean"},
            "state": {"enum": ["waiting", "serving", "degraded", "draining"]},
            "reason": {"type": "string"},
            "error": {"type": "string"},
        },
    },
    "Kept": {
        "type": "object",
        "required": ["kept"],
        "properties": {"kept": {"type": "integer", "minimum": 1}},
    },
}
_REFUSALS = {
    "400": "It is no good request.",
    "401": "It carries no token that is valid here.",
    "404": "There is no such thing here.",
    "408": "The body did not come in time.",
    "413": "It is too large.",
    "415": "The body is of another type.",
    "422": "A label is none of this model.",
    "429": "Too many requests wait; Retry-After says when to try again.",
    "503": "There is no model yet, or the store is away.",
    "504": "The model did not answer in time.",
}


def document(name: str, needs_token: bool) -> dict[str, Any]:
    """Return the description of a server whose model is called ``name``.

    Args:
        name: of the model in addresses.
        needs_token: whether a bearer token is asked for.
    """
    _, schemas = models_json_schema(
        [(each, "validation") for each in (*_V2, Labels)],
        ref_template="#/components/schemas/{model}",
    )
    parts: dict[str, Any] = {"schemas": {**_OWN, **schemas["$defs"]}}
    if needs_token:
        parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Tokiwa: {name}", "version": "1"},
        "paths": _paths(name),
        "components": parts,
        **({"security": [{"token": []}]} if needs_token else {}),
    }


def _paths(name: str) -> dict[str, Any]:
    v1, v2 = f"/v1/models/{name}", f"/v2/models/{name}"
    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
    of_model = {
        "": {"get": _get("What the model is.", "ModelMetadataResponse")},
        "/ready": {"get": _get("Whether the model answers.", "Ready")},
        "/infer": {"post": _post("Predict.", "InferenceRequest", "InferenceResponse")},
    }
    ready = _get("Whether it answers.", "Ready", probe=True)
    return {
        "/": {"get": _get("Whether the process lives.", "ServerLiveResponse", probe=True)},
        "/v2/health/live": {
            "get": _get("Whether the process lives.", "ServerLiveResponse", probe=True)
        },
        "/v2/health/ready": {"get": ready},
        "/v2": {"get": _get("What the server is.", "ServerMetadataResponse")},
        "/v1/models": {"get": _get("The models.", "ListModelsResponse")},
        "/v2/models": {"get": _get("The models.", "ListModelsResponse")},
        v1: {"get": _get("Whether the model answers.", "Ready")},
        f"{v1}:predict": {"post": _post("Predict.", "Instances", "Predictions")},
        f"{v1}:explain": {"post": _post("Explain.", "Explained", "Explanations")},
        **{f"{v2}{part}": each for part, each in of_model.items()},
        **{
            f"{v2}/versions/{{version}}{part}": {
                method: {**said, "parameters": [version]} for method, said in each.items()
            }
            for part, each in of_model.items()
        },
        "/v1/feedback": {"post": _post("Tell labels of earlier requests.", "Labels", "Kept")},
    }


def _get(summary: str, answer: str, *, probe: bool = False) -> dict[str, Any]:
    refusals = ("503",) if probe else ("401", "404", "503")
    responses = {"200": _response("The answer.", answer)}
    for status in refusals:
        schema = "Ready" if status == "503" else "Error"
        responses[status] = _response(_REFUSALS[status], schema)
    return {"summary": summary, "responses": responses, **({"security": []} if probe else {})}


def _post(summary: str, asked: str, answer: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _json(asked)},
        "responses": {
            "200": _response("The answer.", answer),
            **{status: _response(why, "Error") for status, why in _REFUSALS.items()},
        },
    }


def _response(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
