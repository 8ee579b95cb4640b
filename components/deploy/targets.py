"""Where models are served, and how a challenger gets its chance there.

``local``: servers that follow the ledger and the rollout record; they move the record on,
for they see the requests. ``kserve``: an InferenceService, which the deploy step changes and
watches until the rollout has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from components.deploy.config import DeployConfig
from components.deploy.kserve import KServe
from components.freeze import Freezes
from components.ledger import Ledger
from components.rollout.record import Rollouts, Transition


@dataclass(frozen=True)
class Site:
    """What a target may need.

    Attributes:
        project: name of the project, and of its service.
        ledger: of the project.
        freezes: of the same ledger.
        rollouts: the record beside it.
        config: the section ``deploy``.
    """

    project: str
    ledger: Ledger
    freezes: Freezes
    rollouts: Rollouts
    config: DeployConfig


class Target(Protocol):
    """A place where models are served."""

    def is_serving(self) -> bool:
        """Whether a champion answers here, beside whom a challenger can be tried."""

    def follow(self, live: Transition) -> Transition:
        """Do what a rollout asks of the deploy step, and return where it stands then.

        To be called again after a failure, with the last transition: it carries on.

        Raises:
            BackendError: the place cannot be reached, or cannot do what is asked.
        """

    def settle(self) -> None:
        """See to it that the ledger's champion is served, and no challenger besides.

        Raises:
            BackendError: see ``follow``.
        """


class Local:
    """Servers that follow the store; nothing is pushed to them."""

    def __init__(self, site: Site) -> None:
        """Name the site."""
        self._site = site

    def is_serving(self) -> bool:
        """Tell whether a server has given a sign of life."""
        return bool(self._site.rollouts.servers(datetime.now(UTC)))

    def follow(self, live: Transition) -> Transition:
        """Return the rollout as it stands: the servers move it on."""
        return live

    def settle(self) -> None:
        """Do nothing: the servers follow the ledger."""


def kserve(site: Site) -> Target:
    """Return the InferenceService of a site."""
    return KServe(site.project, site.ledger, site.freezes, site.rollouts, site.config.kserve)


TARGETS: dict[str, Callable[[Site], Target]] = {"local": Local, "kserve": kserve}
"""``deploy.target`` to what makes it. To add one: a file here and a line."""
