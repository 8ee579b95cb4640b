from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from components import bundle
from components.ledger import Entry, Ledger
from components.request_log import RequestLog
from components.rollout.config import RolloutConfig, Stage
from components.rollout.record import Rollouts, Transition
from components.serve.config import ServeConfig
from components.serving_costs import ServingCosts
from components.store import LocalStore

if TYPE_CHECKING:
    from components.serve.server import ChampionServer

PATIENCE_S = 60.0


@dataclass
class World:
    """A store of its own, and bundles to promote in it."""

    store: LocalStore
    make: Callable[[int], Path]
    prefix: str = "demo"

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(self.store, self.prefix)

    def begin(self, digest: str, *stages: Stage, **limits: Any) -> Transition:
        """Begin a rollout of a bundle against today's champion."""
        return self.rollouts.begin(
            rollout=f"run/{digest}",
            bundle=digest,
            version="challenger",
            generation=self.ledger.generation,
            config=RolloutConfig(stages=list(stages), **limits),
            by="test",
            why="better",
        )

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, self.prefix)

    def publish(self, seed: int) -> str:
        return bundle.publish(self.store, self.make(seed))

    def promote(self, digest: str, version: str | None = None) -> Entry:
        expected = self.ledger.generation
        return self.ledger.append(
            action="promote",
            bundle=digest,
            key=f"act-{expected}",
            by="test",
            reason="",
            expected=expected,
            version=f"v{expected + 1}" if version is None else version,
        )

    def file(self, digest: str, name: str) -> Path:
        return self.store.local_path(f"{bundle.key_of(digest)}/{name}")


def until(true: Callable[[], object], what: str) -> None:
    """Wait until something is true, and fail if it never is."""
    give_up = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < give_up, f"waited in vain: {what}"
        time.sleep(0.01)


class Client(httpx.Client):
    """Asks a server, and can tell it to stop as a signal does."""

    def __init__(self, server: ChampionServer) -> None:
        super().__init__(base_url=f"http://127.0.0.1:{server.port}", timeout=20)
        self.stop = server.stop


@contextmanager
def running(
    world: World,
    poll_s: float = 0.02,
    config: ServeConfig | None = None,
    command: Callable[[str], list[str]] | None = None,
) -> Iterator[Client]:
    """Run a server in this process on a free loopback port.

    Args:
        world: what it serves.
        poll_s: between its looks at ledger and rollout record.
        config: the section ``serve``.
        command: of a rollout's challenger, from its digest, if not the real one.
    """
    from components.serve.challenger import command_of
    from components.serve.follow import BothKept, Follower
    from components.serve.model import loader
    from components.serve.router import Routed, Router
    from components.serve.server import ChampionServer

    config = config or ServeConfig()
    load = loader(config.form, config.trusted_keys)
    follower = Follower(world.store, world.prefix, poll_s, BothKept(load))
    router = Router(
        world.store,
        world.prefix,
        "here",
        lambda: follower.state.served,
        command or partial(command_of, str(world.store.root), "fastest"),
        poll_s,
        config.trusted_keys,
    )
    kept = RequestLog(world.store, world.prefix)
    with (
        ChampionServer(
            "demo",
            follower,
            kept,
            ServingCosts(world.store, world.prefix),
            "127.0.0.1",
            0,
            config,
            partial(Routed, router),
        ) as server,
        follower.following(),
        router.following(),
    ):
        thread = threading.Thread(target=server.start)
        thread.start()
        try:
            with Client(server) as client:
                until(lambda: _answers(client), "a server that listens")
                yield client
        finally:
            server.stop()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 200
    except httpx.ConnectError:
        return False


@pytest.fixture
def world(make_bundle: Callable[[int], Path], tmp_path: Path) -> World:
    return World(LocalStore(tmp_path / "objects"), make_bundle)


@pytest.fixture(name="until", scope="session")
def until_fixture() -> Callable[[Callable[[], object], str], None]:
    return until


@pytest.fixture(name="running", scope="session")
def running_fixture() -> Callable[..., AbstractContextManager[httpx.Client]]:
    return running


@pytest.fixture(scope="module")
def served(
    make_bundle: Callable[[int], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A server with champion 1, for tests that change nothing."""
    world = World(LocalStore(tmp_path_factory.mktemp("objects")), make_bundle)
    world.promote(world.publish(1), version="7")
    with running(world) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        yield client
