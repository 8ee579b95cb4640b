"""How much memory a process takes that answers with a model.

It is asked of a process of its own, for this one holds both models and all rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from components import bundle
from components.errors import BundleError
from components.tasks import TASKS

_TIMEOUT_S = 300


def peak_bytes(folder: Path, contents: Sequence[str]) -> int:
    """Return the peak memory of a process that loads a bundle and answers some contents.

    Args:
        folder: the bundle.
        contents: to answer, in one batch.

    Raises:
        BundleError: the process fails.
    """
    # As a module, so that nothing of what this process has loaded is there.
    command = [sys.executable, "-m", "components.evaluate.memory", str(folder)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(list(contents)),
            capture_output=True,
            text=True,
            check=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BundleError(f"the memory of {folder} could not be measured: {error}") from error
    return int(done.stdout.split()[-1])


def main() -> None:
    """Answer the contents on standard input with a bundle; print the peak memory in bytes."""
    import resource  # of Unix

    folder = Path(sys.argv[1])
    contents = json.loads(sys.stdin.read())
    TASKS[bundle.describe(folder).task.kind].load(folder).predict(contents)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    print(peak * (1 if sys.platform == "darwin" else 1024))


if __name__ == "__main__":
    main()
