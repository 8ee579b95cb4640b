"""Who answers: the one place between the protocols and the models in service.

The protocols ask an ``Answerer`` and know no more. ``Champion`` is the one that always asks
the champion; a rollout puts a router in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from components.serve.batching import Batcher
from components.serve.follow import Follower
from components.serve.model import Prediction
from components.serve.refusal import Refused


@dataclass(frozen=True)
class Answers:
    """What one model says of the contents of one request.

    Attributes:
        predictions: one for each content, in order.
        version: of the model that answered.
        generation: number of the ledger entry that put it into service.
        bundle: its digest.
        truncated: places of contents of which the model read the beginning only.
    """

    predictions: list[Prediction]
    version: str
    generation: int
    bundle: str
    truncated: list[int] = field(default_factory=list)


class Answerer(Protocol):
    """Answers requests with the model, or one of the models, in service."""

    async def answer(self, contents: Sequence[str], key: str) -> Answers:
        """Return the answers to the contents of a request, all from one model.

        Args:
            contents: checked by the champion's ``BundleModel.checked``.
            key: the client's name for the request, by which it can be routed.

        Raises:
            Refused: nobody can answer now.
            SourceError: a content cannot be read.
        """


class Champion:
    """Asks the champion of the ledger."""

    def __init__(self, follower: Follower, batcher: Batcher) -> None:
        """Ask whatever ``follower`` holds, in the batches of ``batcher``."""
        self._follower = follower
        self._batcher = batcher

    async def answer(self, contents: Sequence[str], key: str) -> Answers:
        """Return the champion's answers, see ``Answerer``."""
        # Read once: the champion may change at any moment.
        served = self._follower.state.served
        if served is None:
            raise Refused(503, f"the model is not ready: {self._follower.state.trouble}")
        predicted = await self._batcher.respond(served, contents)
        return Answers(
            predictions=predicted.predictions,
            truncated=predicted.truncated,
            version=served.version,
            generation=served.entry.number,
            bundle=served.entry.bundle,
        )
