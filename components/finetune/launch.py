"""Start as many processes as a training wants on this machine, and fine-tune in them.

They are started by torchrun, a process for each GPU; ``python -m components.finetune.launch
ORDER.json RESULT.json`` is one of them. They leave no process behind: each ends when the one
that started them is gone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from components.errors import ConfigError, Evicted, TokiwaError, UserError, WorldError
from components.finetune import core
from components.finetune.checkpoint import Checkpoints
from components.finetune.config import FinetuneConfig
from components.finetune.history import Silent, Watcher
from components.finetune.report import FinetuneReport
from components.settings import Section, digest_of
from components.store import open_store
from components.tasks import TaskConfig

LAST_LINES = 40
"""Lines of a training's output that are searched for the reason of its end."""


class Order(Section):
    """A training as a file tells it to its processes; see ``core.finetune``."""

    prepared: Path
    start: core.Start
    champion: Path | None
    folder: Path
    task: TaskConfig
    config: FinetuneConfig
    lineage: dict[str, str]
    store: str
    """Address of the store that keeps checkpoints."""
    training: str = Field(default_factory=lambda told: _digest(told))
    """What the training is made from, as a digest: names its checkpoints."""

    def checkpoints(self, name: str) -> Checkpoints:
        """Return the place for the state of one of the order's trainings."""
        return Checkpoints(open_store(self.store), f"{self.training}/{name}")

    def clear(self) -> None:
        """Empty the checkpoints: the bundle is there."""
        for name in ("main", "teacher"):
            self.checkpoints(name).clear()


def _digest(told: dict[str, Any]) -> str:
    task, config = (told[name].model_dump(mode="json") for name in ("task", "config"))
    start = told["start"]
    return digest_of([told["lineage"], start.name, start.base.digest, task, config])


def processes_of(config: FinetuneConfig) -> int:
    """Return how many processes train here: one for each GPU unless the project says otherwise.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    if config.device == "cpu":
        return 1 if config.processes == "auto" else config.processes
    import torch

    gpus = torch.cuda.device_count()
    if config.processes == "auto":
        return max(1, gpus)
    if config.processes > gpus and (gpus or config.device == "cuda"):
        raise ConfigError(
            f"finetune.processes is {config.processes}, but torch sees {gpus} GPUs here; "
            "set it to auto, or finetune.device to cpu"
        )
    return config.processes


def together(
    order: Order, watcher: Watcher, count: int, *, alone: bool = True
) -> FinetuneReport | None:
    """Run torchrun, pass on what its first process says, and end with its end.

    Args:
        order: what to do.
        watcher: told what the first process tells.
        count: processes on this machine.
        alone: no other machine takes part. Otherwise torchrun finds the others by its
            variables ``PET_NNODES``, ``PET_NODE_RANK``, ``PET_MASTER_ADDR`` and
            ``PET_MASTER_PORT``.

    Returns:
        The report, None where the first process is on another machine.

    Raises:
        TokiwaError: what one of the processes raised first.
        Evicted: SIGTERM came.
        WorldError: a process ended in another way.
    """
    with tempfile.TemporaryDirectory() as place:
        told, result = Path(place) / "order.json", Path(place) / "result.json"
        told.write_text(order.to_json(), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run"]
        command += ["--standalone"] if alone else []
        command += ["--nproc-per-node", str(count), "-m", "components.finetune.launch"]
        last: deque[str] = deque(maxlen=LAST_LINES)
        with (
            subprocess.Popen(
                [*command, str(told), str(result)],
                stdin=subprocess.PIPE,  # closed by our end, whichever it is
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env=_environment(alone),
            ) as torchrun,
            _passing_on_sigterm(torchrun) as told_to_stop,
        ):
            assert torchrun.stdout is not None
            for line in torchrun.stdout:
                last.append(line)
                if not result.exists():  # what comes after it is torchrun's farewell
                    pass_on(line, watcher)
        if result.exists():
            return _result(json.loads(result.read_text(encoding="utf-8")))
        if told_to_stop.is_set():
            raise Evicted("training was told to stop before its first step")
        if torchrun.returncode == 0 and not alone:
            return None
        raise WorldError(_unexplained(count, torchrun.returncode, "".join(last)))


def _environment(alone: bool) -> dict[str, str]:
    """Return the environment of torchrun; processes of one machine talk on loopback only."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if alone:
        loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
        environment |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    return environment


def _result(said: dict[str, Any]) -> FinetuneReport:
    if "report" in said:
        return FinetuneReport.model_validate(said["report"])
    raise error_of(said["error"], said["exit_code"])


def error_of(message: str, exit_code: int) -> TokiwaError:
    """Return the error that another process ended with."""
    kinds: dict[int, type[TokiwaError]] = {Evicted.exit_code: Evicted, 2: UserError}
    return kinds.get(exit_code, WorldError)(message)


def _unexplained(count: int, code: int, output: str) -> str:
    """Say what is known of processes that ended without a word."""
    ends = re.findall(r"rank\s*:\s*(\d+) .*\n\s*exitcode\s*:\s*(-?\d+) ", output)
    if not ends:
        return f"the {count} processes of the training ended with code {code}; see the log"
    # One that was killed takes the others with it, and torchrun ends those by SIGTERM.
    rank, status = min(
        ((int(rank), int(status)) for rank, status in ends),
        key=lambda end: (end[1] == -signal.SIGTERM, end[1]),
    )
    if status < 0:
        killed = f"process {rank} of the training was killed by {signal.Signals(-status).name}"
        memory = "; if memory ran out, lower finetune.batch_rows or finetune.processes"
        return killed + (memory if status == -signal.SIGKILL else "")
    return f"process {rank} of the training ended with code {status}; see the log"


def heard(line: str) -> tuple[str, list[Any]] | None:
    """Return what ``tell`` said in a line, None for a line of another kind."""
    try:
        said = json.loads(line)
        return said["tell"], said["with"]
    except (ValueError, KeyError, TypeError):
        return None


def pass_on(line: str, watcher: Watcher) -> None:
    """Give a watcher what a line tells it, and print a line that tells nothing."""
    said = heard(line)
    if said is None:
        print(line.rstrip("\n"), flush=True)
    elif said[0] in ("metrics", "progress"):
        getattr(watcher, said[0])(*said[1])


@contextmanager
def _passing_on_sigterm(process: subprocess.Popen[str]) -> Iterator[threading.Event]:
    """Send SIGTERM on to a process while a block runs; yield an event that it sets."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told  # signals reach the main thread only
        return

    def pass_on(number: int, _: object) -> None:
        told.set()
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


class Telling:
    """A watcher that tells the parent process, a line of JSON at a time."""

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Tell metrics at an optimizer step."""
        tell("metrics", values, step)

    def progress(self, done: int, total: int, what: str) -> None:
        """Tell how far training is."""
        tell("progress", done, total, what)


def tell(name: str, *arguments: object) -> None:
    """Print a line that ``heard`` understands."""
    # In one piece: the processes share a pipe, which keeps short writes together.
    sys.stdout.write(json.dumps({"tell": name, "with": arguments}) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, and its end of the pipe with it.

    Nobody waits for the result any more; the next start goes on from the last checkpoint.
    """

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(Evicted.exit_code)

    threading.Thread(target=wait, daemon=True).start()


def _say(result: Path, said: dict[str, Any]) -> None:
    """Write the result, whole, unless another process has said what went wrong first."""
    draft = result.with_name(f"{result.name}.{os.getpid()}")
    draft.write_text(json.dumps(said), encoding="utf-8")
    with suppress(FileExistsError):
        os.link(draft, result)


def main(told: Path, result: Path) -> int:
    """Be one of the processes; the first writes the bundle, and any the first error."""
    import torch
    from torch import distributed

    _end_with_parent()
    order = Order.from_json(told.read_text(encoding="utf-8"))
    gpu = order.config.device != "cpu" and torch.cuda.is_available()
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        distributed.init_process_group("nccl" if gpu else "gloo")
        first = distributed.get_rank() == 0
        trained = core.train(
            order.prepared,
            order.start,
            order.champion,
            order.task,
            order.config.model_copy(update={"threads": max(1, order.config.threads // here)}),
            Telling() if first else Silent(),
            order.checkpoints,
        )
        if first:
            report = core.write(
                trained, order.prepared, order.folder, order.task, order.config, order.lineage
            )
            _say(result, {"report": report.model_dump(mode="json")})
    except TokiwaError as error:
        # The group is left as it is: others may still wait in it, and end with torchrun.
        _say(result, {"error": str(error), "exit_code": error.exit_code})
        return error.exit_code
    distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
