"""KServe's ``ModelServer`` over a follower: protocols V1 and V2, one model.

What differs from KServe's own server: it listens where it is told to; nobody can load or
unload a model from outside; requests are answered in batches by worker threads, and refused
where too many wait; a bad request is always a 4xx answer with one sentence under ``error``.
Images are files of PNG, JPEG, GIF, BMP or WEBP. ::

    POST /v1/models/{name}:predict      {"instances": ["...", {"text": "..."}]}, or for images
                                        {"instances": [{"b64": "..."}, {"image": {"b64": "..."}}]}
    POST /v1/models/{name}:explain      the same; the words or parts that made the answer
    POST /v2/models/{name}/infer        BYTES tensor "text" of shape [n] or [n, 1], or "image"
                                        with base64 of image files
    POST /v1/feedback                   labels of requests that were kept
    GET  /v2/models/{name}              metadata, with state, version and generation
    GET  /v2/models/{name}/ready        also /v1/models/{name}, /v2/health/ready
    .../v2/models/{name}/versions/{version}...   the same three, by that version and no other
    GET  /v2/health/live                also /
    GET  /v2  /v2/models  /v1/models  /metrics  /openapi.json

A classifier answers with ``label``, ``confidence`` and ``probabilities``; one that may leave
rows to a person also with ``abstained``. Where that is true, ``label`` is null, in protocol V2
an empty string, and ``confidence`` is of the label that the model leans to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Self

import kserve
import uvicorn
from kserve.protocol.infer_type import InferRequest, InferResponse
from kserve.protocol.rest.server import RESTServer

from components.errors import WorldError
from components.request_log import RequestLog
from components.serve import protocol_grpc, protocol_v2
from components.serve.access import Access
from components.serve.answers import Answerer, Champion
from components.serve.application import Application, metadata
from components.serve.batching import Batcher
from components.serve.config import LimitsConfig, ServeConfig
from components.serve.cost import CostKeeper
from components.serve.follow import Follower
from components.serve.keeping import Keeper
from components.serve.metrics import Metrics
from components.serve.service import Service
from components.serving_costs import ServingCosts
from components.tasks.model import Content

log = logging.getLogger(__name__)

GRACE_S = 20
"""How long requests in flight may take to finish; Kubernetes kills after 30."""
FLUSH_S = 5.0
"""How long the last requests may take to be written at the end."""

SWEEP_S = 5.0
"""Between looks for connections that ask nothing."""

BACKGROUND = "background"
"""Begins the names of threads that ask the store, which may outlast the server."""

BACKLOG = 1024
"""Connections that may wait to be accepted."""


class ChampionModel(kserve.Model):
    """The service as KServe's data plane knows it, which gRPC asks."""

    def __init__(self, service: Service) -> None:
        """Answer under the service's name."""
        super().__init__(service.name)
        self._service = service

    async def healthy(self) -> bool:
        """Tell whether there is a model to ask."""
        return self._service.is_ready

    def load(self) -> bool:
        """Load nothing: KServe calls this on the event loop, and loading is the follower's."""
        return self._service.is_ready

    def get_input_types(self) -> list[dict[str, Any]]:
        """Describe the input of protocol V2."""
        inputs: list[dict[str, Any]] = metadata(self._service)["inputs"]
        return inputs

    def get_output_types(self) -> list[dict[str, Any]]:
        """Describe the outputs of protocol V2."""
        outputs: list[dict[str, Any]] = metadata(self._service)["outputs"]
        return outputs

    async def predict(
        self, payload: InferRequest, headers: dict[str, str] | None = None
    ) -> InferResponse:
        """Answer one request of protocol V2, wholly from one model."""
        service = self._service
        service.admit()
        protocol_v2.require_known(payload, service.served.model)
        answers, request_id = await service.predict(
            lambda model: protocol_v2.contents(payload, model.content),
            payload.id or "",
            payload.model_version or None,
        )
        return protocol_v2.response(self.name, payload, answers, request_id)


class ChampionServer(kserve.ModelServer):
    """KServe's server, listening where it is told to, with a closed model repository.

    A context manager that holds the listening socket; ``start`` blocks until ``stop``.
    """

    def __init__(
        self,
        name: str,
        follower: Follower,
        kept: RequestLog,
        costs: ServingCosts,
        host: str,
        port: int,
        config: ServeConfig,
        answerer: Callable[[Champion], Answerer] = lambda champion: champion,
    ) -> None:
        """Take the address, so that a port in use is known before anything is loaded.

        Args:
            name: of the model in addresses.
            follower: holds the champion.
            kept: where requests and labels go.
            costs: where it is written down what answers cost.
            host: address to listen on.
            port: to listen on; 0 takes a free one.
            config: the section ``serve``.
            answerer: puts somebody, such as a router, between requests and the champion.

        Raises:
            ConfigError: a file of ``serve.access`` cannot be used.
            WorldError: the address cannot be listened on.
        """
        self._config, self._access = config, Access(config.access)
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
        for logger in ("kserve", "uvicorn"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        metrics = Metrics(name, config.cost.price_per_hour)
        self._batcher = Batcher(config.batching, config.limits, metrics, os.cpu_count() or 1)
        self._keeper = Keeper(kept, config.requests, metrics)
        self._costs = CostKeeper(costs, metrics)
        champion = Champion(follower, self._batcher)
        self.service = Service(
            name,
            follower,
            champion,
            answerer(champion),
            self._batcher,
            self._keeper,
            metrics,
            config.limits,
        )
        self.register_model(ChampionModel(self.service))
        about = {**self.dataplane.metadata(), "extensions": ["binary_tensor_data"]}
        application = Application(self.service, self._access, about)
        self._rest_server = _RestServer(application, self._listener, self.port)
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        """Return the server."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the address back."""
        self._listener.close()

    def start(self) -> None:
        """Answer until ``stop`` or a signal; requests in flight are finished.

        KServe's own refuses to start before a model is ready.

        Raises:
            WorldError: another process took an address meanwhile.
        """
        self.register_signal_handler()
        try:
            self._listener.listen(BACKLOG)
        except OSError as error:
            raise _unusable(self.host, self.port, error) from error
        log.info("listening on http://%s:%d", self.host, self.port)
        loops = self._rest_server.config.get_loop_factory()
        with asyncio.Runner(loop_factory=loops) as runner:
            loop, background = runner.get_loop(), ThreadPoolExecutor(thread_name_prefix=BACKGROUND)
            loop.set_default_executor(background)
            try:
                runner.run(self._run())
            finally:
                # A loop that closes waits for its executor, and a store may hang for minutes.
                background.shutdown(wait=False, cancel_futures=True)
                loop.set_default_executor(ThreadPoolExecutor(1))
        log.info("stopped")

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """Stop from any thread, after the time to drain; may be called more than once."""
        again, self.service.draining = self.service.draining, True
        if self._config.limits.drain_s and self._loop is not None and not again:
            self._loop.call_soon_threadsafe(
                self._loop.call_later, self._config.limits.drain_s, self._rest_server.stop
            )
        else:
            self._rest_server.stop()

    def register_signal_handler(self) -> None:
        """Stop on the signals of Kubernetes and of a terminal."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda got, frame: self.stop(got))

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        grpc = None
        sweep = self._rest_server.sweep(self._config.limits)
        acts = (self._keeper.run(), self._costs.run(), sweep)
        besides = [asyncio.create_task(each) for each in acts]
        try:
            if port := self._config.grpc_port:
                grpc = await protocol_grpc.listening(
                    self.dataplane, self.service, self._access, self.host, port
                )
            await self._rest_server.start()
        finally:
            if grpc is not None:
                await grpc.stop(GRACE_S)
            for task in besides:
                task.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._keeper.flush()
                    await self._costs.flush()
            self._batcher.close()


class _Uvicorn(uvicorn.Server):
    """Leaves signals to us: its own handlers would end the server before it has drained."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _RestServer(RESTServer):
    """KServe's REST server with our socket and our application."""

    def __init__(self, application: Application, listener: socket.socket, port: int) -> None:
        super().__init__(application, None, None, port, grace_period=GRACE_S)
        # A line for each request costs a tenth of what the server can do; it takes effect only
        # when logging is configured again.
        self.config.access_log = False
        self.config.configure_logging()
        # Nothing here asks for the client's address, which a proxy would tell.
        self.config.proxy_headers = False
        self.config.ws = "none"
        # We have none, and a second Ctrl-C would break it off with a traceback.
        self.config.lifespan = "off"
        self._listener = listener
        self._server = _Uvicorn(self.config)

    async def start(self) -> None:
        await self._server.serve(sockets=[self._listener])

    async def sweep(self, limits: LimitsConfig) -> None:
        """Close connections on which no request comes in time, until cancelled.

        Uvicorn waits for ever for the first byte, and for the end of a header; and each
        connection holds one of the files that a process may open.
        """
        waiting: dict[Any, float] = {}
        connections: set[Any] = self._server.server_state.connections
        while True:
            await asyncio.sleep(min(SWEEP_S, limits.timeout_s / 4))
            now_s = time.monotonic()
            waiting = {
                each: waiting.get(each, now_s)
                for each in connections
                if (each.cycle is None or each.cycle.response_complete)
                # Between two requests uvicorn's own time-out holds.
                and each.timeout_keep_alive_task is None
            }
            for each, since_s in waiting.items():
                if now_s - since_s > limits.timeout_s:
                    each.transport.close()

    def stop(self) -> None:
        self._server.should_exit = True


_SENT = {
    "text": """'{"instances": ["a text"]}'""",
    "record": """'{"instances": [{"column": "value"}]}'""",
    "image": """'{"instances": [{"b64": "'$(base64 < picture.png | tr -d '\\n')'"}]}'""",
}


def example(host: str, port: int, name: str, content: Content, is_open: bool) -> str:
    """Return a command for a terminal that asks the model called ``name``."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    token = "" if is_open else '-H "Authorization: Bearer $TOKEN" '
    return (
        f"curl -s http://{reached}:{port}/v1/models/{name}:predict {token}"
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
