"""The state of a training, kept so that an interrupted one goes on where it was.

A checkpoint is one object in the store: the sha256 of what follows, and then
safetensors with everything that the next step depends on (weights, optimizer, random
states, position in the data). Two places take turns, so that the last good one is
there whatever happens while the next is written.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.store import ObjectMissing, Store

if TYPE_CHECKING:
    import torch

PLACES = ("a", "b")


@dataclass(frozen=True)
class State:
    """What a checkpoint holds.

    Attributes:
        step: optimizer steps taken.
        facts: JSON-able values.
        tensors: by name.
    """

    step: int
    facts: dict[str, Any]
    tensors: dict[str, torch.Tensor]


class Checkpoints:
    """The checkpoints of one training, found again by what it is made from."""

    def __init__(self, store: Store, key: str) -> None:
        """Keep them at ``checkpoints/{key}/``; equal keys must mean equal trainings."""
        self._store = store
        self._at = f"checkpoints/{key}"
        self._turn = 0

    def save(self, state: State) -> None:
        """Write a checkpoint over the older of the two."""
        from safetensors.torch import save

        facts = {"step": state.step, "facts": state.facts}
        tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
        body = save(tensors, {"state": json.dumps(facts)})
        place = PLACES[self._turn % 2]
        self._store.put(f"{self._at}/{place}", hashlib.sha256(body).digest() + body)
        self._turn += 1

    def load(self) -> State | None:
        """Return the newest checkpoint that is whole, None if there is none."""
        found = {place: self._read(place) for place in PLACES}
        whole = {place: state for place, state in found.items() if state is not None}
        if not whole:
            return None
        newest = max(whole, key=lambda place: whole[place].step)
        self._turn = PLACES.index(newest) + 1
        return whole[newest]

    def _read(self, place: str) -> State | None:
        from safetensors.torch import load

        try:
            data = self._store.get(f"{self._at}/{place}")
        except ObjectMissing:
            return None
        digest, body = data[:32], data[32:]
        if hashlib.sha256(body).digest() != digest:
            return None
        length = int.from_bytes(body[:8], "little")
        facts = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["state"])
        return State(facts["step"], facts["facts"], load(body))

    def clear(self) -> None:
        """Empty them: the training is done and its result is kept."""
        for place in PLACES:
            if self._store.exists(f"{self._at}/{place}"):
                self._store.put(f"{self._at}/{place}", b"")
