"""One YAML file becomes a project, or a list of everything that is wrong with it."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import ConfigError
from components.finetune.config import FinetuneConfig
from components.plan import Bases
from components.settings import Section
from components.sources.files import FilesConfig
from pipelines.cli import app
from pipelines.project import ProjectConfig
from pipelines.project_file import SHIPPED, load, load_policy, shipped_projects

SOUND = """\
name: demo
description: two words decide
task:
  kind: text-classification
  labels: [bad, good]
source:
  kind: files
  root: data
  files:
    - {path: a.csv, name: a}
    - path: b.csv
      at: "2026-01-12"
resolve:
  timezone: UTC
  window_days: 7
  start: "2026-01-05"
finetune:
  base: models/tiny
  epochs: 2
"""


@pytest.fixture
def project(tmp_path: Path):
    """Write a project file, a sound one with some of its text exchanged; return its path."""

    def write(*exchanges: tuple[str, str], text: str = SOUND) -> str:
        for old, new in exchanges:
            assert text.count(old) == 1, f"{old!r} must be there once"
            text = text.replace(old, new)
        path = tmp_path / "demo.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def files_of(config: ProjectConfig) -> FilesConfig:
    assert isinstance(config.source, FilesConfig)
    return config.source


def problems_of(path: str, *overrides: str) -> list[str]:
    """Return the problems of a file, without the heading that counts them."""
    with pytest.raises(ConfigError) as refused:
        load(path, overrides)
    heading, *problems = str(refused.value).split("\n")
    count = len(problems)
    assert heading == f"{path} has {count} problem{'s' * (count > 1)}:"
    return [problem.removeprefix("  ") for problem in problems]


def line_of(path: str, text: str) -> int:
    """Return the number of the only line that holds a text."""
    (number,) = [n for n, line in enumerate(Path(path).read_text().splitlines(), 1) if text in line]
    return number


# Each case: exchanges in the sound file, what marks the wrong line, and the problem.
PROBLEMS = {
    "unknown section": (
        [("finetune:\n", "fintune:\n")],
        "fintune:",
        "fintune: unknown key; did you mean finetune?",
    ),
    "unknown key": (
        [("epochs: 2", "epoch: 2")],
        "epoch:",
        "finetune.epoch: unknown key; did you mean epochs?",
    ),
    "unknown key like no other": (
        [("timezone: UTC", "wxyz: UTC")],
        "wxyz",
        "resolve.wxyz: unknown key; known are timezone, window_days, start, history_windows, "
        "watermark_hours, training, "
        "label_delay_windows",
    ),
    "unknown key in a list": (
        [("      at:", "      att:")],
        "att:",
        "source.files.1.att: unknown key; did you mean at?",
    ),
    "unknown key in a list, in flow style": (
        [("name: a}", "nmae: a}")],
        "nmae",
        "source.files.0.nmae: unknown key; did you mean name?",
    ),
    "key that is a number": (
        [("epochs: 2", "5: 2")],
        "5: 2",
        f"finetune.5: unknown key; known are {', '.join(FinetuneConfig.model_fields)}",
    ),
    "wrong type": (
        [("epochs: 2", "epochs: two")],
        "epochs",
        "finetune.epochs: input should be a valid integer, unable to parse string as an integer "
        "(got 'two')",
    ),
    "number for a text": (
        [("description: two words decide", "description: 3")],
        "description",
        "description: input should be a valid string; put it in quotes (got 3)",
    ),
    "null for a text": (
        [("name: a}", "name: null}")],
        "name: null",
        "source.files.0.name: input should be a valid string; put it in quotes (got None)",
    ),
    "number for a label": (
        [("[bad, good]", "[bad, 1]")],
        "labels",
        "task.labels.1: input should be a valid string; put it in quotes (got 1)",
    ),
    "text for a list": (
        [("[bad, good]", "bad")],
        "labels",
        "task.labels: input should be a list (got 'bad')",
    ),
    "list for a text": (
        [("base: models/tiny", "base: {place: [a, b]}")],
        "base",
        "finetune.base.0.place: input should be a valid string (got ['a', 'b'])",
    ),
    "metric of another task": (
        [("epochs: 2", "metric: r2")],
        "metric:",
        "finetune.metric r2 is no score of text-classification; "
        "there are macro_f1, accuracy, log_loss, loss",
    ),
    "classes where there are none": (
        [
            ("text-classification", "text-regression"),
            ("labels: [bad, good]", "low: 0\n  high: 1"),
            ("epochs: 2", "balance: over"),
        ],
        "balance:",
        "finetune.balance makes up for rare classes, and text-regression has none",
    ),
    "number for a model": (
        [("base: models/tiny", "base: 7")],
        "base",
        "finetune.base.0: name a folder, package:folder, or keys of a model (got 7)",
    ),
    "one model twice": (
        [("base: models/tiny", "base: [models/tiny, {place: models/tiny}]")],
        "base",
        "finetune.base: models/tiny is named twice (got ['models/tiny', {'place': 'models/tiny'}])",
    ),
    "no model": (
        [("base: models/tiny", "base: []")],
        "base",
        "finetune.base: name at least one model (got [])",
    ),
    "value for a section": (
        [("task:", "drift: 0.3\ntask:")],
        "drift",
        "drift: should hold keys and values, such as {false_discovery_rate: …} (got 0.3)",
    ),
    "empty section": (
        [("task:", "validate:\ntask:")],
        "validate",
        "validate: should hold keys and values, such as {min_rows: …} (got None)",
    ),
    "text for an item": (
        [("{path: a.csv, name: a}", "a.csv")],
        "a.csv",
        "source.files.0: should hold keys and values, such as {path: …} (got 'a.csv')",
    ),
    "impossible number": (
        [("epochs: 2", "epochs: 0")],
        "epochs",
        "finetune.epochs: input should be greater than or equal to 1 (got 0)",
    ),
    "infinity": (
        [("epochs: 2", "learning_rate: .inf")],
        "learning_rate",
        "finetune.learning_rate: input should be a finite number (got inf)",
    ),
    "impossible number deep in a list": (
        [("name: a}", "share: [0, 1.5]}")],
        "share",
        "source.files.0.share.1: input should be less than or equal to 1 (got 1.5)",
    ),
    "unknown choice": (
        [("epochs: 2", "method: poetry")],
        "method",
        "finetune.method: input should be 'head', 'top', 'gradual', 'full', 'lora' or 'distill' "
        "(got 'poetry')",
    ),
    "unknown zone": (
        [("timezone: UTC", "timezone: Mars/Olympus")],
        "Mars",
        "resolve.timezone: there is no such time zone: 'Mars/Olympus' (got 'Mars/Olympus')",
    ),
    "impossible day, quoted": (
        [('start: "2026-01-05"', 'start: "2026-02-30"')],
        "start",
        "resolve.start: day is out of range for month (got '2026-02-30')",
    ),
    "impossible day, unquoted": (
        [('start: "2026-01-05"', "start: 2026-02-30")],
        "start",
        "resolve.start: day is out of range for month (got '2026-02-30')",
    ),
    "one label": (
        [("[bad, good]", "[bad]")],
        "labels",
        "task.labels: list should have at least 2 items, not 1 (got ['bad'])",
    ),
    "label twice": (
        [("[bad, good]", "[bad, bad]")],
        "labels",
        "task.labels: labels must differ from each other (got ['bad', 'bad'])",
    ),
    "two keys of one section": (
        [("  window_days: 7\n", "")],
        "resolve",
        "resolve: window_days and start go together: set both or neither "
        "(got {'timezone': 'UTC', 'start': '2026-01-05'})",
    ),
    "two sections": (
        [("  root: data", "  label_bins: {low: [null, 0], high: [0, null]}\n  root: data")],
        "label_bins",
        "source.label_bins makes low, high, but task.labels has bad, good",
    ),
    "gate metric of another task": (
        [("finetune:\n", "evaluate:\n  primary: r2\nfinetune:\n")],
        "primary",
        "evaluate.primary is wrong: r2 is no metric of classification",
    ),
    "decisions for no label": (
        [("epochs: 2", "operating_point: {aim: recall}")],
        "operating_point",
        "finetune.operating_point: the aim recall needs a label (got {'aim': 'recall'})",
    ),
    "decisions for a label that there is not": (
        [("epochs: 2", "operating_point:\n    {aim: recall, label: ugly}")],
        "operating_point",
        "finetune.operating_point names ugly; the task has bad, good",
    ),
    "cost of a label that there is not": (
        [("epochs: 2", "operating_point:\n    {aim: cost, costs: {bad: {ugly: 2}}}")],
        "operating_point",
        "finetune.operating_point names ugly; the task has bad, good",
    ),
    "unknown key of decisions": (
        [("epochs: 2", "operating_point: {aim: recall, labl: bad}")],
        "operating_point",
        "finetune.operating_point.labl: unknown key; did you mean label?",
    ),
    "decisions of a task without labels": (
        [
            ("text-classification\n  labels: [bad, good]", "text-regression\n  low: 0\n  high: 1"),
            ("epochs: 2", "operating_point: {answered_accuracy: 0.9}"),
        ],
        "operating_point",
        "finetune.operating_point needs a task whose answers are labels",
    ),
    "cost of scores": (
        [
            ("text-classification\n  labels: [bad, good]", "text-anomaly"),
            ("epochs: 2", "operating_point: {aim: cost}"),
        ],
        "operating_point",
        "finetune.operating_point.aim cost needs probabilities, and text-anomaly gives scores; "
        "ask for a recall or a precision",
    ),
    "column that no row has": (
        [("finetune:\n", "evaluate:\n  slices:\n    columns: [country]\nfinetune:\n")],
        "columns: [country]",
        "evaluate.slices.columns names no column: 'country'; there are id, group, time, source, "
        "text, label, window",
    ),
    "column that no row has, beside one that is declared": (
        [
            ("root: data", "root: data\n  columns: {metadata: {country: Land}}"),
            (
                "finetune:\n",
                "evaluate:\n  fairness: {columns: [country, sex], favourable: good}\nfinetune:\n",
            ),
        ],
        "fairness",
        "evaluate.fairness.columns names no column: 'sex'; there are id, group, time, source, "
        "text, label, window, country",
    ),
    "label that nobody can wish for": (
        [
            ("root: data", "root: data\n  columns: {metadata: [country]}"),
            (
                "finetune:\n",
                "evaluate:\n  fairness:\n    columns: [country]\n    favourable: great\n"
                "finetune:\n",
            ),
        ],
        "favourable",
        "evaluate.fairness.favourable names no label: 'great'; there are bad, good",
    ),
    "floor out of reach": (
        [("finetune:\n", "evaluate:\n  floors:\n    accuracy: 90\nfinetune:\n")],
        "accuracy",
        "evaluate.floors.accuracy is out of reach: accuracy is 0 to 1, and the floor is 90",
    ),
    "metric that chance lifts": (
        [("finetune:\n", "evaluate:\n  guarded:\n    ece: 0.03\nfinetune:\n")],
        "ece",
        "evaluate.guarded.ece cannot compare models: few rows lift ece by chance; use brier or "
        "log_loss, which miscalibration raises, too",
    ),
    "floor on trusted rows out of reach": (
        [
            (
                "finetune:\n",
                f"evaluate:\n  holdout:\n    path: a.csv\n    sha256: {'a' * 64}\n    floor: 90\n"
                "finetune:\n",
            )
        ],
        "floor: 90",
        "evaluate.holdout.floor is out of reach: macro_f1 is 0 to 1, and the floor is 90",
    ),
    "aim that is required and not there": (
        [("finetune:\n", "evaluate:\n  required: [operating_point]\nfinetune:\n")],
        "required",
        "evaluate.required names operating_point, but finetune.operating_point asks for no "
        "recall, precision or answered_accuracy",
    ),
    "guard that guards nothing": (
        [("finetune:\n", "prepare:\n  guard_rows: 29\nfinetune:\n")],
        "guard_rows",
        "prepare.guard_rows 29 can guard nothing: evaluate.min_groups asks for 30 groups of rows; "
        "0 does without a guard",
    ),
    "further column by a name that rows have": (
        [("root: data", "root: data\n  columns:\n    metadata:\n      label: x")],
        "label: x",
        "source.columns.metadata.label: rows have a column label of their own; name it otherwise, "
        "such as my_label: {column: label} (got 'label')",
    ),
    "further column by a name of what the gate records": (
        [("root: data", "root: data\n  columns:\n    metadata:\n      abstained_challenger: x")],
        "abstained_challenger: x",
        "source.columns.metadata.abstained_challenger: rows have a column abstained_challenger of "
        "their own; name it otherwise, such as my_abstained_challenger: {column: "
        "abstained_challenger} (got 'abstained_challenger')",
    ),
    "further column by no name": (
        [("root: data", "root: data\n  columns:\n    metadata: ['a,b']")],
        "metadata",
        "source.columns.metadata.a,b: is no name for a column: use up to 60 letters, digits and "
        ". - _ (got 'a,b')",
    ),
    "further column of an unknown kind": (
        [("root: data", "root: data\n  columns:\n    metadata:\n      age: {kind: int}")],
        "age",
        "source.columns.metadata.age.kind: input should be 'text' or 'number' (got 'int')",
    ),
    "further column that two files declare in two ways": (
        [
            ("{path: a.csv, name: a}", "{path: a.csv, columns: {metadata: {age: {kind: number}}}}"),
            ("root: data", "root: data\n  columns: {metadata: [age]}"),
        ],
        "source:",
        "source: columns.metadata: age is declared in two ways; kind and required must be "
        "the same for all files",
    ),
    "section is missing": (
        [("task:\n  kind: text-classification\n  labels: [bad, good]\n", "")],
        "name: demo",
        "task: is missing",
    ),
    "key is missing": (
        [("      at:", "      name:"), ("    - path: b.csv\n", "    -\n")],
        "    -",
        "source.files.1.path: is missing",
    ),
    "key twice": (
        [("  epochs: 2\n", "  epochs: 2\n  seed: 1\n  epochs: 3\n")],
        "epochs: 3",
        "epochs is given twice",
    ),
    "key twice in a list": ([("name: a}", "path: c.csv}")], "c.csv", "path is given twice"),
    "home of nobody": (
        [("root: data", "root: ~nobody-has-this-name/x")],
        "root",
        "source.root: is no path: Could not determine home directory. "
        "(got '~nobody-has-this-name/x')",
    ),
    "null byte": (
        [("base: models/tiny", r'base: "a\0b"')],
        "base",
        r"finetune.base.0: is no path: embedded null byte (got 'a\x00b')",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_problem_is_told_with_its_line(project, case):
    exchanges, mark, expected = case
    path = project(*exchanges)
    found = problems_of(path)
    if mark == "    -":
        line = Path(path).read_text().splitlines().index(mark) + 2
    else:
        line = line_of(path, mark)
    assert found == [f"line {line}: {expected}"]


def test_sections_that_do_not_suit_each_other_are_told_at_once(project):
    path = project(
        ("  root: data", "  label_bins: {low: [null, 0], high: [0, null]}\n  root: data"),
        ("epochs: 2", "metric: r2\nevaluate:\n  primary: r2\n  floors: {accuracy: 90}"),
    )
    assert [problem.split(" ")[:3] for problem in problems_of(path)] == [
        ["line", f"{line_of(path, 'label_bins')}:", "source.label_bins"],
        ["line", f"{line_of(path, 'primary')}:", "evaluate.primary"],
        ["line", f"{line_of(path, 'floors')}:", "evaluate.floors.accuracy"],
        ["line", f"{line_of(path, 'metric')}:", "finetune.metric"],
    ]


def test_all_problems_come_at_once_and_each_once(project):
    path = project(
        ("epochs: 2", "epochs: two\n  epochs: many\n  sede: 1"),
        ("[bad, good]", "[0, 1]"),
        ("name: a}", "shear: 2}"),
        ("timezone: UTC", "timezone: Nowhere"),
    )
    found = problems_of(path, "drift.min_rows=1", "trigger.off=x", "nonsense")
    assert [problem.split(": ")[:2] for problem in found] == [
        [f"line {line_of(path, 'epochs: many')}", "epochs is given twice"],
        ["--set nonsense", "write it as key.key=value"],
        [f"line {line_of(path, 'labels')}", "task.labels.0"],
        [f"line {line_of(path, 'labels')}", "task.labels.1"],
        [f"line {line_of(path, 'shear')}", "source.files.0.shear"],
        [f"line {line_of(path, 'Nowhere')}", "resolve.timezone"],
        [f"line {line_of(path, 'epochs: many')}", "finetune.epochs"],
        [f"line {line_of(path, 'sede')}", "finetune.sede"],
        ["--set drift.min_rows=1", "drift.min_rows"],
        ["--set trigger.off=x", "trigger.off"],
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name: demo\nx: [1, 2\n", "line 3: expected ',' or ']', but got '<stream end>'"),
        ("name: demo\n\tx: 1\n", r"line 2: found character '\t' that cannot start any token"),
        ("name: demo\n\nx: \x00\n", "line 3: special characters are not allowed"),
        ("name: demo\nx: *nowhere\n", "line 2: found undefined alias 'nowhere'"),
        ("name: demo\n? [a, b]\n: c\n", "line 2: found unhashable key"),
        ("name: demo\n---\nname: demo\n", "line 2: but found another document"),
        (
            "name: demo\nx: !!python/object/apply:os.getcwd []\n",
            "line 2: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/object/apply:os.getcwd'",
        ),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(project, text, what):
    path = project(text=text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    assert str(refused.value) == f"{path} is not YAML: {what}"


@pytest.mark.parametrize("text", ["", "# a comment\n", "- name: demo\n", "demo\n", "null\n", "3"])
def test_what_is_no_mapping_is_no_project(project, text):
    path = project(text=text)
    with pytest.raises(ConfigError, match="is empty, or no mapping of keys to values"):
        load(path)


@pytest.mark.parametrize(
    "text", ["name: &a [*a]\n", "name: &a {x: *a}\n", "name: " + "[" * 4000 + "]" * 4000]
)
def test_endless_nesting_is_refused(project, text):
    with pytest.raises(ConfigError, match="is nested too deeply, or an anchor holds itself"):
        load(project(text=text))


def test_anchors_that_unfold_to_billions_are_refused(project):
    bomb = "x: &a0 [" + ", ".join("1" * 10) + "]\n"
    for level in range(1, 10):
        bomb += f"x{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    with pytest.raises(ConfigError, match=r"line \d+: it unfolds to more than 100,000 values"):
        load(project(text=SOUND + bomb))


def test_another_encoding_is_refused(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_bytes(SOUND.replace("two words decide", "naïveté").encode("latin-1"))
    with pytest.raises(ConfigError, match=f"cannot read {re.escape(str(path))}: 'utf-8' codec"):
        load(str(path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path, encoding, newline):
    path = tmp_path / "demo.yaml"
    path.write_bytes(SOUND.replace("\n", newline).replace("two words", "二語").encode(encoding))
    config = load(str(path))
    assert (config.name, config.description) == ("demo", "二語 decide")


# --- words that YAML 1.1 takes for something else


def test_a_date_needs_no_quotes(project):
    path = project(('at: "2026-01-12"', "at: 2026-01-12"), ('"2026-01-05"', "2026-01-05"))
    config = load(path, ["source.files=[{path: c.csv, at: 2026-03-01}]"])
    assert config.resolve.start == "2026-01-05"
    assert files_of(config).files[0].at == "2026-03-01"
    assert files_of(load(path)).files[1].at == "2026-01-12"
    assert load(path, ["resolve.start=2026-02-02"]).resolve.start == "2026-02-02"


@pytest.mark.parametrize("labels", [("no", "yes"), ("off", "on"), ("n", "y"), ("No", "YES")])
def test_labels_that_mean_yes_or_no_need_no_quotes(project, labels):
    path = project(("[bad, good]", f"[{', '.join(labels)}]"))
    assert load(path).task.label_names == labels


def test_the_key_on_is_a_key_and_no_boolean(project):
    path = project(text=SOUND + "trigger:\n  on: [performance]\n")
    assert load(path).trigger.on == ("performance",)
    assert load(path, ["trigger.on=[drift]"]).trigger.on == ("drift",)


TASKS_OF_OTHERS = {
    "no kind": (
        "task: {labels: [bad, good]}",
        "task.kind: is missing; known are text-classification, text-regression, text-anomaly, "
        "image-classification, tabular-classification",
    ),
    "unknown kind": (
        "task: {kind: text-regresion, low: 0, high: 1}",
        "task.kind: unknown kind; did you mean text-regression? (got 'text-regresion')",
    ),
    "no mapping": ("task: 3", "task: should hold keys and values, such as {max_tokens: …} (got 3)"),
    "key of another kind": (
        "task: {kind: text-regression, low: 0, high: 1, labels: [a, b]}",
        "task.labels: unknown key; known are max_tokens, clean, kind, low, high",
    ),
    "no range": (
        "task: {kind: text-regression, low: 1, high: 1}",
        "task: task.low must be below task.high "
        "(got {'kind': 'text-regression', 'low': 1, 'high': 1})",
    ),
    "images without images": (
        "task: {kind: image-classification, labels: [a, b]}",
        "source.columns must name images, which image-classification reads; "
        "see the keys text, image, pixels and record",
    ),
}


@pytest.mark.parametrize("case", TASKS_OF_OTHERS.values(), ids=TASKS_OF_OTHERS.keys())
def test_a_problem_of_any_kind_of_task_is_told(tmp_path, case):
    task, expected = case
    path = tmp_path / "demo.yaml"
    path.write_text(f"name: demo\n{task}\nsource: {{kind: files, files: [{{path: a}}]}}\n")
    (found,) = problems_of(str(path))
    assert found.split(": ", 1)[1] == expected


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (
            "{text: a, image: b}",
            "source.columns: a row holds one content, not text and image "
            "(got {'text': 'a', 'image': 'b'})",
        ),
        (
            "{pixels: {first: a, last: b, height: 2}}",
            "source.columns.pixels.width: is missing",
        ),
    ],
)
def test_a_problem_of_the_columns_is_told(tmp_path, columns, problem):
    path = tmp_path / "demo.yaml"
    path.write_text(
        "name: demo\ntask: {kind: image-classification, labels: [a, b]}\n"
        f"source:\n  kind: files\n  files: [{{path: a}}]\n  columns: {columns}\n"
    )
    (found,) = problems_of(str(path))
    assert found == f"line 6: {problem}"


def test_bins_make_no_numbers_for_a_regression(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(
        "name: demo\ntask: {kind: text-regression, low: 0, high: 1}\n"
        "source: {kind: files, files: [{path: a}], label_bins: {a: [null, 0], b: [0, null]}}\n"
    )
    (found,) = problems_of(str(path))
    assert found.endswith("source.label_bins makes labels, but text-regression takes numbers")


def test_files_may_lie_in_several_folders_each_with_columns_of_its_own(tmp_path):
    (tmp_path / "demo.yaml").write_text(
        "name: demo\ntask: {kind: text-classification, labels: [a, b]}\n"
        "source:\n  kind: files\n  root: here\n  files:\n"
        "    - {path: a.csv}\n"
        "    - {path: b.csv, root: there, columns: {text: body}}\n"
        "    - {path: c.csv, root: 'package:data', requirement: package==1}\n"
    )
    source = files_of(load(str(tmp_path / "demo.yaml")))
    assert source.roots == [
        (str(tmp_path / "here"), ""),
        (str(tmp_path / "there"), ""),
        ("package:data", "package==1"),
    ]
    assert source.files[1].columns is not None
    assert source.files[1].columns.text == "body"


def test_bins_may_be_named_by_numbers(project):
    bins = "  label_bins: {0: [null, 0], 1: [0, null]}\n  root: data"
    path = project(("[bad, good]", '["0", "1"]'), ("  root: data", bins))
    assert load(path).source.label_bins == {"0": (None, 0.0), "1": (0.0, None)}


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "false", "False", "FALSE"])
def test_true_and_false_stay_booleans(project, word):
    path = project(("epochs: 2", f"compile: {word}"))
    assert load(path).finetune.compile is (word.lower() == "true")


def test_numbers_may_be_written_as_in_python(project):
    path = project(("epochs: 2", "learning_rate: 1e-4"))
    assert load(path).finetune.learning_rate == 1e-4
    assert load(path, ["finetune.learning_rate=2e-5"]).finetune.learning_rate == 2e-5


# --- anchors


MERGED = """\
    - &first {path: a.csv, name: a, share: [0, 0.5]}
    - {<<: *first, share: [0.5, 1]}
"""
FILES = """\
    - {path: a.csv, name: a}
    - path: b.csv
      at: "2026-01-12"
"""


def test_anchors_and_merge_keys_work(project):
    config = load(project((FILES, MERGED)))
    first, second = files_of(config).files
    assert first.share == (0, 0.5)
    assert second.model_dump() == first.model_dump() | {"share": (0.5, 1)}


def test_a_problem_in_a_merged_mapping_is_told_for_both_places(project):
    path = project((FILES, MERGED), ("name: a", "nmae: a"))
    line = line_of(path, "&first")
    assert problems_of(path) == [
        f"line {line}: source.files.0.nmae: unknown key; did you mean name?",
        f"line {line + 1}: source.files.1.nmae: unknown key; did you mean name?",
    ]


def test_an_override_does_not_reach_through_an_alias(project):
    before = SOUND.split("finetune:")[0]
    path = project(text=f"evaluate: &seeded {{seed: 1}}\n{before}finetune: *seeded\n")
    config = load(path, ["finetune.seed=5"])
    assert (config.finetune.seed, config.evaluate.seed) == (5, 1)


# --- overrides


def test_an_override_replaces_one_value(project):
    path = project()
    config = load(
        path,
        [
            "finetune.epochs=3",
            "drift.max_drop = 0.4",
            "task.labels=[x, y, z]",
            "description=a = b",
            "finetune.epochs=4",
        ],
    )
    assert config.finetune.epochs == 4, "the last one wins"
    assert config.drift.max_drop == 0.4, "of a section that the file does not have"
    assert config.task.label_names == ("x", "y", "z")
    assert config.description == "a = b"
    assert config.finetune.base == load(path).finetune.base


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("finetune.epochs", "write it as key.key=value"),
        ("", "write it as key.key=value"),
        ("=3", "write it as key.key=value"),
        (".epochs=3", "write it as key.key=value"),
        ("finetune.=3", "write it as key.key=value"),
        ("finetune..epochs=3", "write it as key.key=value"),
        ("finetune.epochs=[3", "the value is not YAML; quotes may be missing"),
        ("description=a: b: c", "the value is not YAML; quotes may be missing"),
        ("name.first=x", "name is no section"),
        ("finetune.epochs.often=3", "epochs is no section"),
        ("source.files.0.path=c.csv", "files is no section"),
        ("finetune.epoch=3", "finetune.epoch: unknown key; did you mean epochs?"),
        ("finetune=3", "finetune: should hold keys and values, such as {base: …} (got 3)"),
        ("name=", "name: input should be a valid string; put it in quotes (got None)"),
        ("resolve.start=2026-02-30", "resolve.start: day is out of range for month (got '202"),
    ],
)
def test_a_wrong_override_is_named(project, override, what):
    (problem,) = problems_of(project(), override)
    assert problem.startswith(f"--set {override}: {what}")


def test_a_problem_of_the_file_that_is_overridden_is_gone(project):
    path = project(("epochs: 2", "epochs: two"))
    assert load(path, ["finetune.epochs=2"]).finetune.epochs == 2
    (problem,) = problems_of(path, "finetune.epochs=0")
    assert problem.startswith("--set finetune.epochs=0: finetune.epochs: input should be greater")


def test_an_override_that_is_not_to_be_read_is_cut(project):
    (problem,) = problems_of(project(), f"finetune.epochs={'9' * 5000}")
    assert (
        problem
        == f"--set finetune.epochs={'9' * 63}…: the value is not YAML; quotes may be missing"
    )


# --- finding


def test_an_unknown_project_gets_a_suggestion():
    with pytest.raises(ConfigError, match="no project 'sentimant'; did you mean sentiment"):
        load("sentimant")
    with pytest.raises(ConfigError, match=r"shipped are: .*sentiment.*such as zzz\.yaml"):
        load("zzz")


@pytest.mark.parametrize("name", ["nowhere.yaml", "nowhere.yml", "no/where"])
def test_a_path_to_nothing_is_refused(name):
    with pytest.raises(ConfigError, match=f"there is no project file {re.escape(name)}"):
        load(name)


def test_a_folder_is_no_project_file(tmp_path):
    with pytest.raises(ConfigError, match="there is no project file"):
        load(str(tmp_path))


# --- paths


def base_places(config):
    return [base.place for base in config.finetune.base]


def test_relative_paths_start_at_the_file(project, tmp_path, monkeypatch):
    path = project()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for named in (path, "../demo.yaml"):
        config = load(named)
        assert files_of(config).root == str(tmp_path / "data")
        assert base_places(config) == [str(tmp_path / "models" / "tiny")]
        trusted = f"evaluate.holdout={{path: trusted.csv, sha256: {'a' * 64}}}"
        holdout = load(named, [trusted]).evaluate.holdout
        assert holdout and holdout.path == str(tmp_path / "trusted.csv")


def test_other_paths_stay(project, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    path = project(("root: data", "root: ~/data"), ("models/tiny", "package:folder"))
    config = load(path)
    assert files_of(config).root == str(tmp_path / "me" / "data")
    assert base_places(config) == ["package:folder"]
    assert base_places(load(path, ["finetune.base=/opt/model"])) == ["/opt/model"]
    assert files_of(load(path, ["source.root=.."])).root == str(tmp_path.parent)


def test_what_else_a_training_reads_is_anchored_and_handed_to_resolve(project, tmp_path):
    read = "distill: {teacher: teacher}, augment: {synonyms: words.json}"
    config = load(project(("epochs: 2", read.replace(", a", "\n  a"))))
    teacher, words = str(tmp_path / "teacher"), str(tmp_path / "words.json")
    assert config.finetune.distill.teacher == teacher
    assert config.finetune.augment.synonyms == words
    assert config.bases.others == {teacher: "", words: ""}
    assert load(project()).bases.others == {}


# --- what a project hands to the graphs


def test_sections_travel_as_json_and_come_back(project):
    config = load(project())
    names = [name.rstrip("_") for name in ProjectConfig.model_fields]
    given = config.arguments([*names, *(f"{name}_config" for name in names), "ledger", "bases"])
    assert given["ledger"] == "projects/demo"
    assert Bases.from_json(given["bases"]).models == config.finetune.base
    sections = {name: getattr(config, name) for name in ProjectConfig.model_fields}
    sections = {name: each for name, each in sections.items() if isinstance(each, Section)}
    assert {"finetune", "validate_", "register_"} <= set(sections)
    for name, section in sections.items():
        json_text = given[f"{name.rstrip('_')}_config"]
        assert type(section).from_json(json_text) == section


def test_only_what_a_graph_asks_for_is_handed_over(project):
    given = load(project()).arguments(["project", "drift_config", "window"])
    assert given == {"project": "demo", "drift_config": load(project()).drift.to_json()}


# --- shipped projects


def test_a_policy_is_the_section_trigger_in_a_file_of_its_own(tmp_path):
    path = tmp_path / "calm.yaml"
    path.write_text("on: [performance]\ngovernor: {persistence: [2, 3], cooldown_hours: 72}\n")
    policy = load_policy(path)
    assert (policy.on, policy.governor.persistence) == (("performance",), (2, 3))
    assert policy.governor.cooldown_hours == 72


def test_all_problems_of_a_policy_come_at_once_with_their_lines(tmp_path):
    path = tmp_path / "calm.yaml"
    path.write_text(
        "on: [boredom]\n"
        "volume: 3\n"
        "governor:\n"
        "  persistance: [2, 3]\n"
        "  quiet_hours: [at night]\n"
        "  device_hours_per_week: lots\n"
    )
    with pytest.raises(ConfigError) as refused:
        load_policy(path)
    heading, *problems = str(refused.value).split("\n")
    assert heading == f"{path} has 5 problems:"
    for line, part in (
        (1, "trigger.on.0"),
        (2, "trigger.volume: unknown key; did you mean volume_rows?"),
        (4, "trigger.governor.persistance: unknown key; did you mean persistence?"),
        (5, "write it as 22:00-06:00"),
        (6, "trigger.governor.device_hours_per_week"),
    ):
        assert any(f"line {line}: " in each and part in each for each in problems), (line, problems)
    path.write_text("trigger:\n  on: [manual]\n")
    with pytest.raises(ConfigError, match="a policy is the section trigger itself"):
        load_policy(path)
    with pytest.raises(ConfigError, match="there is no policy file"):
        load_policy(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", shipped_projects())
def test_a_shipped_project_is_sound(name):
    config = load(name)
    assert config.name == name
    assert config.description, "a reader wants to know what it answers"


@pytest.mark.parametrize("name", shipped_projects())
def test_a_shipped_project_begins_with_its_launch_command(name):
    first = (SHIPPED / f"{name}.yaml").read_text().splitlines()[0]
    sign, tokiwa, command, *words = shlex.split(first)
    assert (sign, tokiwa) == ("#", "tokiwa")
    assert command in typer.main.get_group(app).commands
    assert words[0] == name


# --- schema


def breaches(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """Return where a value breaks a JSON schema, for the words that pydantic uses."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]] | {
            key: each for key, each in schema.items() if key != "$ref"
        }
    if "oneOf" in schema:
        kinds_of = schema["discriminator"]["mapping"]
        if value["kind"] not in kinds_of:
            return [f"{at}: no such kind"]
        return breaches(value, {"$ref": kinds_of[value["kind"]]}, root, at)
    if "anyOf" in schema:
        tries = [breaches(value, each, root, at) for each in schema["anyOf"]]
        return [] if [] in tries else [f"{at}: none of the choices fits"]
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    kind = schema.get("type")
    if kind and (
        not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")
    ):
        return [f"{at}: not {kind}"]
    found = []
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: not in {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{at}: not like {schema['pattern']}")
    for word, sound in (
        ("minimum", lambda limit: value >= limit),
        ("maximum", lambda limit: value <= limit),
        ("exclusiveMinimum", lambda limit: value > limit),
        ("exclusiveMaximum", lambda limit: value < limit),
        ("minItems", lambda limit: len(value) >= limit),
        ("maxItems", lambda limit: len(value) <= limit),
    ):
        if word in schema and not sound(schema[word]):
            found.append(f"{at}: {word} {schema[word]}")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        found += [f"{at}.{key}: missing" for key in schema.get("required", []) if key not in value]
        for key, each in value.items():
            if key in known:
                found += breaches(each, known[key], root, f"{at}.{key}")
            elif others is False:
                found.append(f"{at}.{key}: unknown")
            elif isinstance(others, dict):
                found += breaches(each, others, root, f"{at}.{key}")
    if isinstance(value, list):
        firsts = schema.get("prefixItems", [])
        for index, each in enumerate(value):
            item = firsts[index] if index < len(firsts) else schema.get("items", {})
            found += breaches(each, item, root, f"{at}.{index}")
    return found


def spoil(tree: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """Return a copy of a tree with one value exchanged."""
    spoilt = copy.deepcopy(tree)
    *way, last = [int(key) if key.isdigit() else key for key in dotted.split(".")]
    branch: Any = spoilt
    for key in way:
        branch = branch[key]
    branch[last] = value
    return spoilt


@pytest.mark.parametrize("name", shipped_projects())
def test_the_schema_accepts_shipped_files_and_refuses_spoilt_ones(name):
    schema = ProjectConfig.model_json_schema(by_alias=True)
    json.dumps(schema)
    tree = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    assert breaches(tree, schema, schema) == []
    for place, value in (
        ("name", "Two Words"),
        ("task.labels", ["one"]),
        ("task.kind", "poetry"),
        ("source.files", []),
        ("source.files.0.nmae", "x"),
        ("finetune.epochs", 0),
        ("finetune.epochs", "many"),
        ("validate_", {}),
    ):
        assert len(breaches(spoil(tree, place, value), schema, schema)) == 1, place


def test_the_schema_knows_every_key_that_a_file_may_have():
    schema = ProjectConfig.model_json_schema(by_alias=True)
    for section in schema["$defs"].values():
        assert section["additionalProperties"] is False
    assert {"validate", "register"} <= set(schema["properties"])


# --- anything at all


SHAPES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.dates()
    | st.sampled_from(["~x", "a:b", "~", "\0", ":", "2026-02-30", "null", "[", "(", "a" * 5000]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*ProjectConfig.model_fields, "kind", "files", "labels", "path", "on"])
            | st.text(max_size=6)
            | st.integers()
            | st.booleans()
            | st.none(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to everything inside a tree."""
    keys = value if isinstance(value, dict) else range(len(value) if type(value) is list else 0)
    ways = [(*way, key) for key in keys]
    return ways + [below for each in ways for below in places(value[each[-1]], each)]


WHOLE = yaml.safe_load(SOUND) | {
    "trigger": {"on": ["drift"], "lease_hours": 1.0},
    "register": {"tags": {"team": "x"}},
    "drift": {"min_rows": 100},
}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_mutation_raises_anything_but_a_config_error(tmp_path, data):
    tree = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 3), "mutations")):
        *way, last = data.draw(st.sampled_from(places(tree)), "place")
        branch = tree
        for key in way:
            branch = branch[key]
        if isinstance(branch, dict) and data.draw(st.booleans(), "rename"):
            branch[data.draw(st.text(max_size=8) | st.sampled_from(["nmae", "seed"]))] = branch.pop(
                last
            )
        elif data.draw(st.booleans(), "drop"):
            del branch[last]
        else:
            branch[last] = data.draw(SHAPES, "value")
        if not places(tree):
            break
    path = tmp_path / "mutated.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    overrides = data.draw(
        st.lists(
            st.builds(
                "{}={}".format,
                st.sampled_from(["finetune.epochs", "task", "a.b", "source.files", "name.x", ""])
                | st.text(max_size=8),
                st.text(max_size=8),
            )
            | st.text(max_size=12),
            max_size=2,
        ),
        "overrides",
    )
    try:
        config = load(str(path), overrides)
    except ConfigError as refused:
        message = str(refused)
        assert message.startswith(str(path))
        assert len(message) < 20_000
    else:
        assert ProjectConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config


# --- what rows must be ---


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            "validate: {columns: {tekst: {max_characters: 9}}}",
            "validate.columns.tekst: rows have no such column; did you mean text?",
        ),
        (
            "validate: {columns: {text: {min: 3, max: 1}}}",
            "validate.columns.text: min must not be above its max",
        ),
        (
            "validate: {severity: {schema: warn}}",
            "validate: severity: schema is always an error: nothing learns without it",
        ),
        (
            "validate: {max_age_days: 2}",
            "validate.max_age_days counts from the end of a window, and all rows are one; "
            "see resolve.window_days",
        ),
        (
            "collect: {partitions: 4}",
            "collect.partitions cuts a window of time into parts, and all rows are one window; "
            "set resolve.window_days and resolve.start, or leave partitions out",
        ),
        (
            "collect: {partitions: 1001}",
            "collect.partitions: input should be less than or equal to 1000",
        ),
        (
            "finetune: {balance: smote}",
            "finetune: balance smote blends features, which rest with method head alone; "
            "use weights or over with method full",
        ),
    ],
)
def test_rules_that_cannot_hold_are_refused_with_their_line(tmp_path, sections, expected):
    path = tmp_path / "demo.yaml"
    task = "task: {kind: text-classification, labels: [a, b]}"
    path.write_text(
        f"name: demo\n{task}\nsource: {{kind: files, files: [{{path: a}}]}}\n{sections}\n"
    )
    (found,) = problems_of(str(path))
    place, said = found.split(": ", 1)
    assert place == "line 4"
    assert said.split(" (got")[0] == expected


def test_label_errors_are_looked_for_among_classes_alone(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(
        "name: demo\n"
        "task: {kind: text-regression, low: 0, high: 1}\n"
        "source: {kind: files, files: [{path: a}]}\n"
        "prepare: {label_errors: warn}\n"
    )
    assert problems_of(str(path)) == [
        "line 4: prepare.label_errors looks for wrong labels among classes, and task "
        "text-regression has none; leave it out"
    ]


def test_rows_are_stratified_by_classes_alone(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(
        "name: demo\n"
        "task: {kind: text-regression, low: 0, high: 1}\n"
        "source: {kind: files, files: [{path: a}]}\n"
        "prepare: {valid_split: stratified}\n"
    )
    assert problems_of(str(path)) == [
        "line 4: prepare.valid_split stratified takes so many rows of each class, and task "
        "text-regression has none; split by hash or time"
    ]


def test_a_tabular_task_and_its_source_name_the_same_columns(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(
        "name: demo\n"
        "task: {kind: tabular-classification, labels: [a, b], columns: {x: number, y: category}}\n"
        "source: {kind: files, files: [{path: a}], columns: {record: [x, z]}}\n"
    )
    (found,) = problems_of(str(path))
    assert found.endswith(
        "task.columns and source.columns.record must name the same columns; "
        "y, z is in one of them only"
    )
