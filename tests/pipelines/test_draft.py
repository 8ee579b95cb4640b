"""``tokiwa init`` guesses the columns of a table, and what it writes can be run."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.errors import BadInput
from components.sources.files import ColumnNames
from components.tasks.text_regression import TextRegression
from pipelines.cli import main
from pipelines.draft import draft, window_days
from pipelines.draft_columns import Columns
from pipelines.project_file import load

ROWS = 120
TEXTS = ("the film was good", "a very dull story", "the story was not good", "an awful film")
Table = list[dict[str, Any]]


def table(
    labels: Sequence[Any] = ("bad", "good"), rows: int = ROWS, **columns: Callable[[int], Any]
) -> Table:
    """Return rows with a text, a label, and further columns made from the row's number."""
    draw = random.Random(0)
    return [
        {
            "text": f"{draw.choice(TEXTS)} {number}",
            "label": labels[number % len(labels)],
            **{name: make(number) for name, make in columns.items()},
        }
        for number in range(rows)
    ]


def renamed(rows: Table, **names: str) -> Table:
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


def as_csv(rows: Table, separator: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_json_lines(rows: Table) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def as_parquet(rows: Table) -> bytes:
    out = io.BytesIO()
    pd.DataFrame(rows).to_parquet(out, index=False)
    return out.getvalue()


def day(number: int) -> str:
    return f"2026-01-{5 + number % 20:02d}"


# Each case: file name, content, what the columns are taken for, labels.
TABLES: dict[str, tuple[str, bytes, Columns, tuple[str, ...]]] = {
    "plain": (
        "data.csv",
        as_csv(table()),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "other names": (
        "data.csv",
        as_csv(renamed(table(), text="Customer message", label="Intent")),
        Columns("Customer message", "Intent", None, None, None),
        ("bad", "good"),
    ),
    "names that say nothing": (
        "data.csv",
        as_csv(renamed(table(), text="column 1", label="column 2")),
        Columns("column 1", "column 2", None, None, None),
        ("bad", "good"),
    ),
    "three classes": (
        "data.csv",
        as_csv(table(("pan", "so-so", "rave"))),
        Columns("text", "label", None, None, None),
        ("pan", "rave", "so-so"),
    ),
    "ids": (
        "data.csv",
        as_csv(table(review_id=lambda n: f"r{n}")),
        Columns("text", "label", "review_id", None, None),
        ("bad", "good"),
    ),
    "ids longer than texts": (
        "data.csv",
        as_csv(renamed(table(uuid=lambda n: f"{n:040d}"), text="said", label="meant")),
        Columns("said", "meant", "uuid", None, None),
        ("bad", "good"),
    ),
    "ids that come twice are no ids": (
        "data.csv",
        as_csv(table(id=lambda n: n // 2)),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "ids by the ends of their names": (
        "data.csv",
        as_csv(renamed(table(TicketNo=lambda n: f"TICKET-{n:08d}"), text="said")),
        Columns("said", "label", "TicketNo", None, None),
        ("bad", "good"),
    ),
    "codes that come twice are no ids": (
        "data.csv",
        as_csv(table(post_code=lambda n: f"{n // 2:05d}")),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "unique values under another name are no ids": (
        "data.csv",
        as_csv(table(ticket=lambda n: f"T{n:05d}")),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "semicolons": (
        "data.csv",
        as_csv(table(note=lambda n: "one, two" if n % 2 else ""), ";"),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "bars": (
        "data.txt",
        as_csv(table(note=lambda n: "one, two; three"), "|"),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "groups": (
        "data.csv",
        as_csv(table(id=lambda n: n, customer=lambda n: f"c{n // 4}")),
        Columns("text", "label", "id", "customer", None),
        ("bad", "good"),
    ),
    "fewer users than classes": (
        "data.csv",
        as_csv(renamed(table(("a", "b", "c"), user_id=lambda n: n % 2), label="outcome")),
        Columns("text", "outcome", None, "user_id", None),
        ("a", "b", "c"),
    ),
    "days": (
        "data.csv",
        as_csv(table(date=day)),
        Columns("text", "label", None, None, "date"),
        ("bad", "good"),
    ),
    "moments with changing offsets": (
        "data.csv",
        as_csv(table(created_at=lambda n: f"{day(n)}T10:00:00{('+09:00', '-03:00')[n % 2]}")),
        Columns("text", "label", None, None, "created_at"),
        ("bad", "good"),
    ),
    "moments with gaps are not relied upon": (
        "data.csv",
        as_csv(table(date=lambda n: day(n) if n % 10 else "")),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "a moment that is none costs its row alone": (
        "data.csv",
        as_csv(table(date=lambda n: day(n) if n else "soon")),
        Columns("text", "label", None, None, "date"),
        ("bad", "good"),
    ),
    "times of no standard are not relied upon": (
        "data.csv",
        as_csv(table(date=lambda n: f"{1 + n % 20}. January")),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "tabs": (
        "my.data.tsv",
        as_csv(table(note=lambda n: "one, two"), "\t"),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "compressed tabs": (
        "data.TSV.gz",
        gzip.compress(as_csv(table(), "\t")),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "JSON lines": (
        "data.jsonl",
        as_json_lines(table(id=lambda n: n, tags=lambda n: ["x", n], score=lambda n: 0.5)),
        Columns("text", "label", "id", None, None),
        ("bad", "good"),
    ),
    "numbers as labels, in JSON lines": (
        "data.jsonl",
        as_json_lines(table((0, 1, 2.5, None))),
        Columns("text", "label", None, None, None),
        ("0", "1", "2.5"),
    ),
    "Parquet": (
        "data.parquet",
        as_parquet(table(time=lambda n: pd.Timestamp(day(n)), id=lambda n: n)),
        Columns("text", "label", "id", None, "time"),
        ("bad", "good"),
    ),
    "booleans as labels, in Parquet": (
        "data.pq",
        as_parquet(table((True, False))),
        Columns("text", "label", None, None, None),
        ("False", "True"),
    ),
    "commas, quotes and line ends in fields": (
        "data.csv",
        as_csv([row | {"text": f'he said "no",\n\ntwice: {row["text"]}'} for row in table()]),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "a byte order mark": (
        "data.csv",
        b"\xef\xbb\xbf" + as_csv(table()),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "unicode": (
        "映画 レビュー.csv",
        as_csv(renamed(table(("良い", "悪い 😀", "é\u2028\x85")), text="感想文", label="評価")),
        Columns("感想文", "評価", None, None, None),
        ("é\u2028\x85", "悪い 😀", "良い"),
    ),
    "short texts under a name": (
        "data.csv",
        as_csv([row | {"text": "良い映画"[: 2 + n % 3] + str(n)} for n, row in enumerate(table())]),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "labels like numbers": (
        "data.csv",
        as_csv(table(("1", "01", "1.0", "1e3", "0x1"))),
        Columns("text", "label", None, None, None),
        ("01", "0x1", "1", "1.0", "1e3"),
    ),
    "labels like YAML's words": (
        "data.csv",
        as_csv(table(("yes", "no", "true", "null", "on", "~", "2026-01-05", "NA", "nan"))),
        Columns("text", "label", None, None, None),
        ("2026-01-05", "NA", "nan", "no", "null", "on", "true", "yes", "~"),
    ),
    "labels like YAML's signs": (
        "data.csv",
        as_csv(table(("a: b", "# c", "[d", '"e', "'f", "*g", "&h", "\\i", "{{j}}", "k\tl"))),
        Columns("text", "label", None, None, None),
        tuple(sorted(("a: b", "# c", "[d", '"e', "'f", "*g", "&h", "\\i", "{{j}}", "k\tl"))),
    ),
    "blank labels": (
        "data.csv",
        as_csv(table(("bad", "", "good"))),
        Columns("text", "label", None, None, None),
        ("bad", "good"),
    ),
    "columns like markup": (
        "data.csv",
        as_csv(renamed(table(), text="[/b] text", label="[red]label")),
        Columns("[/b] text", "[red]label", None, None, None),
        ("bad", "good"),
    ),
}


@pytest.mark.parametrize("case", TABLES.values(), ids=TABLES.keys())
def test_a_draft_guesses_right_loads_and_passes_the_check(case, tmp_path, tiny_base, capsys):
    name, content, expected, labels = case
    path = tmp_path / name
    path.write_bytes(content)
    file = tmp_path / "out" / "own.yaml"
    file.parent.mkdir()

    assert main(["init", str(path), "--out", str(file)]) == 0
    assert f"text is {expected.text!r}, label is {expected.label!r}" in capsys.readouterr().out

    drafted = draft(path, file)
    assert drafted.columns == expected
    assert file.read_text(encoding="utf-8") == drafted.text
    assert drafted.text.splitlines()[0] == "# tokiwa run own.yaml"
    config = load(str(file))
    assert config.task.label_names == labels
    assert config.source.columns == ColumnNames(**asdict(expected))
    # So few rows are not cut into windows.
    assert config.resolve.window_days is None

    assert main(["check", str(file), "--set", f"finetune.base={tiny_base}", "--json"]) == 0
    windows = json.loads(capsys.readouterr().out)["windows"]
    assert windows, "no window has rows"
    if expected.time is None:
        assert [window["window"] for window in windows] == ["all"]
        assert windows[0]["rows"] == ROWS
        counted = windows[0]["labels"].split(", ") if len(labels) == 2 else []
        assert sorted(each.rsplit(" ", 1)[0] for each in counted) in ([], list(labels))


def test_the_first_window_holds_the_first_row(tmp_path, tiny_base, capsys):
    """19:30 in New York is the next day in UTC, in which the windows are."""
    path = tmp_path / "data.csv"
    lines = [
        f"2026-01-{5 + number % 14:02d}T19:30:00-05:00,this is text number {number},"
        f"{'good' if number % 3 else 'bad'}"
        for number in range(700)
    ]
    path.write_text("\n".join(["time,text,label", *lines]))
    file = tmp_path / "data.yaml"
    assert main(["init", str(path), "--out", str(file)]) == 0
    assert load(str(file)).resolve.start == "2026-01-06"
    capsys.readouterr()
    assert main(["check", str(file), "--set", f"finetune.base={tiny_base}", "--json"]) == 0
    windows = json.loads(capsys.readouterr().out)["windows"]
    assert [window["window"] for window in windows] == ["2026-01-06", "2026-01-13"]
    assert sum(window["rows"] for window in windows) == len(lines)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"text,label\n", "has no rows"),
        ("empty.jsonl", b"\n\n", "is empty"),
        ("list.jsonl", b"[1, 2]\n", "row 1 is not-an-object"),
        ("broken.jsonl", b'{"text": \n', "cannot read"),
        ("fake.parquet", b"text,label\n", "cannot read"),
        ("latin.csv", "text,label\nnaïveté,a\n".encode("latin-1"), "cannot read .*bad-encoding"),
        (
            "no-label.csv",
            as_csv([{"text": row["text"]} for row in table()]),
            "no column looks like a label among text: one with 2 to 100 different values",
        ),
        (
            "one-label.csv",
            as_csv(table(("only",))),
            "no column looks like a label among text, label",
        ),
        ("blank-labels.csv", as_csv(table(("",))), "no column looks like a label"),
        (
            "no-text.csv",
            as_csv([{"a": n, "label": n % 2} for n in range(ROWS)]),
            "no column looks like text among a, label; name it with --text",
        ),
        (
            "only-ids.csv",
            as_csv([{"id": f"{n:030d}", "label": n % 2} for n in range(ROWS)]),
            "no column looks like text",
        ),
    ],
)
def test_what_cannot_be_guessed_is_refused(name, content, why, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    file = tmp_path / "out.yaml"
    with pytest.raises(BadInput, match=why):
        draft(path, file)
    assert main(["init", str(path), "--out", str(file)]) == 2
    assert not file.exists()


def test_a_missing_file_is_the_users_mistake(tmp_path, capsys):
    assert main(["init", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err == f"error: there is no file {tmp_path / 'none.csv'}\n"


TICKETS = table(
    ("low", "high"),
    queue=lambda n: ("Billing", "Refund", "Shipping")[n % 3],
    subject=lambda n: f"about a bill {n}",
    ref=lambda n: f"r{n}",
    day=day,
    tribe=lambda n: f"t{n // 3}",
)


def test_other_columns_are_named_beside_the_guess(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_bytes(as_csv(TICKETS))
    assert main(["init", "data.csv"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "wrote data.yaml: text is 'text', label is 'label', time is 'day'"
    assert "label could also be: queue (3 values); choose with --label" in said
    assert "text could also be: subject (15 characters); choose with --text" in said


def test_columns_that_were_chosen_are_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_bytes(as_csv(TICKETS, ";"))
    chosen = {"text": "subject", "label": "queue", "id": "ref", "group": "tribe", "time": "day"}
    options = [word for role, name in chosen.items() for word in (f"--{role}", name)]
    assert main(["init", "data.csv", *options, "--separator", ";"]) == 0
    assert "could also be" not in capsys.readouterr().out
    config = load("data.yaml")
    assert config.source.columns == ColumnNames(**chosen)
    assert config.source.separator == ";"
    assert config.task.label_names == ("Billing", "Refund", "Shipping")


def test_a_separator_that_was_chosen_is_taken(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(as_csv(table(), "^"))
    with pytest.raises(BadInput, match="no column looks like"):
        draft(path, tmp_path / "own.yaml")
    drafted = draft(path, tmp_path / "own.yaml", {}, "^")
    (tmp_path / "own.yaml").write_text(drafted.text)
    assert load(str(tmp_path / "own.yaml")).source.separator == "^"
    path.write_bytes(as_csv(table(), "\t"))
    assert 'separator: "\\t"' in draft(path, tmp_path / "own.yaml", {}, "tab").text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--label", "quue"], "--label: the table has no column 'quue'; did you mean 'queue'?"),
        (["--text", "zzzz"], "--text: the table has no column 'zzzz'; it has text, label, queue"),
        (["--label", "ref"], "--label: 'ref' has 120 different values; a label has 2 to 100"),
        (["--id", "tribe"], "--id: 'tribe' does not name each row"),
        (
            ["--time", "queue"],
            "--time: 'queue' does not hold times of one form: none is known",
        ),
        (["--id", "ref", "--group", "ref"], "'ref' cannot be two things at once"),
        (["--separator", "::"], "a separator is one character, or tab, not '::'"),
    ],
)
def test_columns_that_cannot_be_chosen_are_refused(options, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_bytes(as_csv(TICKETS))
    assert main(["init", "data.csv", *options]) == 2
    assert why in capsys.readouterr().err
    assert not Path("data.yaml").exists()


def test_a_folder_is_no_table_and_what_it_holds_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "."]) == 2
    assert capsys.readouterr().err == "error: . is a folder; name a table\n"
    Path("data.csv").write_bytes(as_csv(TICKETS))
    assert main(["init", "."]) == 2
    assert "name a table, such as data.csv" in capsys.readouterr().err


def test_a_missing_table_is_named_before_a_file_in_the_way(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data.yaml").write_text("mine")
    assert main(["init", "data.csv"]) == 2
    assert capsys.readouterr().err == "error: there is no file data.csv\n"


@pytest.fixture
def films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = Path("My Films 2026.csv")
    path.write_bytes(as_csv(table()))
    return path


def test_the_file_is_named_after_the_table(films, capsys):
    assert main(["init", str(films)]) == 0
    typed = "tokiwa run 'My Films 2026.yaml'"
    assert f"next: tokiwa check 'My Films 2026.yaml', {typed}, then" in capsys.readouterr().out
    assert Path("My Films 2026.yaml").read_text().startswith(f"# {typed}\n")
    assert load("My Films 2026.yaml").name == "my-films-2026"


@pytest.mark.parametrize(
    ("name", "project"),
    [
        ("2026.csv", "p-2026"),
        ("映画.csv", "p"),
        ("-a--b-.csv", "a-b"),
        ("x" * 60 + ".csv", "x" * 40),
        (".csv", "p"),
    ],
)
def test_any_file_name_gives_a_project_name(name, project, films):
    films.rename(name)
    assert main(["init", f"./{name}"]) == 0
    (written,) = Path.cwd().glob("*.yaml")
    assert load(str(written)).name == project


def test_a_file_is_overwritten_by_force_only(films, capsys):
    own = Path("own.yaml")
    own.write_text("mine")
    assert main(["init", str(films), "--out", "own.yaml"]) == 2
    assert capsys.readouterr().err == "error: own.yaml exists already; --force overwrites it\n"
    assert own.read_text() == "mine"
    assert main(["init", str(films), "--out", "own.yaml", "--force"]) == 0
    [part] = load("own.yaml").source.parts
    assert part.path == str(films)


@pytest.mark.parametrize(
    ("out", "why"),
    [
        ("own", "a project file ends in .yaml, unlike own"),
        ("own.txt", "a project file ends in .yaml, unlike own.txt"),
        ("no/where/own.yaml", "there is no folder no/where"),
    ],
)
def test_a_place_that_cannot_be_run_from_is_refused(films, out, why, capsys):
    assert main(["init", str(films), "--out", out]) == 2
    assert capsys.readouterr().err == f"error: {why}\n"
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("rows", "per_day", "days"),
    [(2000, 3, 100), (2000, 100, 7), (9000, 50, 7), (500, 10, None), (3000, 1000, None)],
)
def test_windows_are_long_enough_to_train_on_or_there_are_none(rows, per_day, days):
    times = pd.date_range("2024-01-01", periods=rows, freq=pd.Timedelta(days=1) / per_day)
    found = window_days(pd.Series(times.strftime("%Y-%m-%dT%H:%M:%S")))
    assert (found is None) == (days is None)
    if days is not None:
        assert days <= found <= days + 1


def test_numbers_become_a_regression_where_nothing_is_a_class(tmp_path):
    draw = random.Random(5)
    rows = [
        {"key": number, "text": f"an awful film {number}", "price": draw.uniform(-1.5, 7.2)}
        for number in range(200)
    ]
    path = tmp_path / "data.csv"
    path.write_text(as_csv(rows).decode())
    drafted = draft(path, tmp_path / "own.yaml")
    columns = drafted.columns
    assert (columns.text, columns.label, columns.id) == ("text", "price", "key")
    (tmp_path / "own.yaml").write_text(drafted.text)
    task = load(str(tmp_path / "own.yaml")).task
    assert task == TextRegression(low=-2, high=8)


def test_a_damaged_row_stops_no_draft_and_is_told_of(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = as_csv(table()) + b"one,a,too many\n" + "schön,good\n".encode("latin-1")
    Path("data.csv").write_bytes(rows + b"a film without a label,\n,good\n")
    assert main(["init", "data.csv"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert (
        "2 of 124 rows cannot be read, and would go into quarantine: 1 wrong-column-count, "
        "1 bad-encoding; the first is row 121: 'one,a,too many'; if the file is not in UTF-8: "
        "--encoding cp1252 --force"
    ) in said
    assert "2 labels with their rows: good 61, bad 60" in said
    assert "1 rows have nothing in 'text', and would go into quarantine" in said
    assert "1 rows have nothing in 'label', and wait for labels" in said


def test_odd_labels_are_named_and_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ["good"] * 60 + ["bad"] * 50 + ["Good "] * 3 + ["god"] + ["?"] * 2 + ["BAD"] * 20
    Path("data.csv").write_bytes(as_csv(table(names, rows=len(names))))
    assert main(["init", "data.csv"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "3 labels with their rows: good 60, bad 50, BAD 20" in said
    left_out = "'Good ' (3, like 'good'), '?' (2), 'god' (1, like 'good')"
    assert (
        f"left out of task.labels: {left_out}; 6 rows have these, and would go into quarantine: "
        "mend them, or add the label to task.labels"
    ) in said
    assert any("'bad' and 'BAD' look the same" in line for line in said)
    assert load("data.yaml").task.label_names == ("BAD", "bad", "good")
    assert f"# left out: {left_out}\n" in Path("data.yaml").read_text()


def test_a_table_without_texts_becomes_a_task_on_its_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "sensor_id": f"s{n}",
            "ts": f"{5 + n % 20:02d}.01.2026 08:30",
            "load": n / 7,
            "level": n % 11,
            "grade": "ABC"[n % 3],
            "failed": "yes" if n % 4 else "no",
        }
        for n in range(ROWS)
    ]
    Path("machines.parquet").write_bytes(as_parquet(rows))
    assert main(["init", "machines.parquet", "--label", "failed"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "wrote machines.yaml: label is 'failed', id is 'sensor_id', time is 'ts', "
        "learnt from load, level, grade"
    )
    config = load("machines.yaml")
    assert config.task.kind == "tabular-classification"
    assert config.task.columns == {"load": "number", "level": "number", "grade": "category"}
    assert config.source.columns.record == ["load", "level", "grade"]
    assert config.source.columns.time_format == "%d.%m.%Y %H:%M"
    assert main(["init", "machines.parquet", "--label", "load", "--force"]) == 2
    assert "'load' holds numbers, and of a table without texts" in capsys.readouterr().err


def test_times_of_several_forms_are_told_and_not_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dates = ("2026-01-05", "06.01.2026", "2026-01-07T10:00:00+01:00")
    Path("data.csv").write_bytes(as_csv(table(date=lambda n: dates[n % 3])))
    assert main(["init", "data.csv"]) == 0
    assert (
        "'date' holds times, but not of one form in each row: iso in 40 rows, %d.%m.%Y in 40 rows, "
        "iso with an offset in 40 rows; without times all rows are one window"
    ) in capsys.readouterr().out.splitlines()
    assert load("data.yaml").source.columns.time is None


def test_a_file_in_another_encoding_is_read_as_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = as_csv(renamed(table(), text="Prüftext")).decode()
    Path("data.csv").write_bytes(rows.replace("film", "Stück").encode("cp1252"))
    assert main(["init", "data.csv"]) == 2
    assert "such as --encoding cp1252" in capsys.readouterr().err
    assert main(["init", "data.csv", "--encoding", "klingon"]) == 2
    assert "there is no encoding 'klingon'" in capsys.readouterr().err
    assert main(["init", "data.csv", "--encoding", "cp1252"]) == 0
    assert load("data.yaml").source.encoding == "cp1252"
    assert load("data.yaml").source.columns.text == "Prüftext"


def test_ratings_are_numbers_to_learn_and_a_slip_is_told_of(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stars = [f"{n % 41 / 8:.3f}" for n in range(200)] + ["n/a"]
    Path("data.csv").write_bytes(as_csv(table(stars, rows=201)))
    assert main(["init", "data.csv"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "numbers from 0 to 5 are learnt" in said
    assert (
        "1 rows have what is no number in 'label', such as 'n/a', and would go into quarantine"
    ) in said
    assert load("data.yaml").task == TextRegression(low=0, high=5)


def test_ids_that_come_again_are_told_of(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data.csv").write_bytes(as_csv(table(id=lambda n: n // 2)))
    assert main(["init", "data.csv"]) == 0
    assert "'id' names no rows: 60 of its values come again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "why"), [("a.xlsx", "a workbook; save its sheet as CSV"), ("a.json", "ends in .jsonl")]
)
def test_what_is_no_table_is_refused_with_what_to_do(name, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("[]")
    assert main(["init", name]) == 2
    assert why in capsys.readouterr().err


def test_a_few_bad_times_and_ids_cost_their_rows_alone_and_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = table(key=lambda n: f"k{max(n, 2)}", date=lambda n: day(n) if n > 1 else "32/13/2026")
    Path("data.csv").write_bytes(as_csv(rows))
    assert main(["init", "data.csv", "--id", "key"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert (
        "2 rows have no time in 'date', such as '32/13/2026', and would go into quarantine" in said
    )
    assert "2 values of 'key' come again or are missing: see tokiwa check" in said
    columns = load("data.yaml").source.columns
    assert (columns.id, columns.time) == ("key", "date")
    assert main(["check", "data.yaml"]) == 0
    told = capsys.readouterr().out
    assert "unreadable-time" in told and "32/13/2026" in told
