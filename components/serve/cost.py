"""Writes down what answers cost, in the background; see ``components.serving_costs``."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from components.request_log import new_file
from components.serve.metrics import Metrics
from components.serving_costs import ServingCosts, Spent

log = logging.getLogger(__name__)

KEEP_S = 30.0
"""Between writes; a server that is killed forgets the costs of so long."""


class CostKeeper:
    """Keeps what the metrics add up; of one event loop."""

    def __init__(self, costs: ServingCosts, metrics: Metrics) -> None:
        """Keep in ``costs`` under a name of its own; nothing is written before ``run``."""
        self._costs, self._metrics = costs, metrics
        self._process = new_file(datetime.now(UTC))
        self._kept: dict[str, Spent] = {}
        self._failed = False

    async def run(self) -> None:
        """Write what is new now and then, until cancelled."""
        while True:
            await asyncio.sleep(KEEP_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what is new; while the store is away, it is tried again the next time."""
        spent = self._metrics.spent
        if spent == self._kept:
            return
        try:
            await asyncio.to_thread(self._costs.keep, self._process, spent)
        # Not only the store's: whatever goes wrong here must not end the server.
        except Exception as error:
            if not self._failed:
                log.warning("costs cannot be kept: %s", error)
            self._failed = True
        else:
            self._kept, self._failed = spent, False
