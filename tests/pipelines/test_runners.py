"""A real kfp run of small steps: what becomes of each line that they print."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp import dsl

from components.errors import StepFailed, UserError
from pipelines import progress, runners
from pipelines.progress import watching, working
from pipelines.runners import Run, Step, failure, new_run_id, run_local

IMAGE = "tokiwa-python-base:0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def count(upto: int, report: dsl.Output[dsl.Artifact]) -> int:
    from components import step
    from components.settings import Section

    class Counted(Section):
        rows: int

        @property
        def headline(self) -> str:
            return f"counted {self.rows} [/red] :x:"

    with step.running("count") as log:
        print("a library says\tso: 良い")
        print('{"json": "of a library"}')
        print("\x1b[31mred\x1b[0m")
        log.progress(1, upto, "rows counted")
        log.progress(upto, upto, "rows counted")
        log.hand_over(Counted(rows=upto), report.path)
    return upto


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def stumble(upto: int, how: str, report: dsl.Output[dsl.Artifact]):
    import os

    from components import errors, step

    with step.running("stumble"):
        if how == "user":
            raise errors.BadInput("the user wrote [/x] nonsense")
        if how == "bug":
            raise KeyError("a bug")
        if how == "killed":
            print("before the end", flush=True)
            os.kill(os.getpid(), 9)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def conclude(status: dsl.PipelineTaskFinalStatus, report: dsl.Output[dsl.Artifact]):
    from components import step
    from components.settings import Section

    class Concluded(Section):
        headline: str

    with step.running("notify") as log:
        log.hand_over(Concluded(headline=status.state), report.path)


@dsl.pipeline(name="small")
def small(upto: int, how: str):
    notified = conclude().set_caching_options(False)
    with dsl.ExitHandler(notified, name="all"):
        counted = count(upto=upto)
        stumble(upto=counted.outputs["Output"], how=how).set_caching_options(False)


@pytest.fixture
def run_small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[Run, list[Any]]]:
    """Run the small graph in place of a large one; return the run and what was watched."""
    monkeypatch.setattr(runners, "graph_of", lambda name, workers, partitions: small)

    def run(how: str, watch: Any = None) -> tuple[Run, list[tuple[str, str, str]]]:
        seen: list[tuple[str, str, str]] = []

        def note(run: Run, step: Step | None, line: str) -> None:
            if step:
                seen.append((step.name, step.state, step.progress))
            if watch:
                watch(run, step, line)

        done = run_local(
            "small", {"upto": 3, "how": how}, run=new_run_id(), home=tmp_path, watch=note
        )
        return done, seen

    return run


def log_of(step: Step) -> list[dict[str, Any]]:
    return [json.loads(line) for line in step.log.read_text().splitlines()]


@pytest.mark.e2e
def test_a_run_that_goes_well_and_once_more_from_the_cache(run_small, capsys):
    with watching("a [/b] title", verbose=False) as watch:
        first, seen = run_small("well", watch)
    assert list(first.steps) == ["count", "stumble", "conclude"]
    assert {step.state for step in first.steps.values()} == {"done"}
    assert not first.failed

    counted = first.steps["count"]
    assert counted.headline == "counted 3 [/red] :x:"
    assert counted.content() == {"headline": counted.headline, "rows": 3}
    assert counted.artifact("executor_output.json").parent == counted.report.parent
    assert counted.progress == ""
    assert ("count", "running", "rows counted 3/3") in seen
    assert first.steps["conclude"].headline == "SUCCEEDED"

    # Everything that a step printed is a line of JSON in its log, also what libraries say.
    records = log_of(counted)
    assert all(record["tokiwa"] == 1 and record["step"] == "count" for record in records)
    assert all(record["run"] == first.id for record in records)
    events = [record["event"] for record in records if record["event"] != "output"]
    assert events == ["started", "progress", "progress", "headline", "finished"]
    said = [record["text"] for record in records if record["event"] == "output"]
    assert {"a library says\tso: 良い", '{"json": "of a library"}', "red"} <= set(said)

    title, *lines = capsys.readouterr().err.splitlines()
    assert title == "a [/b] title"
    assert [line.split()[:2] for line in lines] == [["✓", name] for name in first.steps]
    assert re.fullmatch(r"  ✓ count +\d+\.\d s  counted 3 \[/red\] :x:", lines[0])

    with watching("again", verbose=False) as watch:
        second, _ = run_small("well", watch)
    again = second.steps["count"]
    assert again.state == "cached"
    assert again.headline == counted.headline
    assert again.content() == counted.content()
    assert second.steps["stumble"].state == "done"
    assert "  ↺ count" in capsys.readouterr().err
    assert second.id > first.id


# --- failures


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("how", "kind", "code", "error"),
    [
        ("user", UserError, 2, "the user wrote [/x] nonsense"),
        ("bug", StepFailed, 1, "KeyError: 'a bug'"),
        ("killed", StepFailed, 1, ""),
    ],
)
def test_a_step_that_fails(how, kind, code, error, run_small, capsys):
    with watching("title", verbose=False) as watch:
        done, _ = run_small(how, watch)
    (failed,) = done.failed
    assert (failed.name, failed.exit_code, failed.error) == ("stumble", code, error)
    assert done.steps["conclude"].headline == "FAILED", "the exit handler ran"
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "stumble" in each]
    assert line.startswith("  ✗ stumble") and line.endswith(f" s  {error}")
    met = failure(failed)
    assert type(met) is kind
    assert met.exit_code == code
    assert str(met) == f"stumble: {error or 'it ended without a word'}\nits log: {failed.log}"
    texts = [record.get("text", "") for record in log_of(failed)]
    assert any("Traceback" in text for text in texts) == (how == "bug")
    if how == "killed":
        assert "before the end" in texts


def test_the_kind_of_a_failure_follows_the_exit_code(tmp_path):
    step = Step("finetune", "failed", 0.0, tmp_path / "finetune.jsonl", error="no memory")
    assert type(failure(step)) is StepFailed
    step.exit_code = 2
    assert type(failure(step)) is UserError
    assert str(failure(step)) == f"finetune: no memory\nits log: {step.log}"


def test_a_run_without_an_end_has_no_outcome(tmp_path):
    with pytest.raises(StepFailed, match="run x ended without an outcome; see"):
        _ = Run("x", "training", tmp_path).outcome


def test_ids_of_runs_sort_by_time_and_differ():
    early = datetime(2026, 1, 5, 9, tzinfo=UTC)
    late = datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert new_run_id(early) < new_run_id(late)
    assert len({new_run_id(early) for _ in range(100)}) == 100
    assert re.fullmatch(r"20260105t090000-[0-9a-f]{6}", new_run_id(early))


# --- what a person sees


def step_of(tmp_path: Path, name: str, **known: Any) -> Step:
    return Step(name, known.pop("state", "running"), 0.0, tmp_path / name, **known)


def test_plain_progress_tells_each_end_once(tmp_path, capsys):
    run = Run("x", "training", tmp_path)
    with watching("training of demo", verbose=False) as watch:
        run.steps["resolve"] = step_of(tmp_path, "resolve")
        watch(run, run.steps["resolve"], "a line")
        run.steps["resolve"].state = "done"
        run.steps["resolve"].headline = "window 2026-01-05"
        run.steps["resolve"].seconds = 1.26
        run.steps["ingest"] = step_of(tmp_path, "ingest", state="cached", headline="900 rows")
        for _ in range(3):
            watch(run, None, "another line")
        run.steps["validate"] = step_of(
            tmp_path, "validate", state="failed", headline="never shown", error="[/red] broke"
        )
        watch(run, None, "the last line")
    captured = capsys.readouterr()
    assert captured.out == "", "standard output is for results"
    assert captured.err.splitlines() == [
        "training of demo",
        "  ✓ resolve      1.3 s  window 2026-01-05",
        "  ↺ ingest      cached  900 rows",
        "  ✗ validate     0.0 s  [/red] broke",
    ]


def test_plain_progress_tells_of_a_long_step_now_and_then(tmp_path, capsys, monkeypatch):
    clock = SimpleNamespace(now_s=0.0)
    clock.monotonic = lambda: clock.now_s
    monkeypatch.setattr(progress, "time", clock)
    run = Run("x", "training", tmp_path)
    with watching("training of demo", verbose=False) as watch:
        step = run.steps["finetune"] = step_of(tmp_path, "finetune")
        for clock.now_s in (1, 14, 16, 20, 31, 32):
            step.progress = f"steps {clock.now_s}/99"
            watch(run, step, "a line")
        step.progress = ""
        clock.now_s = 90
        watch(run, step, "a line of a step that says nothing of its progress")
    assert capsys.readouterr().err.splitlines() == [
        "training of demo",
        "  ● finetune      16 s  steps 16/99",
        "  ● finetune      31 s  steps 31/99",
    ]


def test_one_long_task_is_told_of_now_and_then(capsys, monkeypatch):
    clock = SimpleNamespace(now_s=0.0)
    clock.monotonic = lambda: clock.now_s
    monkeypatch.setattr(progress, "time", clock)
    for quiet, lines in ((False, ["  texts embedded 16/99"]), (True, [])):
        clock.now_s = 0.0
        with working("embedding", quiet=quiet) as tell:
            for clock.now_s in (1, 16, 17):
                tell(int(clock.now_s), 99, "texts embedded")
        assert capsys.readouterr().err.splitlines() == lines


def test_verbose_shows_every_line_and_quiet_none(tmp_path, capsys):
    run = Run("x", "training", tmp_path)
    with watching("loud", verbose=True) as watch:
        watch(run, None, "first [/b] line")
        watch(run, None, "second line")
    assert capsys.readouterr().err.splitlines() == ["loud", "first [/b] line", "second line"]
    with watching("quiet", verbose=True, quiet=True) as watch:
        watch(run, None, "first line")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "0")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    run = Run("x", "training", tmp_path)
    with watching("training of [/b] demo", verbose=False) as watch:
        run.steps["resolve"] = step_of(tmp_path, "resolve", state="done", headline="window 1")
        run.steps["ingest"] = step_of(tmp_path, "ingest", state="failed", error="[/red] :x: broke")
        watch(run, None, "a line")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert "training of [/b] demo" in shown
    assert re.search(r"✓ +resolve +0\.0 s +window 1", shown)
    assert re.search(r"✗ +ingest +0\.0 s +\[/red\] :x: broke", shown)
