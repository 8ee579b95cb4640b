from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tasks.text_classification import TextClassification
from components.validate.core import ValidateConfig, validate

TASK = TextClassification(labels=("x", "y"))
COLUMNS = ("id", "group", "time", "text", "label", "window")
WINDOW = "2026-01-12"


def rows_of(*cells, window=WINDOW):
    """Rows of ``(id, text, label)``, each a group of its own."""
    return [(id_, f"of {id_}", None, text, label, window) for id_, text, label in cells]


def run(rows, folder, **config):
    """Validate rows; return the report, the good rows and the quarantine."""
    (folder / "snapshot").mkdir()
    schema = pa.schema([(column, pa.string()) for column in COLUMNS])
    table = pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], schema)
    pq.write_table(table, folder / "snapshot" / "rows.parquet")
    report = validate(
        folder / "snapshot",
        WINDOW,
        folder / "good",
        folder / "quarantine" / "rows.parquet",
        TASK,
        ValidateConfig(**config),
    )
    good = pd.read_parquet(folder / "good" / "rows.parquet")
    return report, good, pd.read_parquet(folder / "quarantine" / "rows.parquet")


@pytest.fixture
def check(tmp_path):
    return lambda rows, **config: run(rows, tmp_path, **config)


def many(count, label, start=0, window=WINDOW):
    return rows_of(
        *((f"{label}-{number}", f"text {label} {number}", label) for number in range(start, count)),
        window=window,
    )


CELLS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
ANY_ROWS = st.lists(
    st.tuples(
        CELLS,
        CELLS,
        st.none(),
        CELLS | st.sampled_from(["a", "A", " ", "...", "long text"]),
        CELLS | st.sampled_from(["x", "y"]),
        st.sampled_from([WINDOW, "2026-01-05"]),
    ),
    max_size=10,
)


@settings(max_examples=30)
@given(ANY_ROWS)
def test_every_row_is_kept_or_quarantined_with_a_reason(rows):
    with tempfile.TemporaryDirectory() as scratch:
        report, good, quarantined = run(rows, Path(scratch), max_characters=8)
    assert report.rows_in == len(rows) == report.rows + report.quarantined
    assert (report.rows, report.quarantined) == (len(good), len(quarantined))
    assert (quarantined["reasons"] != "").all()
    assert sum(report.reasons.values()) >= report.quarantined
    assert sum(report.reasons.values()) == sum(
        len(reasons.split(",")) for reasons in quarantined["reasons"]
    )
    # What is kept is whole and can be learned from.
    assert good["id"].is_unique
    assert good["label"].isin(["x", "y"]).all()
    assert good["text"].map(lambda text: 0 < len(text) <= 8 and text.strip() != "").all()


@pytest.mark.parametrize(
    ("id_", "text", "label", "reason"),
    [
        (None, "text", "x", "missing-id"),
        ("1", None, "x", "missing-text"),
        ("1", "text", None, "missing-label"),
        ("1", "text", "z", "unknown-label"),
        ("1", "t" * 101, "x", "text-too-long"),
        ("1", "?! …", "x", "no-letter-or-digit"),
        ("1", " \n", "x", "empty-text,no-letter-or-digit"),
        ("1", "", "z", "empty-text,no-letter-or-digit,unknown-label"),
        (None, None, None, "missing-id,missing-label,missing-text"),
    ],
)
def test_a_bad_row_is_quarantined_with_every_reason(check, id_, text, label, reason):
    report, good, quarantined = check(
        rows_of(("good", "a good text", "x"), (id_, text, label)), max_characters=100
    )
    assert good["id"].tolist() == ["good"]
    assert quarantined["reasons"].tolist() == [reason]
    assert report.reasons == dict.fromkeys(reason.split(","), 1)


@pytest.mark.parametrize("text", ["7", "語", "é", "a" * 100, "  a  "])
def test_a_text_with_a_letter_or_digit_is_good(check, text):
    assert check(rows_of(("1", text, "x")), max_characters=100)[0].rows == 1


def test_all_rows_that_share_an_id_are_quarantined(check):
    _, good, quarantined = check(rows_of(("1", "a", "x"), ("1", "b", "x"), ("2", "c", "x")))
    assert good["id"].tolist() == ["2"]
    assert quarantined["reasons"].tolist() == ["duplicate-id"] * 2


def test_one_text_with_two_labels_is_quarantined_wherever_it_stands(check):
    rows = rows_of(("1", "The film", "x"), window="2026-01-05")
    rows += rows_of(("2", "the  FILM", "y"), ("3", "the story", "y"), ("4", "The story", "y"))
    _, good, quarantined = check(rows)
    assert good["id"].tolist() == ["3", "4"]
    assert quarantined["reasons"].tolist() == ["conflicting-labels"] * 2


def test_good_rows_keep_their_order_and_their_content(check):
    rows = [*many(3, "x", window="2026-01-05"), *rows_of(("bad", None, "x")), *many(3, "y")]
    _, good, quarantined = check(rows)
    expected = [row for row in rows if row[0] != "bad"]
    assert [tuple(row) for row in good.to_numpy()] == expected
    assert [tuple(row)[:-1] for row in quarantined.to_numpy()] == [rows[3]]


def test_the_digest_follows_the_good_rows_only(tmp_path):
    digests = []
    for number, extra in enumerate(
        [[], rows_of(("bad", None, "x")), rows_of(("good", "more", "x"))]
    ):
        (tmp_path / str(number)).mkdir()
        digests.append(run(many(3, "x") + extra, tmp_path / str(number))[0].digest)
    assert digests[0] == digests[1] != digests[2]


# --- is there enough to train on? ---


def test_enough_rows_of_two_classes_are_trainable(check):
    limits = {"min_rows": 10, "min_rows_per_class": 5, "min_groups": 10}
    report, *_ = check(many(5, "x") + many(5, "y"), **limits)
    assert (report.trainable, report.refusal) == (True, "")
    assert report.headline == "10 good rows, 0 quarantined"


def test_rows_of_a_few_groups_cannot_be_split(check):
    rows = [
        (id_, f"of {number % 29}", *rest)
        for number, (id_, _, *rest) in enumerate(many(40, "x") + many(40, "y"))
    ]
    report, *_ = check(rows)
    assert not report.trainable
    assert "form 29 groups, validate.min_groups asks for 30" in report.refusal


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "has no usable rows"),
        (rows_of(("1", None, "x")), "has no usable rows"),
        (many(30, "x", window="2026-01-05") + many(30, "y", window="2026-01-05"), "no usable rows"),
        (many(5, "x") + many(4, "y"), "9 usable rows, validate.min_rows asks for 10"),
        (many(12, "x"), r"single class \(x: 12\)"),
        (many(12, "x") + many(2, "y"), r"single class \(x: 12, y: 2\)"),
    ],
)
def test_otherwise_the_refusal_says_what_is_lacking(check, rows, says):
    report, *_ = check(rows, min_rows=10, min_rows_per_class=3)
    assert not report.trainable
    assert re.search(says, report.refusal)
    assert report.headline == report.refusal
