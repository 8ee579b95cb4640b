"""One of several processes to which the same drift event is delivered many times."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from components.store import open_store
from components.trigger.core import Finding, TriggerConfig, decide


def main(place: str, ledger: str, go: str, worker: str, deliveries: str) -> None:
    store = open_store(place)
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.005)

    def deliver(number: int) -> str:
        decision = decide(
            Finding(moved=True, moved_features=3),
            champion="c" * 64,
            window="2026-01-12",
            run=f"run-{worker}-{number}",
            now=datetime(2026, 1, 12, 12, tzinfo=UTC),
            request="",
            store=store,
            ledger=ledger,
            config=TriggerConfig(),
            probe=lambda policy: (None, "", ""),
        )
        return json.dumps(
            {"run": decision.run, "retrain": decision.retrain, "event": decision.event}
        )

    with ThreadPoolExecutor(4) as pool:
        print(*pool.map(deliver, range(int(deliveries))), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
