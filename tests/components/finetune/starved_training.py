"""Train with little memory left: ``python starved_training.py BASE MEGABYTES``.

The limit is on the address space of this process, so that torch's own allocator fails
as it does on a machine that is full. Prints the accumulation in the end, or the error.
"""

import resource
import sys
from pathlib import Path

import numpy as np
import torch

from components.errors import TokiwaError
from components.finetune.batches import Examples
from components.finetune.config import FinetuneConfig
from components.finetune.job import Job
from components.finetune.methods import METHODS
from components.tasks.text_classification import TextClassification, TextClassifier


def main() -> None:
    torch.set_num_threads(1)
    task = TextClassification(labels=("negative", "positive"), max_tokens=32)

    def fresh() -> TextClassifier:
        return TextClassifier.from_base(Path(sys.argv[1]), task, dropout=0.0)

    model = fresh()
    rows = 16384
    examples = [np.full(32, 4, dtype=np.int64)] * rows
    train = Examples([""] * rows, examples, np.arange(rows) % 2)
    valid = train.where(np.arange(rows) < 8)
    config = FinetuneConfig(epochs=1, batch_rows=rows, precision="float32", device="cpu", threads=1)
    METHODS["full"](Job(model, valid, valid, config, fresh))  # all libraries are loaded
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = held + int(sys.argv[2]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        print(
            "parts", METHODS["full"](Job(model, train, valid, config, fresh)).history.accumulation
        )
    except TokiwaError as error:
        print("error", error)


if __name__ == "__main__":
    main()
