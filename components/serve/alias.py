"""MLflow's alias ``champion`` follows the champion that a server promotes.

The ledger decides; the alias is for people who look at MLflow. It is set by a process of its
own, for MLflow's client takes much memory and, while MLflow is away, minutes. Nothing waits for
it: what fails is tried again, and meanwhile all goes on.

``python -m components.serve.alias`` is that process; ``AliasKeeper`` is the server's end.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from components import home
from components.errors import TokiwaError
from components.ledger import Ledger
from components.serve.follow import Served
from components.store import open_store

log = logging.getLogger(__name__)

LOOK_S = 1.0
FIRST_REST_S, LONGEST_REST_S = 10.0, 600.0
"""Between attempts while MLflow is away."""
GIVE_UP_S = 60.0
"""After so long an attempt is broken off."""


def command_of(store_url: str, prefix: str, project: str) -> list[str]:
    """Return the command of the process that sets the alias of a project to its champion."""
    what = ["--store", store_url, "--prefix", prefix, "--project", project]
    return [sys.executable, "-m", "components.serve.alias", *what]


class AliasKeeper:
    """Sets the alias whenever the champion has changed under the server."""

    def __init__(self, served: Callable[[], Served | None], command: Sequence[str]) -> None:
        """Name what to look at; nothing is started yet.

        Args:
            served: returns the champion that answers now.
            command: sets the alias, and ends with 0 if it could.
        """
        self._served, self._command = served, list(command)
        self._stop = threading.Event()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow in the background for as long as the context is open."""
        # A daemon: the end of the server waits for no MLflow.
        threading.Thread(target=self._follow, name="follow-alias", daemon=True).start()
        try:
            yield
        finally:
            self._stop.set()

    def _follow(self) -> None:
        known, rest_s = 0, 0.0
        while not self._stop.wait(rest_s or LOOK_S):
            served = self._served()
            if served is None or not served.entry.version:
                continue
            number = served.entry.number
            # The first was champion before: whoever made it so has set the alias.
            if known in (0, number):
                known, rest_s = number, 0.0
                continue
            trouble = self._set()
            if not trouble:
                known, rest_s = number, 0.0
                continue
            if not rest_s:
                log.warning("MLflow's alias cannot follow yet: %s", trouble)
            rest_s = min(rest_s * 2, LONGEST_REST_S) if rest_s else FIRST_REST_S

    def _set(self) -> str:
        """Set the alias; return why it could not be, empty if it was."""
        try:
            done = subprocess.run(
                self._command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=GIVE_UP_S,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {GIVE_UP_S:g} seconds"
        except OSError as error:
            return str(error)
        said = done.stderr.strip().splitlines()
        return (said[-1] if said else f"exit code {done.returncode}") if done.returncode else ""


def main() -> int:
    """Set the alias to the champion of a ledger; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m components.serve.alias")
    for name in ("--store", "--prefix", "--project"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    try:
        head = Ledger(open_store(given.store), given.prefix).head()
        if head is not None and head.version:
            home.registry(given.project).mirror(head.version)
    except TokiwaError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
