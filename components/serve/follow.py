"""Follows the ledger: what is served is the champion, or the last one that works.

A new champion is fetched, verified, loaded and warmed up in a thread of its own while
the old one answers; then one assignment swaps them. Nothing pushes to the server.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from components.errors import TokiwaError
from components.ledger import Entry, Ledger
from components.serve.model import BundleModel
from components.store import Store

log = logging.getLogger(__name__)

NO_CHAMPION = "no champion yet"
WAITING = (
    f"{NO_CHAMPION}: waiting for one, and not ready until then; tokiwa status PROJECT says how to "
    "come by it"
)
FOLLOWER = "follow"
"""Begins the names of threads that follow the store."""
FIRST_REST_S = 1.0
LONGEST_REST_S = 60.0
"""Between attempts to load the same champion: hashing a large bundle is not free."""
STOP_S = 5.0
"""How long a load that is under way may hold up the end of the process."""


@dataclass(frozen=True)
class Served:
    """A loaded model and the ledger entry that made it champion."""

    model: BundleModel
    entry: Entry

    @property
    def version(self) -> str:
        """The registry's version, or the beginning of the digest where there is none."""
        return self.entry.version or self.entry.bundle[:12]


@dataclass(frozen=True)
class State:
    """What the server has and what troubles it; replaced as a whole, never changed."""

    served: Served | None = None
    trouble: str = NO_CHAMPION
    """Why what is served is not known to be the champion; empty if it is."""

    @property
    def word(self) -> Literal["waiting", "serving", "degraded"]:
        """The state in one word."""
        if self.served is None:
            return "waiting"
        return "degraded" if self.trouble else "serving"


@dataclass(frozen=True)
class _Failure:
    number: int
    reason: str
    rest_s: float
    until_s: float


class BothKept:
    """Loads models and keeps the last two, so that going back to the one before is no load.

    A bundle never changes: what was verified and loaded once is what its digest names.
    """

    def __init__(self, load: Callable[[Store, str], BundleModel] = BundleModel.load) -> None:
        """Keep nothing yet; ``load`` turns a digest into a model."""
        self._load = load
        self._kept: dict[str, BundleModel] = {}

    def __call__(self, store: Store, digest: str) -> BundleModel:
        """Return the model of a bundle."""
        model = self._kept.pop(digest, None) or self._load(store, digest)
        self._kept[digest] = model
        for old in list(self._kept)[:-2]:
            del self._kept[old]
        return model


class Follower:
    """Keeps ``state`` in step with the ledger.

    Attributes:
        state: may be read from any thread at any time.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        poll_s: float = 1.0,
        load: Callable[[Store, str], BundleModel] = BundleModel.load,
        pinned: Entry | None = None,
    ) -> None:
        """Name what to follow; nothing is read yet.

        Args:
            store: holds the ledger and the bundles.
            prefix: of the project whose ledger it is.
            poll_s: seconds between looks at the ledger.
            load: turns the digest of a bundle into a model.
            pinned: what to serve instead of the ledger's head, whatever becomes of that.

        Raises:
            ValueError: ``poll_s`` is not positive.
        """
        if not poll_s > 0:
            raise ValueError(f"poll_s is more than 0 seconds, not {poll_s}")
        self.state = State()
        self._store = store
        self._ledger, self._pinned = Ledger(store, prefix), pinned
        self._poll_s = poll_s
        self._load = load
        self._failure: _Failure | None = None
        self._stop = threading.Event()

    @contextmanager
    def following(
        self, ready: Callable[[Served], None] = lambda served: None
    ) -> Iterator[threading.Thread]:
        """Follow in the background for as long as the context is open.

        Args:
            ready: told of the first champion that answers.

        Yields:
            The thread that follows; after the context it may still be loading.
        """
        # A daemon, because a store that hangs must not keep the process from ending.
        thread = threading.Thread(
            target=self._follow, args=(ready,), name=f"{FOLLOWER}-ledger", daemon=True
        )
        thread.start()
        try:
            yield thread
        finally:
            self._stop.set()
            thread.join(STOP_S)

    def look(self) -> None:
        """Compare the ledger with what is served, once; whatever fails becomes the trouble."""
        served = self.state.served
        try:
            head = self._pinned or self._ledger.head()
        # Not only ours: nothing that goes wrong here may end the service of a good model.
        except Exception as error:
            self._settle(served, f"the ledger cannot be read: {_reason(error)}")
            return
        if head is None:
            self._settle(served, "the ledger has lost its entries" if served else NO_CHAMPION)
        elif served and served.entry == head:
            self._settle(served, "")
        elif served and served.entry.bundle == head.bundle:
            self._settle(Served(served.model, head), "")
        elif (failure := self._resting(head)) is not None:
            self._settle(served, failure.reason)
        else:
            self._take(head)

    def _follow(self, ready: Callable[[Served], None]) -> None:
        told = waits = False
        while not self._stop.is_set():
            self.look()
            if not waits and self.state == State():
                waits = True
                log.info(WAITING)
            if not told and (served := self.state.served) and not self._stop.is_set():
                told = True
                ready(served)
            self._stop.wait(self._poll_s)

    def _take(self, head: Entry) -> None:
        if self.state == State():
            self.state = State(None, f"loading generation {head.number}")
        if self._failure is None or self._failure.number != head.number:
            version = head.version or head.bundle[:12]
            log.info("loading generation %d, version %s", head.number, version)
        try:
            model = self._load(self._store, head.bundle)
            model.warm_up()
        except Exception as error:  # as above: a champion that breaks does not break the server
            self._fail(head, error)
            return
        self._failure = None
        self._settle(Served(model, head), "")

    def _fail(self, head: Entry, error: Exception) -> None:
        last = self._failure
        again = last is not None and last.number == head.number
        rest_s = min(last.rest_s * 2, LONGEST_REST_S) if last and again else FIRST_REST_S
        reason = f"generation {head.number} cannot be served: {_reason(error)}"
        self._failure = _Failure(head.number, reason, rest_s, time.monotonic() + rest_s)
        if not isinstance(error, TokiwaError) and not again:
            log.warning("unexpected failure", exc_info=error)
        self._settle(self.state.served, reason)

    def _resting(self, head: Entry) -> _Failure | None:
        failure = self._failure
        if failure and failure.number == head.number and time.monotonic() < failure.until_s:
            return failure
        return None

    def _settle(self, served: Served | None, trouble: str) -> None:
        """Take a new state, and log it if it says something new."""
        before, self.state = self.state, State(served, trouble)
        if self._stop.is_set():
            return  # nobody is served any more
        if served and (before.served is None or before.served.entry != served.entry):
            entry = served.entry
            log.info(
                "serving generation %d, version %s, bundle %s",
                entry.number,
                served.version,
                entry.bundle[:12],
            )
        elif before.trouble and not trouble:
            log.info("back in step with the ledger")
        if trouble and trouble not in (before.trouble, NO_CHAMPION):
            log.warning("%s%s", trouble, "; the old champion goes on" if served else "")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, TokiwaError) else f"{type(error).__name__}: {error}"
