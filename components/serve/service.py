"""What every protocol does with a request: check, answer, keep, count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import Field, ValidationError

from components import attributions
from components.errors import SourceError
from components.request_log import Feedback
from components.serve.answers import Answerer, Answers
from components.serve.batching import Batcher
from components.serve.body import Room
from components.serve.config import LimitsConfig
from components.serve.follow import Follower, Served
from components.serve.keeping import Keeper, of_all
from components.serve.metrics import Metrics
from components.serve.model import BundleModel, TooMuch
from components.serve.refusal import Refused
from components.settings import Section

MAX_EXPLAINED = 4
"""Contents of one request for explanations; each is answered up to 41 times."""
MAX_EXPLAINING = 8
"""Requests for explanations that may wait; they are answered one at a time."""
MAX_KEY = 200
"""Characters of a client's name for a request; what is longer is cut."""
MAX_LABELS = 1000
"""Labels in one request."""
MAX_LABELLING = 128
"""Requests with labels that may wait for the store."""


class Labels(Section):
    """The body of ``POST /v1/feedback``."""

    feedback: list[Feedback] = Field(min_length=1, max_length=MAX_LABELS)


class Service:
    """A served model, whatever the protocol.

    Attributes:
        name: of the model in addresses.
        draining: the server is about to end, and should not be sent anything new.
        room: for the bodies of requests, of all protocols together.
    """

    def __init__(
        self,
        name: str,
        follower: Follower,
        champion: Answerer,
        answerer: Answerer,
        batcher: Batcher,
        keeper: Keeper,
        metrics: Metrics,
        limits: LimitsConfig,
    ) -> None:
        """Put the parts together.

        Args:
            name: of the model in addresses.
            follower: holds the champion, which says what can be asked.
            champion: answers those who name its version.
            answerer: answers all others.
            batcher: refuses where too much waits.
            keeper: of requests and labels.
            metrics: told of everything.
            limits: of a request.
        """
        self.name, self.draining, self.room = name, False, Room()
        self.follower, self.answerer, self.metrics, self.limits = (
            follower,
            answerer,
            metrics,
            limits,
        )
        self._champion, self._batcher, self._keeper = champion, batcher, keeper
        self._explaining, self._explained = asyncio.Lock(), 0
        self._labelling: set[asyncio.Task[None]] = set()

    @property
    def served(self) -> Served:
        """The champion.

        Raises:
            Refused: there is none yet.
        """
        state = self.follower.state
        if state.served is None:
            raise Refused(503, f"the model {self.name!r} is not ready: {state.trouble}")
        return state.served

    @property
    def version(self) -> str:
        """The champion's; empty if there is none yet."""
        served = self.follower.state.served
        return served.version if served else ""

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.follower.state.served is not None and not self.draining

    @property
    def word(self) -> str:
        """The state in one word."""
        if self.draining:
            return "draining"
        word = self.follower.state.word
        return "degraded" if word == "serving" and self.trouble else word

    @property
    def trouble(self) -> str:
        """What is not as it should be; empty if all is."""
        return "; ".join(filter(None, [self.follower.state.trouble, self._keeper.trouble]))

    def admit(self) -> None:
        """Refuse a request if there is no model, or too much waits.

        Raises:
            Refused: with status 429 or 503.
        """
        _ = self.served
        self._batcher.admit()

    def require_version(self, version: str | None) -> None:
        """Refuse a version that does not serve.

        Raises:
            Refused: with status 404; or 503, if none serves yet.
        """
        if version is not None and version != (ours := self.served.version):
            raise Refused(404, f"version {version[:60]!r} does not serve here, only {ours} does")

    async def predict(
        self,
        given: Callable[[BundleModel], list[object]],
        key: str,
        version: str | None = None,
    ) -> tuple[Answers, str | None]:
        """Return answers, and the id under which the request is kept, if it is.

        Args:
            given: returns what a request asks about, or raises ``ValueError``.
            key: the client's name for the request.
            version: the one that has to answer; None for whichever serves, also a challenger.

        Raises:
            Refused: it is no good request, or cannot be answered now.
        """
        self.require_version(version)
        contents = self._checked(self.served.model, given)
        answerer = self.answerer if version is None else self._champion
        started_s = time.perf_counter()
        try:
            answers = await answerer.answer(contents, key := key[:MAX_KEY])
        except SourceError as error:
            raise Refused(400, str(error)) from error
        if version is not None and answers.version != version:
            self.require_version(version)  # the champion has moved meanwhile
        request_id = self._keeper.keep(key, contents, answers)
        self.metrics.answered(
            answers.version,
            time.perf_counter() - started_s,
            answers.predictions,
            len(answers.truncated),
        )
        return answers, request_id

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Be one of the requests for explanations.

        Raises:
            Refused: with status 429 or 503, see ``admit``.
        """
        self.admit()
        if self._explained >= MAX_EXPLAINING:
            raise Refused(429, "too many requests wait for explanations; try again later", 5)
        self._explained += 1
        try:
            yield
        finally:
            self._explained -= 1

    async def explain(self, given: Callable[[BundleModel], list[object]]) -> dict[str, Any]:
        """Return what of each content made the champion answer as it did.

        Raises:
            Refused: it is no good request, or cannot be answered now.
        """
        served = self.served
        contents = self._checked(served.model, given)
        if len(contents) > MAX_EXPLAINED:
            raise Refused(413, f"one request may ask for {MAX_EXPLAINED} explanations")
        try:
            # One at a time: predictions come first.
            async with asyncio.timeout(self.limits.timeout_s), self._explaining:
                found = [
                    await asyncio.to_thread(_explanation, served.model, each) for each in contents
                ]
        except SourceError as error:
            raise Refused(400, str(error)) from error
        except TimeoutError as error:
            raise Refused(504, "the model did not explain in time", 5) from error
        return {
            "explanations": found,
            "model_name": self.name,
            "model_version": served.version,
            "generation": served.entry.number,
        }

    async def label(self, document: object) -> int:
        """Keep labels of earlier requests; return how many.

        Raises:
            Refused: they are no good labels, or cannot be kept now.
        """
        try:
            labels = Labels.model_validate(document).feedback
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise Refused(400, f"the feedback is wrong: {place}: {first['msg']}") from error
        task = self.served.model.description.task
        # Whoever reads labels later leaves out what the task does not know.
        if faults := [fault for each in labels if (fault := task.label_fault(each.label))]:
            raise Refused(422, f"{faults[0]}{of_all(len(faults), labels)}")
        if len(self._labelling) >= MAX_LABELLING:
            raise Refused(503, "too many labels wait for the store; send them again later", 5)
        keeping = asyncio.create_task(self._keeper.label(labels))
        self._labelling.add(keeping)
        keeping.add_done_callback(self._labelled)
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                # Not broken off: others' labels are written with these.
                await asyncio.shield(keeping)
        except TimeoutError as error:
            raise Refused(503, "the store does not take labels in time", 5) from error
        return len(labels)

    def _labelled(self, keeping: asyncio.Task[None]) -> None:
        self._labelling.discard(keeping)
        if not keeping.cancelled():
            keeping.exception()  # perhaps nobody waits any more

    def _checked(
        self, model: BundleModel, given: Callable[[BundleModel], list[object]]
    ) -> list[str]:
        try:
            return model.checked(given(model))
        except TooMuch as error:
            raise Refused(413, str(error)) from error
        except ValueError as error:
            raise Refused(400, str(error)) from error


def _explanation(model: BundleModel, content: str) -> dict[str, Any]:
    """Return the answer that is explained, and the weight of each word or part of it."""
    prediction = model.predict([content])[0]
    column = int(model.answers([content])[0].argmax())
    words, tiles = attributions.weights(content, model.content, model.answers, column)
    explained = {"answer": model.answer_names[column], "prediction": prediction}
    if model.content == "image":
        return {**explained, "tiles": tiles}
    return {**explained, "words": [{"word": word, "weight": weight} for word, weight in words]}
