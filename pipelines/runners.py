"""Run a compiled graph on this machine, and watch it.

The graph is compiled to IR YAML and that file is what kfp executes: nothing about the
local run is a second code path.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from components import home, images
from components.errors import ConfigError, StepFailed, TokiwaError, UserError
from components.ledger import Events
from components.notify import core as notify
from components.records import Records
from pipelines.project import ProjectConfig

if TYPE_CHECKING:
    from pipelines.placement import Placement

GRAPHS = ("training", "monitoring")
"""What a project runs on a cluster."""

State = Literal["running", "done", "cached", "failed"]
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_EXECUTING = re.compile(r"Executing task '([^']+)'")
_FINISHED = re.compile(r"Task '([^']+)' finished with status (\w+)")
_CACHED = re.compile(r"Task (\S+) cache hit \(key=(\w+)\)")
_GRACE_S = 10.0
_DEFAULTS = {
    "PYTHONUTF8": "1",
    # Models come from packages and the store: nothing may ask a hub.
    "HF_HUB_OFFLINE": "1",
    # Threads that spin for long while they wait make a busy laptop several times slower.
    "GOMP_SPINCOUNT": "1000",
}


@dataclass
class Step:
    """What is known of one step of a run.

    Attributes:
        name: the step.
        state: how it stands.
        seconds: how long it ran, or has been running.
        headline: the one thing to see.
        progress: what it is doing, while it runs.
        report: its report as JSON, once it has one.
        log: file with everything it printed, one JSON object a line.
        error: what it said when it failed.
        exit_code: 2 for the user's mistakes, 1 for the world's, when it failed.
        running: how many tasks of this name run, in a loop.
        trials: of a search, by number, as ``components.studies.Trial`` with the metric.
    """

    name: str
    state: State
    started_s: float
    log: Path
    seconds: float = 0.0
    headline: str = ""
    progress: str = ""
    report: Path | None = None
    error: str = ""
    exit_code: int = 1
    running: int = 0
    trials: dict[int, dict[str, Any]] = field(default_factory=dict)

    def artifact(self, name: str) -> Path:
        """Return the path of another output of this step."""
        assert self.report is not None, f"{self.name} left no report"
        return self.report.parent / name

    def content(self) -> dict[str, Any]:
        """Return the report."""
        assert self.report is not None, f"{self.name} left no report"
        content: dict[str, Any] = json.loads(self.report.read_text())
        return content


@dataclass
class Run:
    """One run of a graph and its steps in the order in which they came up."""

    id: str
    graph: str
    folder: Path
    steps: dict[str, Step] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failed(self) -> list[Step]:
        """The steps that failed."""
        return [step for step in self.steps.values() if step.state == "failed"]

    @property
    def outcome(self) -> dict[str, Any]:
        """What ``notify`` concluded."""
        notified = self.steps.get("notify")
        if notified is None or notified.state != "done":
            raise StepFailed(f"run {self.id} ended without an outcome; see {self.folder}")
        return notified.content()


Watch = Callable[[Run, Step | None, str], None]
"""Told of every line: the run, the step it belongs to, and the raw line."""


class Interrupted(BaseException):
    """The user or the system asked to stop."""


_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise ``Interrupted`` while the block runs; main thread only."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def new_run_id(now: datetime | None = None) -> str:
    """Return an id that sorts by time."""
    moment = now or datetime.now(UTC)
    return f"{moment:%Y%m%dt%H%M%S}-{secrets.token_hex(3)}"


def run_local(
    graph: str,
    arguments: Mapping[str, object],
    *,
    run: str,
    home: Path,
    workers: int = 0,
    partitions: int = 1,
    caching: bool = True,
    watch: Watch,
) -> Run:
    """Compile a graph, execute it with kfp on this machine, and return the run.

    Args:
        graph: ``training``, ``monitoring``, ``tuning`` or ``scoring``.
        arguments: of the graph.
        run: id of the run.
        home: folder for logs, artifacts and cache.
        workers: of the project's search, see ``workers_of``.
        partitions: of a window that is watched, see ``monitoring_of``.
        caching: whether steps may be answered from the cache.
        watch: told of everything as it happens.

    Raises:
        StepFailed: a step failed, and the run left no outcome either.
        Interrupted: Ctrl-C or SIGTERM; all processes of the run are stopped.
    """
    folder = home / "runs" / run
    folder.mkdir(parents=True)
    job = folder / "job.json"
    job.write_text(
        json.dumps(
            {
                "graph": str(compiled(graph, folder, workers, partitions)),
                "arguments": dict(arguments),
                "pipeline_root": str(home / "artifacts"),
                "cache_root": str(home / "cache"),
                "caching": caching,
            }
        )
    )
    result = Run(run, graph, folder)
    started_s = time.monotonic()
    with _worker(job, run) as process:
        assert process.stdout is not None
        reader = _Reader(result, home / "cache", watch)
        for line in process.stdout:
            reader.take(line)
        process.wait()
    result.seconds = time.monotonic() - started_s
    if process.returncode != 0 and not result.failed:
        raise StepFailed(f"run {run} broke off: {reader.last_words}; see {folder}")
    return result


def compiled(graph: str, folder: Path, workers: int = 0, partitions: int = 1) -> Path:
    """Compile a graph to IR YAML in ``folder`` and return the file."""
    from kfp import compiler

    path = folder / f"{graph}.yaml"
    compiler.Compiler().compile(graph_of(graph, workers, partitions), str(path))
    return path


def packages_of(project: ProjectConfig, folder: Path) -> dict[str, Path]:
    """Compile the graphs for a cluster, a project's settings as their defaults.

    Returns:
        The files of IR YAML by graph.

    Raises:
        ConfigError: the environment names images that cannot be.
    """
    from kfp import compiler

    from pipelines.placement import Placement

    if wrong := images.malformed():
        raise ConfigError(wrong)
    workers, partitions = workers_of(project), project.collect.partitions
    if not project.cluster.fan_out:
        workers, partitions = min(workers, 1), 1
    files = {}
    for name in (*GRAPHS, "scoring"):
        placement = Placement(project.name, name, project.cluster)
        graph = graph_of(name, workers, partitions, placement)
        parameters = graph.pipeline_spec.root.input_definitions.parameters
        path = folder / f"{project.name}-{name}.yaml"
        compiler.Compiler().compile(
            graph,
            str(path),
            pipeline_name=f"{project.name}-{name}",
            pipeline_parameters=project.arguments(parameters),
        )
        files[name] = path
    return files


def graph_of(
    name: str, workers: int = 0, partitions: int = 1, placement: Placement | None = None
) -> Any:
    """Return the pipeline called ``name``.

    Args:
        name: of the graph.
        workers: of the project's search, see ``workers_of``.
        partitions: of a window that is watched, see ``monitoring_of``.
        placement: of its steps; None is here.
    """
    if name == "training":
        from pipelines.training import training_of

        return training_of(workers, placement)
    if name == "scoring":
        from pipelines.scoring import scoring_of

        return scoring_of(placement)
    if name == "tuning":
        from pipelines.tuning import tuning_of

        return tuning_of(workers)
    from pipelines.monitoring import monitoring_of

    return monitoring_of(workers, partitions, placement)


def workers_of(project: ProjectConfig) -> int:
    """Return how many workers a project's search has; 0 is without search."""
    search = project.finetune.search
    return min(search.parallel, search.trials) if search else 0


@contextmanager
def _worker(job: Path, run: str) -> Iterator[subprocess.Popen[str]]:
    """Start the worker in a process group of its own; leave no process behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.worker", str(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**_DEFAULTS, **os.environ, "TOKIWA_RUN": run},
    )

    with interruptible():
        try:
            yield process
        finally:
            for number in _STOPS:
                # A second Ctrl-C must not stop the stopping.
                signal.signal(number, signal.SIG_IGN)
            _end_group(process)


def _end_group(process: subprocess.Popen[str]) -> None:
    """Stop every process of the worker's group, gently first."""
    for number, patience_s in ((signal.SIGTERM, _GRACE_S), (signal.SIGKILL, _GRACE_S)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except (ProcessLookupError, PermissionError):
                break
            time.sleep(0.02)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


class _Reader:
    """Makes events of the lines that kfp and the steps print."""

    def __init__(self, run: Run, cache: Path, watch: Watch) -> None:
        self._run = run
        self._cache = cache
        self._watch = watch
        self._raw = run.folder / "kfp.log"
        self._current: Step | None = None
        self.last_words = "it said nothing"

    def take(self, raw: str) -> None:
        line = _ANSI.sub("", raw).strip()
        if not line or set(line) == {"-"}:
            return
        self.last_words = line
        if found := _EXECUTING.search(line):
            self._begin(found[1], "running").running += 1
        elif found := _CACHED.search(line):
            self._cached(self._begin(found[1], "cached"), found[2])
        elif found := _FINISHED.search(line):
            self._end(found[1], found[2])
        elif self._current is not None:
            self._own(self._current, line)
        with self._raw.open("a", encoding="utf-8") as log:
            log.write(line + "\n")
        self._watch(self._run, self._current, line)
        if self._current is not None and self._current.state != "running":
            # What kfp says between steps belongs to none of them.
            self._current = None

    def _begin(self, name: str, state: State) -> Step:
        known = self._run.steps.get(name)
        if known is not None and known.running:
            # One more of a loop: they share a line of the table, and a log.
            self._current = known
            return known
        for step in self._run.steps.values():
            if step.running:
                # The word of its end was lost between the words of another of its loop.
                self._end(step.name, "SUCCESS", last=True)
        log = self._run.folder / f"{name}.jsonl"
        self._current = Step(name, state, time.monotonic(), log)
        self._run.steps[name] = self._current
        return self._current

    def _cached(self, step: Step, key: str) -> None:
        for entry in self._cache.glob(f"{key}*.json"):
            outputs = json.loads(entry.read_text())
            if "report" in outputs:
                step.report = Path(outputs["report"]["uri"])
                step.headline = step.content()["headline"]

    def _end(self, name: str, status: str, *, last: bool = False) -> None:
        step = self._run.steps.get(name)
        if step is None:
            return
        step.running = 0 if last else step.running - 1
        step.seconds = time.monotonic() - step.started_s
        if status != "SUCCESS":
            step.state = "failed"
        if step.running <= 0:
            step.state = "failed" if step.state == "failed" else "done"
            step.progress = ""

    def _own(self, step: Step, line: str) -> None:
        """Take a line that a step printed: a structured one, or a library's."""
        try:
            record = json.loads(line)
            structured = isinstance(record, dict) and "tokiwa" in record
        except ValueError:
            structured = False
        if not structured:
            record = {
                "tokiwa": 1,
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "run": self._run.id,
                "step": step.name,
                "event": "output",
                "text": line,
            }
        with step.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(record, ensure_ascii=False) + "\n")
        match record["event"]:
            case "headline":
                step.headline, step.report = record["text"], Path(record["report"])
            case "progress":
                step.progress = f"{record['what']} {record['done']}/{record['total']}"
            case "trial":
                step.trials[record["number"]] = record
            case "failed":
                step.error, step.exit_code = record["error"], record["exit_code"]


def run_project(
    project: ProjectConfig,
    graph: str,
    *,
    window: str,
    cause: str,
    ledger: str | None = None,
    caching: bool = True,
    clock: str = "",
    request: str = "",
    watch: Watch,
) -> Run:
    """Run a graph of a project on this machine.

    Args:
        project: what to run.
        graph: ``training``, ``monitoring``, ``tuning`` or ``scoring``.
        window: see ``components.resolve.core.resolve``.
        cause: why the run starts.
        ledger: prefix of another ledger than the project's own.
        caching: whether steps may be answered from the cache.
        clock: a moment to take for the present, empty for the present itself.
        request: of a person for a retrain, empty for none.
        watch: told of everything as it happens.

    Raises:
        ConfigError: the project needs a package that is not installed.
        StepFailed: a step failed; the message says which, why, and where its log is.
        UserError: a step failed by what the user can mend.
        Interrupted: stopped; the event that the run had claimed is free again.
    """
    place = ledger or project.ledger
    run = new_run_id()
    workers, partitions = workers_of(project), project.collect.partitions
    if workers and importlib.util.find_spec("optuna") is None:
        raise ConfigError("finetune.search needs optuna; install it with: pip install optuna")
    parameters = graph_of(graph, workers).pipeline_spec.root.input_definitions.parameters
    given = {"window": window, "cause": cause, "run": run, "ledger": place}
    given |= {"clock": clock, "request": request}
    arguments = project.arguments(parameters)
    arguments |= {name: value for name, value in given.items() if name in parameters}

    def end_badly(error: str) -> None:
        if graph != "tuning":  # which promotes nothing, claims no event, and has no outcome
            _end_badly(project.name, run, place, cause, error)

    try:
        result = run_local(
            graph,
            arguments,
            run=run,
            home=home.home(),
            workers=workers,
            partitions=partitions,
            caching=caching,
            watch=watch,
        )
    except Interrupted:
        end_badly("stopped before its end")
        raise
    except StepFailed as broken:
        end_badly(str(broken))
        raise
    if result.failed:
        error = failure(result.failed[0])
        end_badly(str(error).partition("\n")[0])
        raise error
    return result


def failure(step: Step) -> TokiwaError:
    """Return the error of a failed step, of the kind that the step met."""
    kind = UserError if step.exit_code == UserError.exit_code else StepFailed
    return kind(f"{step.name}: {step.error or 'it ended without a word'}\nits log: {step.log}")


def _end_badly(project: str, run: str, ledger: str, cause: str, error: str) -> None:
    """Conclude a run that was stopped or failed.

    A stopped run's exit handler was stopped with it; a failed run's was told by kfp that
    something failed, but not what.
    """
    store = home.store()
    records = Records(store, ledger, run)
    outcome = notify.conclude(
        project=project,
        run=run,
        cause=cause,
        state="FAILED",
        error=error,
        records=records.read(),
    )
    notify.close_event(outcome, Events(store, ledger))
    records.write("notify", outcome.model_dump(mode="json"))
