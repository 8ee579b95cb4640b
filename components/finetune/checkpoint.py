"""The state of a training, kept so that an interrupted one goes on where it was.

A checkpoint is two objects in the store: safetensors with everything that the next step
depends on (weights, optimizer, random states, position in the data), and then a record with
their sha256, without which they count for nothing. Two places take turns, so that the last
good one is there whatever happens while the next is written.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from components.errors import StoreError
from components.settings import Section
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


class Record(Section):
    """What is known of the tensors of a place, written when they are there."""

    number: int
    """Counts the checkpoints of a training."""
    sha256: str
    step: int
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training, found again by what it is made from."""

    def __init__(self, store: Store, key: str) -> None:
        """Keep them at ``checkpoints/{key}/``; equal keys must mean equal trainings."""
        self._store = store
        self._at = f"checkpoints/{key}"
        self._number = 0

    def save(self, state: State) -> None:
        """Write a checkpoint over the older of the two."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        place = PLACES[self._number % 2]
        with tempfile.TemporaryDirectory() as folder:
            # Through a file, as S3 takes no more than 5 GiB in one piece.
            file = Path(folder) / "state"
            try:
                save_file({name: each.contiguous() for name, each in state.tensors.items()}, file)
            except (OSError, SafetensorError) as error:
                raise StoreError(
                    f"cannot write a checkpoint to {folder}: {error}; point TMPDIR to a larger disk"
                ) from error
            digest = _sha256(file)
            self._store.upload(self._tensors(place), file)
        record = Record(number=self._number, sha256=digest, step=state.step, facts=state.facts)
        self._store.put(self._record(place), record.to_json().encode())
        self._number += 1

    def load(self) -> State | None:
        """Return the newest checkpoint that is whole, None if there is none."""
        from safetensors.torch import load_file

        records = [(place, self._recorded(place)) for place in PLACES]
        known = [(place, record) for place, record in records if record is not None]
        for place, record in sorted(known, key=lambda each: -each[1].number):
            with self._file(place) as file:
                if file is not None and _sha256(file) == record.sha256:
                    self._number = record.number + 1
                    return State(record.step, record.facts, load_file(file))
        return None

    def _recorded(self, place: str) -> Record | None:
        try:
            return Record.from_json(self._store.get(self._record(place)).decode())
        except (ObjectMissing, ValidationError):  # never written, or emptied
            return None

    @contextmanager
    def _file(self, place: str) -> Iterator[Path | None]:
        """Give the file of a place, None if there is none."""
        key = self._tensors(place)
        if (local := self._store.local_path(key)) is not None:
            yield local if local.is_file() else None
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "state"
            try:
                self._store.download(key, file)
            except ObjectMissing:
                yield None
            else:
                yield file

    def clear(self) -> None:
        """Empty them: the training is done and its result is kept."""
        for place in PLACES:
            for key in (self._record(place), self._tensors(place)):
                if self._store.exists(key):
                    self._store.put(key, b"")

    def _tensors(self, place: str) -> str:
        return f"{self._at}/{place}.safetensors"

    def _record(self, place: str) -> str:
        return f"{self._at}/{place}.json"


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
