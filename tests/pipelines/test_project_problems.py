"""All that may be wrong with a project file, told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.finetune.config import FinetuneConfig
from tests.project_files import line_of, problems_of

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
