"""The Open Inference Protocol over gRPC, with KServe's messages and data plane.

KServe's own gRPC server listens on every address, asks nobody for a token and lets anybody
unload the model. This one listens where it is told to, asks for the same tokens as HTTP does
(metadata ``authorization``), and has a closed model repository.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc import StatusCode, aio
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.grpc.servicer import InferenceServicer

from components.errors import WorldError
from components.serve.access import Access
from components.serve.body import MAX_BODY_BYTES
from components.serve.refusal import Refused
from components.serve.service import Service

log = logging.getLogger(__name__)

_CODES = {
    500: StatusCode.INTERNAL,
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    404: StatusCode.NOT_FOUND,
    413: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
_OPEN = ("ServerLive", "ServerReady")
_CLOSED = ("RepositoryModelLoad", "RepositoryModelUnload", "RepositoryIndex")


class _Servicer(InferenceServicer):
    """KServe's, which knows of no versions."""

    def __init__(self, dataplane: DataPlane, service: Service) -> None:
        super().__init__(dataplane, None)
        self._service = service

    async def ModelReady(self, request: Any, context: Any) -> Any:
        self._service.require_version(request.version or None)
        return await super().ModelReady(request, context)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._service.require_version(request.version or None)
        about = await super().ModelMetadata(request, context)
        if served := self._service.follower.state.served:
            about.versions.append(served.version)
        return about


class _Guard(aio.ServerInterceptor):
    """Checks the token, and turns what was raised into a status and one sentence."""

    def __init__(self, access: Access, service: Service) -> None:
        self._access, self._service = access, service

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        method = details.method.rpartition("/")[2]
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def guarded(request: Any, context: Any) -> Any:
            try:
                if method in _CLOSED:
                    raise Refused(404, "the model repository is closed")
                if method not in _OPEN:
                    self._access.check(dict(details.invocation_metadata).get("authorization"))
                answer = await handler.unary_unary(request, context)
            except Refused as refused:
                status, sentence = refused.status, str(refused)
            except InvalidInput as error:
                status, sentence = 400, str(error)
            except ModelNotFound as error:
                status, sentence = 404, str(error)
            except Exception:
                log.exception("%s failed", method)
                status, sentence = 500, "the server failed; its log says why"
            else:
                if method == "ModelInfer":
                    self._service.metrics.request("grpc", 200, answer.model_version)
                return answer
            if method == "ModelInfer":
                self._service.metrics.request("grpc", status, self._service.version)
            await context.abort(_CODES.get(status, StatusCode.UNKNOWN), sentence)

        return grpc.unary_unary_rpc_method_handler(
            guarded, handler.request_deserializer, handler.response_serializer
        )


async def listening(
    dataplane: DataPlane, service: Service, access: Access, host: str, port: int
) -> aio.Server:
    """Return a server that answers on ``host`` and ``port``.

    Raises:
        WorldError: they cannot be listened on.
    """
    server = aio.server(
        interceptors=[_Guard(access, service)],
        options=[
            ("grpc.max_receive_message_length", MAX_BODY_BYTES),
            ("grpc.max_send_message_length", MAX_BODY_BYTES),
            # Or two servers would share a port, each answering half of the requests.
            ("grpc.so_reuseport", 0),
        ],
    )
    grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        _Servicer(dataplane, service), server
    )
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        server.add_insecure_port(where)
    except RuntimeError as error:
        raise WorldError(
            f"cannot listen on {where} for gRPC; stop what uses it, or choose another port"
        ) from error
    await server.start()
    log.info("listening on grpc://%s", where)
    return server
