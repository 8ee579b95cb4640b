"""The model server: KServe's ``ModelServer``, kept on the ledger's champion.

::

    model.py         a bundle that predicts, without any server; deploy checks challengers with it
    follow.py        loads each new champion beside the old one, then swaps
    answers.py       who answers a request: the champion, or a router in its place
    router.py        gives a rollout's challenger its requests, and moves the rollout on
    challenger.py    the challenger, in a process of its own
    alias.py         MLflow's alias, which follows promotions that servers make
    batching.py      rows of many requests, answered together by worker threads
    service.py       what every protocol does with a request
    protocol_v1.py   KServe's V1; also protocol_v2.py and protocol_grpc.py
    application.py   what each address answers, described by openapi.py
    access.py        who may ask
    keeping.py       requests and labels kept in the store; cost.py, what answers cost
    metrics.py       what Prometheus is told
    server.py        KServe's ModelServer around all of it

It answers on loopback unless told otherwise and needs nothing but the object store.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from components.errors import ConfigError
from components.serve.config import ServeConfig

if TYPE_CHECKING:
    from components.ledger import Entry
    from components.serve.follow import Served

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


def serve(
    store_url: str,
    prefix: str,
    name: str,
    host: str,
    port: int,
    poll_s: float,
    config: ServeConfig,
    pinned: Entry | None = None,
    alias_of: str = "",
) -> None:
    """Serve a project's champion until SIGTERM or SIGINT; then finish and return.

    Without a champion the server starts all the same, says that it is not ready, and
    begins to answer when there is one. Port 0 takes a free port and logs it. To be called
    last: from the main thread, later signals are ignored, and where a load in native code
    outlasts the server, the process ends here with exit code 0.

    Args:
        store_url: object store with ledger and bundles, see ``components.store.open_store``.
        prefix: of the project in the store.
        name: of the model in the server's addresses, ``/v2/models/{name}``.
        host: address to listen on; ``0.0.0.0`` opens it to the network.
        port: to listen on.
        poll_s: seconds between looks at the ledger.
        config: the section ``serve``.
        pinned: what to serve instead of the ledger's head: a canary on KServe, which takes
            no part in rollouts of its own.
        alias_of: the registered model in MLflow whose alias follows a promotion that servers
            make; empty for none.

    Raises:
        ConfigError: the store's address, the name or a file of tokens is unusable.
        WorldError: host and port cannot be listened on.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the model's name {name!r} cannot stand in an address; "
            "use up to 64 letters, digits, '-', '_' and '.'"
        )
    # Does nothing where the caller has set up logging.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # At the end of a process torch reports on its caches, which nobody asked for.
    logging.getLogger("torch").setLevel(logging.WARNING)
    with _signals_end_cleanly():
        # KServe reads the command line of the process when it is imported, by whatever comes
        # first.
        arguments, sys.argv = sys.argv, sys.argv[:1]
        try:
            from components.serve.router import Routed, Router
            from components.serve.server import ChampionServer, example
        finally:
            sys.argv = arguments
        from components.request_log import RequestLog
        from components.serve import alias
        from components.serve.challenger import command_of
        from components.serve.follow import BothKept, Follower
        from components.serve.model import loader
        from components.serving_costs import ServingCosts
        from components.store import open_store

        store, load = open_store(store_url), loader(config.form, config.trusted_keys)
        follower = Follower(store, prefix, poll_s, BothKept(load), pinned)
        router = Router(
            store,
            prefix,
            f"{socket.gethostname()}-{port or os.getpid()}",
            lambda: follower.state.served,
            partial(command_of, store_url, config.form),
            poll_s,
            config.trusted_keys,
        )
        kept, costs = RequestLog(store, prefix), ServingCosts(store, prefix)
        with ChampionServer(
            name, follower, kept, costs, host, port, config, partial(Routed, router)
        ) as server:

            def invite(served: Served) -> None:
                content, is_open = served.model.content, config.access.is_open
                log.info("try: %s", example(host, server.port, name, content, is_open))

            routing: AbstractContextManager[object]
            routing = nullcontext() if pinned else router.following()
            aliasing: AbstractContextManager[None] = nullcontext()
            if alias_of and not pinned:
                mirror = alias.command_of(store_url, prefix, alias_of)
                aliasing = alias.AliasKeeper(lambda: follower.state.served, mirror).following()
            with follower.following(invite), routing, aliasing:
                server.start()
        if threading.current_thread() is threading.main_thread() and _are_left():
            # An interpreter that ends beneath native code, such as torch being loaded, aborts,
            # and it waits for threads that ask a store which hangs.
            logging.shutdown()
            os._exit(0)


def _are_left() -> bool:
    """Tell whether threads of the server are still at work."""
    from components.serve.batching import WORKER
    from components.serve.follow import FOLLOWER
    from components.serve.server import BACKGROUND

    ours = (WORKER, FOLLOWER, BACKGROUND)
    left = [each for each in threading.enumerate() if each.name.startswith(ours)]
    for each in left:
        each.join(0.2)  # those that have nothing to do end at once
    return any(each.is_alive() for each in left)


@contextmanager
def _signals_end_cleanly() -> Iterator[None]:
    """Let a signal that comes before the server listens end the process with exit code 0.

    Afterwards signals are ignored: one more must not break the end of the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(signum: int, frame: FrameType | None) -> None:
        sys.exit(0)

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, leave) for number in numbers}
    after: dict[signal.Signals, Any] = dict.fromkeys(numbers, signal.SIG_IGN)
    try:
        yield
    except Exception:
        after = before
        raise
    finally:
        for number, handler in after.items():
            signal.signal(number, handler)
