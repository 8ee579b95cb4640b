"""Train in children that are killed at given steps, until one comes through.

``python killed_training.py BASE PREPARED PLACE METHOD INTERVAL STEP,STEP,...``: every
child is forked from a process that has imported everything and computed nothing, so
that a death costs no imports. Prints the steps that each child took as JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import transformers

from components.finetune.checkpoint import Checkpoints
from components.finetune.config import AugmentConfig, FinetuneConfig
from components.finetune.core import finetune
from components.finetune.start import Start
from components.plan import Base
from components.store import LocalStore
from components.tasks.text_classification import TextClassification

PRELOADED = (transformers.AutoModel, transformers.AutoTokenizer)
"""They are imported when they are named; every child would pay for that anew."""


class Deadly:
    """Kills its own process when a step is done, and writes down every step."""

    def __init__(self, log: Path, last_step: int | None, *, taught: bool) -> None:
        self.log, self.last_step, self.taught = log, last_step, taught

    def metrics(self, values, step):
        pass

    def progress(self, done, total, what):
        if not what.removeprefix("teacher: ").startswith("loss"):
            return
        if self.taught and what.startswith("loss"):
            done += total  # the steps of a student are counted on from those of its teacher
        with self.log.open("a") as file:
            file.write(f"{done}\n")
        if done == self.last_step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(base: Path, prepared: Path, place: Path, method: str, interval: int, watcher) -> None:
    store = LocalStore(place / "store")
    config = FinetuneConfig(
        method=method,
        epochs=3,
        head_epochs=3,
        batch_rows=16,
        checkpoint_steps=interval,
        learning_rate=1e-3,
        threads=1,
        precision="float32",
        device="cpu",
        mixup=0.2 if method == "full" else 0.0,
        augment=AugmentConfig(word_dropout=0.1) if method == "full" else AugmentConfig(),
        patience_epochs=9,
    )
    finetune(
        prepared,
        Start(name="base", base=Base(place=str(base)), reason=""),
        None,
        place / "bundle",
        TextClassification(labels=("negative", "positive"), max_tokens=32),
        config,
        {},
        watcher,
        lambda name: Checkpoints(store, f"training/{name}"),
    )


def main() -> None:
    base, prepared, place = map(Path, sys.argv[1:4])
    method, interval = sys.argv[4], int(sys.argv[5])
    deaths: list[int | None] = [int(step) for step in sys.argv[6].split(",") if step]
    taken = []
    for number, last in enumerate([*deaths, None]):
        log = place / f"steps-{number}"
        log.touch()
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            train(
                base,
                prepared,
                place,
                method,
                interval,
                Deadly(log, last, taught=method == "distill"),
            )
            os._exit(0)
        _, status = os.waitpid(child, 0)
        expected = signal.SIGKILL if last is not None else 0
        if (os.WTERMSIG(status) if os.WIFSIGNALED(status) else status) != expected:
            raise SystemExit(f"child {number} ended with {status}")
        taken.append([int(step) for step in log.read_text().split()])
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
