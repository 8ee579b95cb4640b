"""Be a pod of a ``TrainJob``: ``python -m components.finetune.pod ADDRESS KEY``.

It fetches the order, starts torchrun for its GPUs, and the first pod leaves report and
bundle in the storage; see ``trainjob``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from components import bundle
from components.errors import Evicted, TokiwaError
from components.finetune import launch
from components.finetune.history import Silent
from components.finetune.job_order import JobOrder, is_in_image
from components.store import Store, open_store


def main(address: str, key: str, secret: Path | None) -> int:
    """Be a pod of the job: train with the others, and leave what came of it.

    Args:
        address: of the storage.
        key: of the order, without ``/order.json``.
        secret: folder whose files become environment variables.

    Returns:
        The exit code; what went wrong is told in the last line.
    """
    signal.signal(signal.SIGTERM, _evicted)  # the first process of a container ignores it
    first = int(os.environ.get("PET_NODE_RANK", "0")) == 0
    for file in sorted(secret.iterdir()) if secret is not None else []:
        if file.is_file():
            os.environ[file.name] = file.read_text().strip()
    try:
        with tempfile.TemporaryDirectory() as place:
            store = open_store(address)
            order = _fetched(store, address, key, Path(place))
            watcher = launch.Telling() if first else Silent()
            count = launch.processes_of(order.config)
            report = launch.together(order, watcher, count, alone=False)
            if report is not None:
                bundle.publish(store, order.folder)
                store.put(f"{key}/report.json", report.to_json().encode())
    except TokiwaError as error:
        launch.tell("failed", str(error), error.exit_code)
        return error.exit_code
    return 0


def _evicted(*_: object) -> None:
    raise Evicted("the pod was told to stop")


def _fetched(store: Store, address: str, key: str, place: Path) -> launch.Order:
    """Fetch what an order needs; return it as one of this machine."""
    travelled = JobOrder.from_json(store.get(f"{key}/order.json").decode())
    store.download_directory(f"{key}/prepared", place / "prepared")
    start = travelled.start
    if not is_in_image(start):
        store.download_directory(f"{key}/base", place / "base")
        base = start.base.model_copy(update={"place": str(place / "base")})
        start = start.model_copy(update={"base": base})
    return launch.Order(
        prepared=place / "prepared",
        start=start,
        champion=bundle.fetch_champion(store, travelled.champion),
        folder=place / "bundle",
        task=travelled.task,
        config=travelled.config,
        lineage=travelled.lineage,
        store=address,
        training=travelled.training,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A pod of a TrainJob that fine-tunes.")
    parser.add_argument("address", help="of the storage")
    parser.add_argument("key", help="of the order in the storage")
    parser.add_argument("--secret", type=Path, help="folder: its files become variables")
    given = parser.parse_args()
    sys.exit(main(given.address, given.key, given.secret))
