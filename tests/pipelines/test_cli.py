"""The command: what it prints, and with which code it ends.

``docs/cli.md`` is made from the help texts: ``python tests/pipelines/test_cli.py > docs/cli.md``.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from rich.console import Console

from components import bundle, home
from components.ledger import Ledger
from pipelines.cli import app, main
from pipelines.commands.replaying import _print_next_steps, _print_replay
from pipelines.project import ProjectConfig
from pipelines.project_file import load
from pipelines.replay import WindowResult, publish_champion

TOKIWA = Path(sysconfig.get_path("scripts")) / "tokiwa"
DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
PROJECT = """\
name: demo
task: {{kind: text-classification, labels: [negative, positive], max_tokens: 16}}
source:
  kind: files
  root: {root}
  requirement: {requirement}
  files: [{{path: rows.csv}}]
  columns: {{text: text, label: label, time: day}}
resolve: {{timezone: UTC, window_days: 7, start: 2026-01-05}}
finetune: {{base: {{place: "{base}", requirement: {base_requirement}}}}}
"""
ROWS = "text,label,day\n" + "".join(
    f"the film was {word} {n},{label},2026-01-{5 + n % 14:02d}\n"
    for n in range(20)
    for word, label in (("good", "positive"), ("fine", "positive"), ("bad", "negative"))
)
COMMANDS = list(typer.main.get_group(app).commands)
ENTRY: dict[str, Any] = {
    "version": "4",
    "key": "by-hand",
    "by": "a test",
    "reason": "[/b] better [:x:] than [red]nothing[/red]",
    "expected": 0,
}


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, in which nothing is yet."""
    place = tmp_path / "home"
    for name in ("TOKIWA_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TOKIWA_HOME", str(place))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return place


@pytest.fixture
def write_project(tmp_path: Path, tiny_base: Path) -> Callable[..., str]:
    """Write a project of two weeks, with some of its places exchanged."""

    def write(**places: str) -> str:
        defaults = {
            "root": ".",
            "requirement": "''",
            "base": str(tiny_base),
            "base_requirement": "''",
        }
        (tmp_path / "rows.csv").write_text(ROWS)
        (tmp_path / "demo.yaml").write_text(PROJECT.format(**defaults | places))
        return "demo.yaml"

    return write


@pytest.fixture
def project(write_project: Callable[..., str]) -> str:
    """A sound project."""
    return write_project()


@pytest.fixture
def champion(project: str, make_bundle: Callable[[int], Path]) -> str:
    """A project with a champion."""
    digest = bundle.publish(home.store(), make_bundle(1))
    Ledger(home.store(), "projects/demo").append(action="adopt", bundle=digest, **ENTRY)
    return project


@pytest.fixture
def tokiwa(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; return its code and what it printed to both streams."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(words)
        return code, *capsys.readouterr()

    return run


# --- exit codes


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["status", "sentimant"],
            "error: there is no project 'sentimant'; did you mean sentiment?",
        ),
        (["run", "none.yaml"], "error: there is no project file none.yaml"),
        (["check", "demo.yaml", "--set", "finetune.epoch=2"], "did you mean epochs?"),
        (["history", "demo.yaml", "--set", "x"], "--set x: write it as key.key=value"),
        (["replay", "demo.yaml", "--windows", "0"], "Invalid value for '--windows'"),
        (["replay", "demo.yaml", "--windows", "many"], "Invalid value for '--windows'"),
        (["serve", "demo.yaml", "--port", "99999"], "Invalid value for '--port'"),
        (["check"], "Missing argument 'project'"),
        (["check", "demo.yaml", "--jsn"], "No such option: --jsn"),
        (["publish"], "No such command 'publish'"),
        (["compile", "demo.yaml", "--out", "rows.csv"], "error: rows.csv is no folder"),
        (["init", "none.csv"], "error: there is no file none.csv"),
        (["predict", "demo.yaml"], "error: there is no text to answer"),
        (["init", "demo.csv"], "error: there is no file demo.csv"),
        (["run", "rows.csv"], "draft one from it: tokiwa init rows.csv"),
        (["check", "rows.csv.yaml"], "error: there is no project file rows.csv.yaml"),
        (["check", "my rows.jsonl.gz"], "draft one from it: tokiwa init 'my rows.jsonl.gz'"),
        (["check", "demo.yaml", "--set", "source.root=nowhere"], "there is nothing at "),
        (["check", "demo.yaml", "--set", "source.columns.text=said"], "has no column said; it has"),
        (["check", "demo.yaml", "--set", "source.files=[{path: no.csv}]"], "there is no file /"),
        (["check", "demo.yaml", "--set", "source.columns.label=null"], "no row has a label; name"),
        (
            ["check", "demo.yaml", "--set", "task.labels=[chat, mail]"],
            "error: demo: no row has a label that the task knows: task.labels has chat, mail, "
            "but the rows have 'positive', 'negative'. Mend section task, or source.columns.label",
        ),
        (["adopt", "demo.yaml", "nowhere"], "nowhere is no transformers model"),
        (["run", "demo.yaml", "--window", "2026-13-01"], "windows begin on 2026-01-05 … "),
        (["monitor", "demo.yaml", "--window", "2026-01-06"], "demo has no window '2026-01-06'"),
        (
            ["run", "demo.yaml", "--set", "resolve={}", "--window", "2026-01-05"],
            "error: demo has no window '2026-01-05'; its only window is all",
        ),
        (["history", "demo.yaml", "--replay", "x"], "demo has no replay 'x'; none was played"),
    ],
)
def test_the_users_mistakes_end_with_2(words, why, project, tokiwa, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n  \n"))
    code, out, err = tokiwa(*words)
    assert (code, out) == (2, "")
    assert why in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["predict", "demo.yaml", "hello"],
            "demo has no model in production yet; train one: tokiwa run demo.yaml\n",
        ),
        (["check", "demo.yaml", "--set", "finetune.base=."], "holds no safetensors weights"),
    ],
)
def test_the_worlds_faults_end_with_1(words, why, project, tokiwa):
    code, out, err = tokiwa(*words)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert why in err


def test_a_home_that_cannot_be_is_a_fault_of_the_world(project, tokiwa, monkeypatch):
    monkeypatch.setenv("TOKIWA_HOME", "rows.csv/home")
    code, out, err = tokiwa("run", project)
    assert (code, out) == (1, "")
    assert "error: [Errno 20] Not a directory: " in err
    assert "Traceback" not in err


def test_an_address_that_no_store_has_is_the_users_mistake(project, tokiwa, monkeypatch):
    monkeypatch.setenv("TOKIWA_STORE", "ftp://somewhere")
    code, out, err = tokiwa("status", project)
    assert (code, out) == (2, "")
    assert err.startswith("error: the address of the object store must be s3://bucket/prefix")


def test_no_command_shows_the_help(tokiwa):
    code, out, err = tokiwa()
    assert code == 2
    assert "Usage: " in out + err
    for name in COMMANDS:
        assert f" {name} " in out + err


# --- a package with data or weights is not there

MISSING = {
    "data": (
        {"root": "not_installed_here:texts", "requirement": "not-installed-here==1.2"},
        "error: the package 'not_installed_here' is not installed; "
        "install it with: pip install --no-deps not-installed-here==1.2\n",
    ),
    "data, no requirement given": (
        {"root": "not_installed_here:texts"},
        "error: the package 'not_installed_here' is not installed; "
        "install it with: pip install --no-deps not-installed-here\n",
    ),
    "weights": (
        {"base": "no_weights_here:model", "base_requirement": "no-weights-here==0.1"},
        "error: the package 'no_weights_here' is not installed; "
        "install it with: pip install --no-deps no-weights-here==0.1\n",
    ),
}


@pytest.mark.parametrize("case", MISSING.values(), ids=MISSING.keys())
@pytest.mark.parametrize(
    "command", [["run"], ["monitor"], ["replay"], ["check"], ["check", "--json"], ["adopt", "x"]]
)
def test_a_missing_package_is_one_line_with_the_command(
    case, command, write_project, tokiwa, empty_home
):
    places, line = case
    name, *rest = command
    assert tokiwa(name, write_project(**places), *rest) == (2, "", line)
    assert not empty_home.exists(), "nothing ran"


def test_the_past_can_be_asked_without_the_data(write_project, tokiwa):
    path = write_project(root="not_installed_here:texts")
    for command in ("status", "history"):
        code, out, err = tokiwa(command, path, "--json")
        assert (code, err) == (0, "")
        json.loads(out)


# --- a step fails


@pytest.mark.e2e
def test_a_failed_step_gives_its_code_its_reason_and_its_log(project):
    done = subprocess.run(
        [TOKIWA, "run", project, "--set", "source.columns.text=said", "--json"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    reason, log = done.stderr.strip().splitlines()
    assert reason.startswith("error: resolve: ")
    assert "has no column said; it has text, label, day. Mend source.columns." in reason
    path = Path(log.removeprefix("its log: "))
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert [event for event in events if event != "output"] == ["started", "failed"]


@pytest.mark.e2e
def test_a_run_without_a_usable_row_says_why_and_where_the_rows_are(project):
    done = subprocess.run(
        [TOKIWA, "run", project, "--set", "task.labels=[chat, mail]"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outcome, report = done.stdout.splitlines()
    told, place = outcome.removesuffix(" (Parquet)").split("; all quarantined rows: ")
    assert told == (
        "nothing to train on: window 2026-01-12 has no usable rows; "
        "21 of its 21 rows are in quarantine: 21 unknown-label; "
        "labels such as 'positive', 'negative' are none of the task's, which are chat, mail"
    )
    rows = pd.read_parquet(place)
    assert rows["reasons"].tolist() == ["unknown-label"] * 60
    page = Path(report.removeprefix("report: "))
    assert page.suffix == ".html"
    assert "21 unknown-label" in page.read_text()


# --- what is printed


def test_json_on_an_empty_home(project, tokiwa, empty_home):
    expected: dict[str, Any] = {
        "status": {
            "project": "demo",
            "champion": None,
            "candidate": None,
            "frozen": None,
            "alerts": [],
            "runs": [],
            "events": [],
        },
        "history": [],
        "check": {
            "windows": [
                {
                    "window": "2026-01-05",
                    "rows": 39,
                    "labelled": 39,
                    "unlabelled": 0,
                    "unknown": 0,
                    "labels": "positive 26, negative 13",
                },
                {
                    "window": "2026-01-12",
                    "rows": 21,
                    "labelled": 21,
                    "unlabelled": 0,
                    "unknown": 0,
                    "labels": "positive 14, negative 7",
                },
            ],
            "run": {
                "window": "2026-01-12",
                "rows": 60,
                "judged": 60,
                "kept": 60,
                "duplicates": 0,
                "quarantined": 0,
                "reasons": [],
                "odd": {},
                "refusal": "window 2026-01-12 has 21 usable rows, validate.min_rows asks for 50",
            },
        },
    }
    for command, content in expected.items():
        code, out, err = tokiwa(command, project, "--json")
        assert (code, json.loads(out), err) == (0, content, "")
    assert not empty_home.exists(), "looking leaves nothing behind"


def test_words_on_an_empty_home(project, tokiwa, empty_home):
    assert tokiwa("status", project)[1] == (
        "demo has no champion yet; train one: tokiwa run demo.yaml\n"
        f"(looked in {empty_home}/objects; set TOKIWA_HOME or TOKIWA_STORE to look elsewhere)\n"
    )
    assert tokiwa("history", project)[1] == (
        "the ledger is empty; train one: tokiwa run demo.yaml\n"
        f"(looked in {empty_home}/objects; set TOKIWA_HOME or TOKIWA_STORE to look elsewhere)\n"
    )
    said, header, first, second, *ahead = tokiwa("check", project)[1].splitlines()
    assert said == "demo: the file, the data and the base model are there"
    assert header.split() == ["window", "rows", "labelled", "unlabelled", "unknown", "labels"]
    assert first.split()[:2] == ["2026-01-05", "39"]
    assert second.split()[:2] == ["2026-01-12", "21"]
    assert ahead == [
        "a run on window 2026-01-12 would read 60 rows; 60 good",
        "it would train nothing: window 2026-01-12 has 21 usable rows, "
        "validate.min_rows asks for 50",
    ]


def test_a_check_counts_rows_without_a_label_and_with_one_that_is_unknown(project, tokiwa):
    rows = ROWS.replace(",negative,2026-01-06", ",,2026-01-06")
    rows += "".join(f"text,other {number % 7},2026-01-05\n" for number in range(20))
    Path("rows.csv").write_text(rows)
    labels = ("--set", "task.labels=[negative, positive, neutral]")
    code, out, err = tokiwa("check", project, *labels, "--json")
    assert code == 0
    first, second = json.loads(out)["windows"]
    counts = ("rows", "labelled", "unlabelled", "unknown", "labels")
    assert [first[key] for key in counts] == [59, 37, 2, 20, "positive 26, negative 11"]
    assert [second[key] for key in counts] == [21, 21, 0, 0, "positive 14, negative 7"]
    assert err == (
        "warning: 20 rows have labels that the task does not know, such as 'other 0', 'other 1', "
        "'other 2', 'other 3', 'other 4', …, and would be quarantined; "
        "task.labels has negative, positive, neutral\n"
        "warning: no row has the label 'neutral' of the task\n"
    )
    assert tokiwa("check", project, *labels)[2] == err


def test_a_window_that_is_not_there_is_refused_before_anything_runs(project, tokiwa, empty_home):
    assert tokiwa("run", project, "--window", "2026-01-06")[0] == 2
    assert not empty_home.exists()


def test_a_check_without_a_window_says_so(project, tokiwa):
    code, out, _ = tokiwa("check", project, "--set", "resolve.start=2026-05-04")
    assert code == 0
    assert "no whole window has rows yet; see resolve.start" in out


def test_a_seed_without_a_history_is_refused(project, tokiwa):
    code, _, err = tokiwa("replay", project, "--seed", "3")
    assert code == 2
    assert "--seed draws a history; name its shape with --history" in err


def test_status_and_history_tell_of_the_champion(champion, tokiwa):
    (entry,) = json.loads(tokiwa("history", champion, "--json")[1])
    assert (entry["number"], entry["version"], entry["reason"]) == (1, "4", ENTRY["reason"])
    assert json.loads(tokiwa("status", champion, "--json")[1])["champion"] == entry
    said = tokiwa("status", champion)[1]
    assert said.startswith("demo serves version 4 (generation 1, adopt at 20")
    assert said.endswith(f"\n{ENTRY['reason']}\n"), "what looks like markup is text"
    # Where there is no terminal the table is narrow, and a long reason takes two lines.
    assert set(ENTRY["reason"].split()) <= set(tokiwa("history", champion)[1].split())


def test_moments_are_shown_to_the_second_and_kept_in_full(champion, tokiwa, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (entry,) = json.loads(tokiwa("history", champion, "--json")[1])
    assert datetime.fromisoformat(entry["at"]).microsecond
    second = f"{datetime.fromisoformat(entry['at']):%Y-%m-%dT%H:%M:%SZ}"
    assert re.search(rf"^1 +{second} +adopt", tokiwa("history", champion)[1], re.MULTILINE)
    assert f"adopt at {second})" in tokiwa("status", champion)[1]


def test_a_champion_of_a_replay_leads_to_the_promotions_within(project, make_bundle, tokiwa):
    config = load(project)
    digest = bundle.publish(home.store(), make_bundle(1))
    played = Ledger(home.store(), config.replay_ledger("20260105t090000-abcdef"))
    place = home.store().uri(bundle.key_of(digest))
    version = home.registry("demo").register(digest, place, None, {})
    why = {"reason": "better by 0.2", "version": version}
    played.append(action="promote", bundle=digest, **ENTRY | why)
    publish_champion(config, played, "20260105t090000-abcdef", 0)
    hint = "tokiwa history demo.yaml --replay 20260105t090000-abcdef\n"
    for command in ("status", "history"):
        said = tokiwa(command, project)[1]
        assert hint in said
        assert "better by 0.2" in said
    (inner,) = json.loads(tokiwa(*hint.split()[1:], "--json")[1])
    assert (inner["action"], inner["reason"]) == ("promote", "better by 0.2")
    code, _, err = tokiwa("history", project, "--replay", "another")
    assert code == 2
    assert "no replay 'another'; there are 20260105t090000-abcdef" in err


def test_the_next_steps_name_the_project_as_it_was_typed(project, capsys):
    (Path.cwd() / "my demo.yaml").write_text(Path(project).read_text())
    _print_next_steps(load("my demo.yaml"), "my demo.yaml", Path("page.html"))
    said = capsys.readouterr().out
    for command in ("history", "predict", "serve"):
        assert f" {command} 'my demo.yaml'" in said


def test_the_scores_of_a_replay_stay_on_one_line_of_a_narrow_screen(project, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.commands.replaying.out", Console(width=80, highlight=False))
    result = WindowResult(
        window="2026-01-19",
        rows="tweets and reviews",
        drifted=True,
        trigger="performance",
        decision="inconclusive",
        champion="12",
        score_before=0.745,
        score_after=0.941,
        device_hours=0.01,
        seconds=123,
        report="page.html",
    )
    _print_replay(load(project), [result])
    assert "0.745 → 0.941" in capsys.readouterr().out


def test_predictions_come_in_order_from_words_or_lines(champion, tokiwa, monkeypatch):
    texts = ["the film was good", "[/b] a very [red]dull :x: story", "良い映画"]
    code, out, err = tokiwa("predict", champion, *texts, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert (answer["version"], answer["generation"]) == ("4", 1)
    assert [each["text"] for each in answer["predictions"]] == texts
    for each in answer["predictions"]:
        assert each["label"] in ("negative", "positive")
        assert 0.5 <= each["confidence"] <= 1
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n\n".join(texts) + "\n"))
    assert json.loads(tokiwa("predict", champion, "--json")[1]) == answer
    _header, *lines = tokiwa("predict", champion, *texts)[1].splitlines()
    for line, each in zip(lines, answer["predictions"], strict=True):
        assert line.rstrip().split(None, 2) == [
            each["label"],
            str(each["confidence"]),
            each["text"],
        ]


def test_the_schema_is_printed_as_it_is(tokiwa):
    code, out, err = tokiwa("schema")
    assert (code, err) == (0, "")
    assert json.loads(out) == ProjectConfig.model_json_schema(by_alias=True)


def test_a_reader_that_leaves_early_is_no_error_of_ours(project):
    with subprocess.Popen(
        [TOKIWA, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == ""


# --- help


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command, tokiwa):
    code, out, err = tokiwa(command, "--help")
    assert (code, err) == (0, "")
    assert f" {command} [OPTIONS]" in out


def test_every_option_is_explained():
    for name, command in _commands(typer.main.get_group(app)):
        parameters: list[Any] = command.params
        for parameter in parameters:
            assert parameter.help, f"{name} {parameter.opts[0]}"


def _commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with its whole name, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def reference() -> str:
    """Return the page about the command."""
    return "\n".join([*_reference()]) + "\n"


def _reference() -> Iterator[str]:
    commands = dict(_commands(typer.main.get_group(app)))
    yield "# The command"
    yield ""
    yield "Made from the help texts by `python tests/pipelines/test_cli.py > docs/cli.md`."
    yield ""
    yield "```console"
    yield "$ tokiwa COMMAND [OPTIONS]"
    yield "```"
    yield ""
    for name, command in commands.items():
        yield f"- [`tokiwa {name}`](#tokiwa-{name.replace(' ', '-')}): {command.help}"
    yield ""
    yield "| exit code | means |"
    yield "|---|---|"
    yield "| 0 | done; for `run` and `monitor` also when nothing was promoted |"
    yield "| 1 | the world is not as it should be: data that cannot be read, the store, a model |"
    yield "| 2 | the command or the project file needs mending, or what it names is not there |"
    yield "| 130 | stopped by Ctrl-C or SIGTERM |"
    yield ""
    yield "Results go to standard output, progress and errors to standard error. The environment"
    yield "gives places and credentials only:"
    yield ""
    yield "| variable | means |"
    yield "|---|---|"
    yield "| `TOKIWA_HOME` | folder of everything, `./.tokiwa` by default |"
    yield "| `TOKIWA_STORE` | objects: a folder or `s3://bucket/prefix`, with the usual `AWS_…` |"
    yield "| `TOKIWA_IMAGE_REGISTRY` | where the images of compiled graphs are pulled from |"
    yield "| `TOKIWA_IMAGE_TAG` | tag of the images in compiled graphs |"
    yield "| `MLFLOW_TRACKING_URI` | MLflow: a database in the home folder by default |"
    yield "| `TOKIWA_STUDIES` | searches: in the store by default, or a database's address |"
    yield "| `KF_PIPELINES_ENDPOINT` | Kubeflow Pipelines, for `submit`, `apply` and `runs` |"
    yield "| `KF_PIPELINES_UI_ENDPOINT` | its UI, for links; the same address by default |"
    yield "| `TOKIWA_KFP_TOKEN`, `TOKIWA_KFP_COOKIE` | its bearer token, or a session's cookie |"
    for name, command in commands.items():
        parameters: list[Any] = command.params
        words = [each for each in parameters if each.param_type_name == "argument"]
        usage = " ".join(each.name if each.required else f"[{each.name}]" for each in words)
        yield ""
        yield f"## tokiwa {name}"
        yield ""
        yield command.help or ""
        yield ""
        yield "```console"
        yield f"$ tokiwa {name} {usage} [OPTIONS]".replace("  ", " ")
        yield "```"
        if parameters:
            yield ""
            yield "| | default | |"
            yield "|---|---|---|"
        for each in parameters:
            options = [*each.opts, *each.secondary_opts]
            shown = ", ".join(f"`{option}`" for option in options)
            yield f"| {shown} | {_default(each)} | {each.help} |"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    if parameter.default is None or parameter.default is False:
        return ""
    return f"`{'on' if parameter.default is True else parameter.default}`"


def test_the_page_about_the_command_is_up_to_date():
    assert DOCS.read_text() == reference(), "run: python tests/pipelines/test_cli.py > docs/cli.md"


if __name__ == "__main__":
    print(reference(), end="")
