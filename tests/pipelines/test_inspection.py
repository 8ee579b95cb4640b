"""What ``tokiwa check`` tells of rows is what a run then does with them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from components.errors import ConfigError
from pipelines import inspection
from pipelines.cli import main
from pipelines.inspection import inspect
from pipelines.project import ProjectConfig

GOOD = "".join(f"the film was {word} {n},{word},u{n}{word}\n" for n in range(30) for word in "ab")


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    """A home of the test's own, in which nothing is yet."""
    monkeypatch.setenv("TOKIWA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TOKIWA_STORE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def project(tmp_path, tiny_base):
    """Describe a project with the rows of a file, as it is written."""

    def describe(rows: bytes, task=None, **columns):
        (tmp_path / "rows.csv").write_bytes(rows)
        return ProjectConfig.model_validate(
            {
                "name": "demo",
                "task": task or {"kind": "text-classification", "labels": ["a", "b"]},
                "source": {
                    "kind": "files",
                    "root": str(tmp_path),
                    "files": [{"path": "rows.csv"}],
                    "columns": columns,
                },
                "finetune": {"base": str(tiny_base)},
            }
        )

    return describe


def rated(project, *labels):
    """Return a project that learns numbers from 0 to 4."""
    rows = "text,label\n" + "".join(f"a text,{label}\n" for label in labels)
    return project(rows.encode(), {"kind": "text-regression", "low": 0, "high": 4})


def test_numbers_that_a_regression_does_not_take_are_counted_and_named(project):
    found = inspect(rated(project, "0", "3.5", "5", "many", ""))
    assert found.windows == [
        {
            "window": "all",
            "rows": 5,
            "labelled": 2,
            "unlabelled": 1,
            "unknown": 2,
            "labels": "0 to 1 1, 1 to 2 0, 2 to 3 0, 3 to 4 1",
        }
    ]
    assert found.warnings == [
        "2 rows have labels that the task does not know, such as '5', 'many', and would be "
        "quarantined; the task learns numbers within its range"
    ]
    with pytest.raises(ConfigError, match="within its range, but the rows have '7', 'x'"):
        inspect(rated(project, "x", "7"))
    with pytest.raises(ConfigError, match=r"no row has a label; .* source\.columns\.label"):
        inspect(rated(project, "", ""))


def test_what_is_odd_about_further_columns_is_told(project):
    metadata = {"age": {"kind": "number", "required": True}, "shop": {}}
    rows = b"text,label,age,shop\nfirst,a,31,x\nsecond,b,old,x\nthird,b,,x\n"
    found = inspect(project(rows, metadata=metadata))
    assert found.warnings == ["all rows have the same in shop: it tells nothing apart"]
    assert found.foresight is not None
    assert {each.reason: (each.rows, each.example) for each in found.foresight.reasons} == {
        "missing-age": (1, "'third' with nothing"),
        "unreadable-age": (1, "'second' with 'old'"),
    }


DAMAGED = (
    b"text,label,id\n"
    + GOOD.encode()
    + b"the film was a 0,a,copy\n"  # a duplicate
    + b"one field too many,a,x,y\n"
    + "das Stück war schön,a,latin\n".encode("latin-1")
    + b"what is this,c,odd\n"
    + b",a,empty\n"
    + b"twice,a,r1\ntwice too,a,r1\n"
)


def test_a_check_tells_what_becomes_of_damaged_rows_and_what_to_do(project, empty_home):
    found = inspect(project(DAMAGED, id="id")).foresight
    assert found is not None
    assert found.headline == (
        "a run on window all would read 67 rows; 60 good, 1 dropped as duplicates, 6 in quarantine"
    )
    assert {each.reason: each.rows for each in found.reasons} == {
        "duplicate-id": 2,
        "bad-encoding": 1,
        "missing-text": 1,
        "unknown-label": 1,
        "wrong-column-count": 1,
    }
    reasons = {each.reason: each for each in found.reasons}
    assert reasons["wrong-column-count"].example == "rows.csv#62: 'one field too many,a,x,y'"
    assert reasons["unknown-label"].example == "odd: 'c'"
    assert "source.encoding" in reasons["bad-encoding"].remedy
    assert "task.labels" in reasons["unknown-label"].remedy
    assert not found.refusal
    assert not empty_home.exists(), "looking leaves nothing behind"


def test_rows_that_are_pinned_to_a_store_are_looked_at_without_it(project):
    pinned = project(DAMAGED, id="id")
    source = pinned.source.model_copy(update={"stores": ["s3://elsewhere/*"]})
    found = inspect(pinned.model_copy(update={"source": source})).foresight
    assert found is not None
    assert (found.rows, found.quarantined) == (67, 6)


def test_of_a_large_source_a_share_is_judged_and_that_is_said(project, monkeypatch):
    monkeypatch.setattr(inspection, "JUDGED_ROWS", 40)
    monkeypatch.setattr(inspection, "MIN_ROWS_OF_A_WINDOW", 10)
    found = inspect(project(DAMAGED, id="id"))
    assert found.windows[0]["rows"] == 65, "all are counted"
    ahead = found.foresight
    assert ahead is not None
    assert (ahead.rows, ahead.judged) == (67, 42)
    assert "would read 67 rows; of 42 that were looked at " in ahead.headline
    assert ahead.kept + ahead.quarantined + ahead.duplicates == 42


def test_too_few_rows_to_train_on_are_told_of_before_a_run(
    tmp_path, tiny_base, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("text,label\na film,a\nanother film,b\nno label,c\n")
    (tmp_path / "demo.yaml").write_text(
        "name: demo\ntask: {kind: text-classification, labels: [a, b]}\n"
        f"source: {{files: [{{path: rows.csv}}]}}\nfinetune: {{base: {tiny_base}}}\n"
    )
    assert main(["check", "demo.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "a run on window all would read 3 rows; 2 good, 1 in quarantine"
    assert lines[4] == "  1 unknown-label: the label is none of the task's"
    assert lines[-1].startswith("it would train nothing: window all has 2 usable rows")
    assert main(["check", "demo.yaml", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run"]["reasons"][0]["reason"] == "unknown-label"
    assert told["run"]["refusal"].startswith("window all has 2 usable rows")


def test_rows_that_are_in_no_window_are_counted(project):
    now = datetime.now(UTC).isoformat()
    days = {"2025-12-31": 3, "2026-01-05": 40, "2026-01-12": 40, "2199-01-01": 2, now: 1}
    days = {f"{day}T00:00:00+00:00" if day != now else day: rows for day, rows in days.items()}
    rows = [f"a film of {day} {n},{'ab'[n % 2]},{day}" for day in days for n in range(days[day])]
    described = project("\n".join(["text,label,day", *rows]).encode(), time="day")
    resolve = {"window_days": 7, "start": "2026-01-05"}
    found = inspect(
        ProjectConfig.model_validate(
            described.model_dump(mode="json", by_alias=True) | {"resolve": resolve}
        )
    )
    assert [each["rows"] for each in found.windows] == [40, 40]
    assert found.warnings == [
        "3 rows are of before resolve.start, 2026-01-05: no run reads them",
        "1 rows are of a window that is not whole yet, and wait for its end",
        "2 rows are of the future, up to 2199-01-01T00:00:00+00:00: no run reads them before",
    ]


def test_a_bad_value_is_shown_as_it_is_written(project):
    found = inspect(project(f"text,label,id\n{GOOD}a text,a  ,u\n".encode(), id="id"))
    assert found.foresight is not None
    (reason,) = found.foresight.reasons
    assert (reason.reason, reason.example) == ("unknown-label", "u: 'a  '")
