"""Be a worker of a search: ``python searching_worker.py STORE BASE PREPARED CONFIG NUMBER``.

CONFIG is the file of the section ``finetune``. Ends as a step would, and prints how
many trials it trained.
"""

import sys
from pathlib import Path

from components.errors import TokiwaError
from components.finetune.config import FinetuneConfig
from components.plan import Base
from components.search.core import name_of, search
from components.store import LocalStore
from components.studies import Studies
from components.tasks.text_classification import TextClassification

TASK = TextClassification(labels=("negative", "positive"), max_tokens=16)


class Silent:
    def progress(self, done, total, what):
        pass

    def line(self, event, **fields):
        pass


def main() -> int:
    store, base, prepared, told = map(Path, sys.argv[1:5])
    config = FinetuneConfig.from_json(told.read_text())
    name = name_of("d" * 64, "", "", "", TASK, config)
    studies = Studies(LocalStore(store))
    try:
        bases = [Base(place=str(base))]
        report = search(prepared, bases, None, TASK, config, studies, name, sys.argv[5], Silent())
    except TokiwaError as error:
        return error.exit_code
    print(report.trained)
    return 0


if __name__ == "__main__":
    sys.exit(main())
