"""Gives the challenger of a rollout its requests, and moves the rollout on by what comes of it.

The router follows the rollout record as the follower does the ledger. While a rollout goes
on, the challenger runs in a process of its own (``challenger.py``); the champion stays where
it is and answers whatever the challenger does not answer well and in time. What was seen is
kept in the store every time the record is looked at, so that a server that was killed
carries on from there.

A request takes a turn: ``Turn.challenge`` gives the challenger's answers, or None where the
champion is to answer, and ``Turn.answered`` takes what that one said.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from components import signature
from components.errors import BundleError, StoreError
from components.freeze import Freezes
from components.ledger import Ledger
from components.rollout.config import Stage
from components.rollout.judgement import judge
from components.rollout.observations import (
    Arm,
    Observations,
    Tally,
    answered,
    disagreements,
    failed,
)
from components.rollout.record import BEAT_S, Rollouts, Transition, advance
from components.serve.answers import Answerer, Answers
from components.serve.challenger import REFUSED, STORE_AWAY, Challenger, Failure
from components.serve.follow import FOLLOWER, Served
from components.serve.model import Predicted, Prediction
from components.store import Store

log = logging.getLogger(__name__)

STOP_S = 5.0
MARGIN_S = 1.0
"""After the deadline of the challenger, a request waits no longer for the router itself."""
MAX_COPIES = 32
"""Copies of requests that may wait for the challenger; more are left out, not counted."""


@dataclass
class _Trial:
    """A rollout as this server takes part in it; belongs to the router's event loop.

    Attributes:
        move: the transition that holds.
        tally: what was seen since that transition.
        challenger: the running process, None while it is being loaded or after it failed.
        stopped: nothing is routed any more, because a limit was passed.
    """

    move: Transition
    tally: Tally
    starting: asyncio.Task[None] | None = None
    challenger: Challenger | None = None
    starts: int = 0
    copies: int = 0
    stopped: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def is_open(self) -> bool:
        return not self.stopped and self.challenger is not None and self.challenger.is_ready


class Turn:
    """One request, and which of the two versions may see it."""

    def __init__(self, router: Router, trial: _Trial | None, key: str, answer_range: float) -> None:
        """See ``Router.turn``."""
        self._router, self._trial, self._range = router, trial, answer_range
        place = _place(key, trial.move.rollout) if trial and key else random.random()
        stage = trial.move.stage if trial and trial.is_open else None
        self._is_challenged = bool(stage and stage.kind != "shadow" and place < stage.share)
        self._is_copied = bool(stage and _copied(stage))
        self._refused: Transition | None = None
        self._answered_under: Transition | None = None

    @property
    def is_checked(self) -> bool:
        """Whether the champion is asked as well, in the background, to be compared with."""
        return self._is_copied and self._answered_under is not None

    async def challenge(self, contents: Sequence[str]) -> Answers | None:
        """Return the challenger's answer, None if the champion is to answer."""
        trial = self._trial
        if trial is None or not self._is_challenged:
            return None
        move, within_s = trial.move, trial.move.config.deadline_ms / 1000 + MARGIN_S
        try:
            async with asyncio.timeout(within_s):
                asked = self._router.run(self._ask(trial, move, contents))
                predicted: Predicted = await asyncio.wrap_future(asked)
        except Failure as failure:
            if failure.kind == REFUSED:
                self._refused = move
            return None
        # Not only ours: nothing that goes wrong here may cost a request its answer.
        except Exception:
            log.warning("a request could not be handed to the challenger", exc_info=True)
            return None
        self._answered_under = move
        return Answers(
            predictions=predicted.predictions,
            version=move.version or move.bundle[:12],
            generation=move.generation,
            bundle=move.bundle,
            truncated=predicted.truncated,
        )

    def answered(
        self, contents: Sequence[str], predictions: Sequence[Prediction], seconds: float
    ) -> None:
        """Tell what the champion answered, and how long that took."""
        trial = self._trial
        if trial is None or trial.stopped:
            return
        self._router.soon(self._after(trial, list(contents), list(predictions), seconds))

    def checked(self, ours: Answers, theirs: Answers, seconds: float) -> None:
        """Tell what the challenger and then the champion answered, and how long that one took."""
        trial, move = self._trial, self._answered_under
        if trial is None or move is None or theirs.generation != move.generation:
            return  # the champion has moved meanwhile
        self._router.soon(self._compare(trial, move, ours, theirs, seconds))

    async def _compare(
        self, trial: _Trial, move: Transition, ours: Answers, theirs: Answers, seconds: float
    ) -> None:
        seen = Observations(
            champion=answered(seconds * 1000, move.config.slack_ms),
            compared=len(ours.predictions),
            disagreeing=disagreements(ours.predictions, theirs.predictions, self._range),
        )
        self._router.note(trial, move, seen)

    async def _ask(self, trial: _Trial, move: Transition, contents: Sequence[str]) -> Predicted:
        said, arm = await _asked(trial, contents)
        if arm is not None:
            self._router.note(trial, move, Observations(challenger=arm))
        if isinstance(said, Failure):
            raise said
        return said

    async def _after(
        self, trial: _Trial, contents: list[str], predictions: list[Prediction], seconds: float
    ) -> None:
        move, slack = trial.move, trial.move.config.slack_ms
        seen = Observations(champion=answered(seconds * 1000, slack))
        if self._refused is move:
            seen += Observations(challenger=failed(REFUSED))
        copied = self._is_copied and not self._is_challenged
        if copied and trial.is_open and trial.copies < MAX_COPIES:
            trial.copies += 1
            try:
                theirs, arm = await _asked(trial, contents)
            finally:
                trial.copies -= 1
            seen += Observations(challenger=arm or failed(REFUSED))
            if not isinstance(theirs, Failure):
                differ = disagreements(theirs.predictions, predictions, self._range)
                seen += Observations(compared=len(contents), disagreeing=differ)
        self._router.note(trial, move, seen)


class Routed:
    """Answers with the challenger or the champion, as the router says."""

    def __init__(self, router: Router, champion: Answerer) -> None:
        """Put ``router`` before ``champion``."""
        self._router, self._champion = router, champion
        self._checking: set[asyncio.Task[None]] = set()

    async def answer(self, contents: Sequence[str], key: str) -> Answers:
        """Return the answers of one of the two, see ``Answerer``."""
        turn = self._router.turn(key)
        challenged = await turn.challenge(contents)
        if challenged is not None:
            if turn.is_checked and len(self._checking) < MAX_COPIES:
                checking = asyncio.create_task(self._check(turn, contents, key, challenged))
                self._checking.add(checking)
                checking.add_done_callback(self._checking.discard)
            return challenged
        begun_s = time.monotonic()
        answers = await self._champion.answer(contents, key)
        turn.answered(contents, answers.predictions, time.monotonic() - begun_s)
        return answers

    async def _check(
        self, turn: Turn, contents: Sequence[str], key: str, challenged: Answers
    ) -> None:
        begun_s = time.monotonic()
        # A champion that is too busy, or cannot read this, leaves nothing to compare with.
        with suppress(Exception):
            answers = await self._champion.answer(contents, key)
            turn.checked(challenged, answers, time.monotonic() - begun_s)


class Router:
    """Follows the rollout record in a thread and an event loop of its own."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        server: str,
        served: Callable[[], Served | None],
        command: Callable[[str], list[str]],
        poll_s: float = 1.0,
        trusted: Sequence[str] = (),
    ) -> None:
        """Name what to follow; nothing is read yet.

        Args:
            store: holds record, ledger and bundles.
            prefix: of the project.
            server: name of this server in the record.
            served: returns the champion that answers now.
            command: makes the command of a challenger from its digest.
            poll_s: seconds between looks at the record.
            trusted: public keys of which one must have signed a challenger; none: nobody must.
        """
        self._store, self._trusted = store, trusted
        self._rollouts = Rollouts(store, prefix)
        self._ledger, self._freezes = Ledger(store, prefix), Freezes(store, prefix)
        self._server, self._served = server, served
        self._poll_s, self._command = poll_s, command
        self._loop: asyncio.AbstractEventLoop  # while it follows
        self._wake = asyncio.Event()
        self._stopping = False
        self._trial: _Trial | None = None
        self._beaten_s = -BEAT_S
        self._trouble = ""

    @contextmanager
    def following(self) -> Iterator[threading.Thread]:
        """Follow in the background for as long as the context is open.

        Yields:
            The thread that follows; after the context it may still wait for the store.
        """
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._run, name=f"{FOLLOWER}-rollout", daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            self._stopping = True
            self._loop.call_soon_threadsafe(self._wake.set)
            thread.join(STOP_S)

    def turn(self, key: str) -> Turn:
        """Return the turn of a request.

        Args:
            key: requests of the same key get the same version for as long as a stage lasts;
                without one, each is drawn by itself.
        """
        trial, served = self._trial, self._served()
        if served is None or (trial and trial.move.generation != served.entry.number):
            trial = None  # the champion moved: the record's end is a matter of a look
        return Turn(self, trial, key, served.model.answer_range if served else 1.0)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Start work on the router's loop from another thread; return its future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Start work whose end nobody waits for."""
        if self._stopping:
            work.close()
        else:
            self.run(work)

    def note(self, trial: _Trial, move: Transition, seen: Observations) -> None:
        """Take in what was seen under a transition; a look follows at once if it is bad."""
        if trial.move is not move:
            return  # the stage ended while the request was under way
        trial.tally.add(seen)
        challenger = trial.challenger
        died = challenger is not None and not challenger.is_ready
        if (seen.challenger.errors or died) and not trial.stopped:
            self._stop_what_fails(trial)  # at once: a look may wait for the store
            self._wake.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._follow())
        finally:
            self._loop.close()

    async def _follow(self) -> None:
        while not self._stopping:
            try:
                await self._look()
                self._trouble = ""
            # As in the follower: nothing that goes wrong here may end the service.
            except Exception as error:
                said = f"the rollout record cannot be followed: {error}"
                if said != self._trouble:
                    log.warning("%s", said)
                self._trouble = said
            self._wake.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._poll_s)
        await self._end_trial()
        with suppress(Exception):
            await asyncio.to_thread(self._rollouts.leave, self._server)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _look(self) -> None:
        """Compare the record with what runs here, once."""
        trial = self._trial
        if trial is not None:
            self._stop_what_fails(trial)  # even if the store cannot be reached
        if time.monotonic() - self._beaten_s >= BEAT_S:
            await asyncio.to_thread(self._rollouts.beat, self._server, datetime.now(UTC))
            self._beaten_s = time.monotonic()
        live = await asyncio.to_thread(self._rollouts.live)
        if live is None:
            await self._end_trial()
            return
        if trial is None or trial.move.rollout != live.rollout:
            await self._end_trial()
            trial = await self._begin(live)
        elif trial.move.number != live.number:
            await self._enter(trial, live)
        self._see_to_the_process(trial)
        await self._advance(trial)

    async def _advance(self, trial: _Trial) -> None:
        """Keep what was seen, and move the rollout on where that follows from it."""
        move, own = trial.move, trial.tally.seen

        def act() -> Transition | None:
            if trial.tally.changes or own.broken:
                self._rollouts.keep(move, self._server, own)
            seen = self._rollouts.observed(move)
            now, by = datetime.now(UTC), f"server {self._server}"
            _, moved = advance(
                self._rollouts, self._ledger, self._freezes, move, seen, by=by, now=now
            )
            return moved

        moved = await asyncio.to_thread(act)
        if moved is None:
            return
        log.info("rollout of version %s: %s: %s", moved.version, moved.words, moved.reason)
        if moved.is_live:
            await self._enter(trial, moved)
        else:
            await self._end_trial()

    async def _begin(self, live: Transition) -> _Trial:
        kept = await asyncio.to_thread(self._rollouts.kept, live, self._server)
        trial = self._trial = _Trial(live, Tally(kept))
        log.info("rollout of version %s: %s", live.version, live.words)
        return trial

    async def _enter(self, trial: _Trial, live: Transition) -> None:
        kept = await asyncio.to_thread(self._rollouts.kept, live, self._server)
        trial.tally, trial.move = Tally(kept), live

    def _stop_what_fails(self, trial: _Trial) -> None:
        if judge(trial.move.stage, trial.move.config, trial.tally.seen, 0.0).action == "fail":
            trial.stopped = True

    def _see_to_the_process(self, trial: _Trial) -> None:
        """Start the challenger if it does not run, unless it has died too often."""
        challenger, config = trial.challenger, trial.move.config
        if trial.stopped or (trial.starting and not trial.starting.done()):
            return
        if challenger is not None and not challenger.trouble:
            return
        if challenger is not None:
            trouble = challenger.trouble
            if trial.starts > config.restarts or trouble.startswith("too much memory"):
                self._break(trial, trouble)
                return
        served = self._served()
        if served is not None:
            trial.starting = asyncio.create_task(self._start(trial, served))

    async def _start(self, trial: _Trial, served: Served) -> None:
        config = trial.move.config
        challenger = Challenger(
            self._command(trial.move.bundle),
            served.model.sample,
            memory_mib=config.memory_mib,
            deadline_s=config.deadline_ms / 1000,
        )
        try:
            await asyncio.to_thread(
                signature.require, self._store, trial.move.bundle, self._trusted
            )
            trial.starts += 1
            await challenger.start(config.start_s)
        except BundleError as error:
            self._break(trial, f"may not serve: {error}")
            return
        except StoreError:
            return  # each look tries again
        except Failure as failure:
            if failure.kind == STORE_AWAY:
                trial.starts -= 1  # as above
            else:
                self._break(trial, str(failure))
            return
        if self._trial is trial:
            trial.challenger = challenger
        else:
            await challenger.stop()

    def _break(self, trial: _Trial, why: str) -> None:
        trial.stopped = True
        trial.tally.add(Observations(broken=f"the challenger {why}"))
        self._wake.set()

    async def _end_trial(self) -> None:
        trial, self._trial = self._trial, None
        if trial is None:
            return
        trial.stopped = True
        if trial.starting is not None and not trial.starting.done():
            trial.starting.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await trial.starting
        if trial.challenger is not None:
            await trial.challenger.stop()


async def _asked(trial: _Trial, contents: Sequence[str]) -> tuple[Predicted | Failure, Arm | None]:
    """Ask the challenger; return its answer or failure, and what to note about it.

    Of a refusal nothing is noted: it is the challenger's mistake only if the champion answers.
    """
    begun_s = time.monotonic()
    try:
        if trial.challenger is None:
            raise Failure("died")
        said = await trial.challenger.ask(contents)
    except Failure as failure:
        return failure, None if failure.kind == REFUSED else failed(failure.kind)
    latency_ms = (time.monotonic() - begun_s) * 1000
    return said, answered(latency_ms, trial.move.config.slack_ms)


def _copied(stage: Stage) -> bool:
    """Draw whether a request goes to the other version, too: as large a share as its own."""
    return stage.kind != "ab" and random.random() < stage.share


def _place(key: str, rollout: str) -> float:
    """Return where a key falls in [0, 1), another place in each rollout."""
    digest = hashlib.sha256(f"{rollout}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
