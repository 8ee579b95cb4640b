"""Which attempt at a step this is, and what an earlier one learnt about trying again.

Kubeflow Pipelines starts the pod of a failed step again without knowing why it failed: its
launcher ends with 1 whatever the step ended with. So a step that ends by a mistake, of its user
or of its own, leaves a note in the store, and the next attempt in the same run ends at once with
the same words. An eviction, a kill, a lost machine and a world that is not as it should be leave
none and are tried again.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass

from components import home
from components.errors import StoreError, UserError
from components.settings import digest_of
from components.store import ObjectMissing

NODE = "TOKIWA_NODE"
"""Variable with Argo's name of the pod's node, such as ``run.root.finetune.executor(1)``: the
numbers in brackets say which attempt it is, of a step or of the loop around it."""
MISTAKES = (
    UserError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
)
"""What the same step with the same inputs ends by again. Whatever else ends a step may be the
world's: OSError, MemoryError, and RuntimeError, which is also a GPU's."""
_NUMBER = re.compile(r"\((\d+)\)")


@dataclass(frozen=True)
class Note:
    """How an attempt ended that no other can better."""

    error: str
    exit_code: int


@dataclass(frozen=True)
class Attempt:
    """One attempt at a step of a run.

    Attributes:
        number: 0 for the first.
        key: of the note in the store, the same for all attempts.
    """

    number: int
    key: str

    @classmethod
    def current(cls, run: str) -> Attempt | None:
        """Return the attempt that this process is; None where nothing is tried again.

        Args:
            run: id of the run.
        """
        node = os.environ.get(NODE, "")
        numbers = [int(number) for number in _NUMBER.findall(node)]
        if not run or not numbers:
            return None
        task = digest_of(_NUMBER.sub("", node))[:16]
        return cls(max(numbers), f"attempts/{run}/{task}.json")

    def before(self) -> Note | None:
        """Return what an earlier attempt noted; None if another one may help.

        The first attempt forgets: somebody has mended the cause and retried the run.
        """
        try:
            noted = json.loads(home.store().get(self.key))
            if noted and not self.number:
                home.store().put(self.key, b"{}")
        except ObjectMissing:
            return None
        except (StoreError, ValueError):
            return None  # at worst the step fails once more
        return Note(noted["error"], noted["exit_code"]) if noted and self.number else None

    def note(self, error: BaseException, said: str, exit_code: int) -> None:
        """Leave a note if the error is a mistake."""
        if not isinstance(error, MISTAKES):
            return
        noted = {"error": said, "exit_code": exit_code}
        try:
            home.store().put(self.key, json.dumps(noted, sort_keys=True).encode())
        except StoreError:
            return  # at worst the step fails once more
