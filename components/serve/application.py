"""What each address answers, as an ASGI application.

It does by hand what a web framework would do, because at a thousand requests a second the
framework would cost as much as the model. An error is always one sentence under ``error``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

import orjson
from prometheus_client import REGISTRY, exposition

from components.serve import body, openapi, protocol_v1, protocol_v2
from components.serve.access import Access
from components.serve.body import BINARY, JSON, Headers, Receive
from components.serve.refusal import Refused
from components.serve.service import Service

log = logging.getLogger(__name__)

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A request, its body unread."""

    headers: Headers
    receive: Receive
    held: body.Held
    version: str | None = None
    """That has to answer; None for whichever serves."""

    def header(self, name: str) -> str | None:
        """Return a header; None without it."""
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    content: bytes
    status: int = 200
    headers: dict[str, str] | None = None


Route = Callable[[Asked], Awaitable[Answer]]

_MODEL = re.compile(
    r"/v1/models/(?P<v1>[^/:]+)(?P<verb>:[a-z]+)?|"
    r"/v2/models/(?P<v2>[^/]+)(/versions/(?P<version>[^/]+))?(?P<part>/[a-z]+)?"
)


class Application:
    """Answers HTTP for one service."""

    def __init__(self, service: Service, access: Access, server: dict[str, Any]) -> None:
        """Answer for ``service`` whoever ``access`` lets in; ``server`` describes the server."""
        self._service, self._access, self._server = service, access, server
        alone = {
            "/": self._live,
            "/v2/health/live": self._live,
            "/v2/health/ready": self._ready,
            "/v2": self._about,
            "/v2/": self._about,
            "/v1/models": self._models,
            "/v2/models": self._models,
            "/metrics": self._metrics,
            "/openapi.json": self._openapi,
        }
        self._alone: dict[str, dict[str, Route]] = {
            path: {"GET": route} for path, route in alone.items()
        }
        self._alone["/v1/feedback"] = {"POST": self._feedback}
        self._of_model: dict[str, dict[str, Route]] = {
            "v1": {"GET": self._model_ready},
            "v1:predict": {"POST": self._predict},
            "v1:explain": {"POST": self._explain},
            "v2": {"GET": self._metadata},
            "v2/ready": {"GET": self._model_ready},
            "v2/infer": {"POST": self._infer},
        }
        # What a probe asks must be answered to whoever has no token.
        self._open = {"/", "/v2/health/live", "/v2/health/ready"}
        self._hot = {
            f"/v1/models/{service.name}:predict": self._predict,
            f"/v2/models/{service.name}/infer": self._infer,
        }

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        path, method = scope["path"], scope["method"]
        hot = self._hot.get(path)
        asked = Asked(dict(scope["headers"]), receive, body.Held(self._service.room))
        try:
            if hot is not None and method == "POST":
                self._access.check(asked.header("authorization"))
                with asked.held:
                    answer = await hot(asked)
            else:
                answer = await self._elsewhere(path, method, asked)
        except Refused as refused:
            answer = _refusal(refused.status, str(refused), refused.headers)
        except Exception:
            log.exception("%s %s failed", method, path)
            answer = _refusal(500, "the server failed; its log says why")
        if method == "POST" and path.startswith(("/v1/", "/v2/")):
            version = _version(answer, self._service)
            protocol = path[1:3] if path != "/v1/feedback" else "feedback"
            self._service.metrics.request(protocol, answer.status, version)
        headers = {"content-type": JSON, **(answer.headers or {})}
        if self._service.draining:
            headers["connection"] = "close"
        head = [(name.encode(), value.encode()) for name, value in headers.items()]
        head.append((b"content-length", str(len(answer.content)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": head})
        await send({"type": "http.response.body", "body": answer.content})

    async def _elsewhere(self, path: str, method: str, asked: Asked) -> Answer:
        if path not in self._open:
            self._access.check(asked.header("authorization"))
        routes, model = self._alone.get(path), self._service.name
        if routes is None and (found := _MODEL.fullmatch(path)):
            model = found["v1"] or found["v2"]
            kind = f"v1{found['verb'] or ''}" if found["v1"] else f"v2{found['part'] or ''}"
            routes = self._of_model.get(kind)
            asked = replace(asked, version=found["version"])
        if routes is None:
            raise Refused(404, f"{method} {path[:200]}: Not Found")
        if (route := routes.get(method)) is None:
            sentence = f"{method} {path[:200]}: Method Not Allowed"
            return _refusal(405, sentence, {"allow": ", ".join(routes)})
        if model != self._service.name:
            raise Refused(404, f"there is no model {model[:60]!r} here, only {self._service.name}")
        if method != "POST":
            return await route(asked)
        with asked.held:
            return await route(asked)

    async def _live(self, asked: Asked) -> Answer:
        return _json({"live": True, "status": "alive"})

    async def _about(self, asked: Asked) -> Answer:
        return _json(self._server)

    async def _models(self, asked: Asked) -> Answer:
        return _json({"models": [self._service.name]})

    async def _metrics(self, asked: Asked) -> Answer:
        if version := self._service.version:
            self._service.metrics.begin(version)
        encoder, kind = exposition.choose_encoder(asked.header("accept") or "")
        return Answer(encoder(REGISTRY), headers={"content-type": kind})

    async def _openapi(self, asked: Asked) -> Answer:
        return _json(openapi.document(self._service.name, not self._access.is_open))

    async def _ready(self, asked: Asked) -> Answer:
        # Whoever may ask without a token is not told what lies where.
        return self._readiness({}, told=self._access.is_open)

    async def _model_ready(self, asked: Asked) -> Answer:
        self._service.require_version(asked.version)
        return self._readiness({"name": self._service.name}, told=True)

    def _readiness(self, about: dict[str, Any], told: bool) -> Answer:
        service = self._service
        said = {**about, "ready": service.is_ready, "state": service.word}
        if service.trouble and told:
            said["reason" if service.is_ready else "error"] = service.trouble
        return _json(said, 200 if service.is_ready else 503)

    async def _metadata(self, asked: Asked) -> Answer:
        self._service.require_version(asked.version)
        return _json(metadata(self._service))

    async def _predict(self, asked: Asked) -> Answer:
        service = self._service
        service.admit()
        body.require_type(asked.headers, JSON)
        given = protocol_v1.document(await self._body(asked))
        answers, request_id = await service.predict(
            lambda model: protocol_v1.contents(given, model.content), _key(asked)
        )
        content = protocol_v1.answer(service.name, answers, request_id)
        return Answer(content, headers=_headers(service.name, answers.version, answers.generation))

    async def _explain(self, asked: Asked) -> Answer:
        with self._service.explaining():
            body.require_type(asked.headers, JSON)
            given = protocol_v1.document(await self._body(asked))
            return _json(
                await self._service.explain(
                    lambda model: protocol_v1.contents(given, model.content)
                )
            )

    async def _infer(self, asked: Asked) -> Answer:
        service = self._service
        service.require_version(asked.version)
        service.admit()
        json_length = asked.header(protocol_v2.JSON_LENGTH)
        body.require_type(asked.headers, *([JSON] if json_length is None else [BINARY, JSON]))
        given = protocol_v2.request(await self._body(asked), json_length, service.name)
        protocol_v2.require_known(given, service.served.model)
        answers, request_id = await service.predict(
            lambda model: protocol_v2.contents(given, model.content),
            given.id or _key(asked),
            asked.version,
        )
        said = protocol_v2.response(service.name, given, answers, request_id)
        content, headers = protocol_v2.answer(said)
        told = _headers(service.name, answers.version, answers.generation)
        return Answer(content, headers={**told, **headers})

    async def _feedback(self, asked: Asked) -> Answer:
        body.require_type(asked.headers, JSON)
        document = protocol_v1.document(await self._body(asked))
        return _json({"kept": await self._service.label(document)})

    async def _body(self, asked: Asked) -> bytes:
        timeout_s = self._service.limits.timeout_s
        return await body.read(asked.headers, asked.receive, asked.held, timeout_s)


def metadata(service: Service) -> dict[str, Any]:
    """Return what protocol V2 tells of the model."""
    said: dict[str, Any] = {"name": service.name, "platform": "", "inputs": [], "outputs": []}
    parameters: dict[str, Any] = {"state": service.word}
    if service.trouble:
        parameters["reason"] = service.trouble
    if served := service.follower.state.served:
        model = served.model
        said["versions"] = [served.version]
        said["inputs"] = [{"name": model.content, "datatype": "BYTES", "shape": [-1]}]
        said["outputs"] = [
            {"name": each.name, "datatype": each.datatype, "shape": [-1, *each.shape[1:]]}
            for each in protocol_v2.tensors([model.sample])
        ]
        parameters |= {
            "version": served.version,
            "generation": served.entry.number,
            "bundle": served.entry.bundle,
            "form": model.form,
            "task": model.description.task.kind,
        }
        if model.labels:
            parameters["labels"] = list(model.labels)
        if (rule := model.rule) is not None:
            parameters["decides"] = " ".join(rule.sentences)
    return {**said, "parameters": parameters}


@lru_cache(64)
def _headers(name: str, version: str, generation: int) -> dict[str, str]:
    return {
        "x-model-name": name,
        "x-model-version": quote(version),
        "x-model-generation": str(generation),
    }


def _version(answer: Answer, service: Service) -> str:
    """Return which version answered, or would have."""
    said = (answer.headers or {}).get("x-model-version")
    return unquote(said) if said else service.version


def _key(asked: Asked) -> str:
    return asked.header("x-request-id") or ""


def _json(content: Any, status: int = 200) -> Answer:
    return Answer(orjson.dumps(content), status)


def _refusal(status: int, sentence: str, headers: dict[str, str] | None = None) -> Answer:
    # A sentence may quote what no encoding can hold.
    said = {"error": sentence.encode(errors="replace").decode()}
    return Answer(orjson.dumps(said), status, headers)
