from __future__ import annotations

import base64
import re
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.quarantine import Readmitted, keys_of
from components.sources.rows import MetadataColumn, snapshot_schema
from components.tasks.image_classification import ImageClassification, encode_png
from components.tasks.text_anomaly import TextAnomaly
from components.tasks.text_classification import TextClassification
from components.tasks.text_regression import TextRegression
from components.validate.config import SEVERITY
from components.validate.core import ValidateConfig, examples, validate
from components.validate.evidently_report import evidently_html
from components.validate.report import to_html

TASK = TextClassification(labels=("x", "y"))
COLUMNS = ("id", "group", "time", "text", "label", "window")
WINDOW = "2026-01-12"


def rows_of(*cells, window=WINDOW):
    """Rows of ``(id, text, label)``, each a group of its own."""
    return [(id_, f"of {id_}", None, text, label, window) for id_, text, label in cells]


def run(rows, folder, task=TASK, metadata=None, **config):
    """Validate rows; return the report, the good rows and the quarantine."""
    (folder / "snapshot").mkdir()
    declared = {name: MetadataColumn(**each) for name, each in (metadata or {}).items()}
    names = (*COLUMNS, *declared)
    records = [dict(zip(names, row, strict=True)) for row in rows]
    table = pa.Table.from_pylist(records, snapshot_schema(declared))
    pq.write_table(table, folder / "snapshot" / "rows.parquet")
    report = validate(
        folder / "snapshot",
        WINDOW,
        folder / "good",
        folder / "quarantine" / "rows.parquet",
        task,
        ValidateConfig(**config),
    )
    good = pd.read_parquet(folder / "good" / "rows.parquet")
    return report, good, pd.read_parquet(folder / "quarantine" / "rows.parquet")


@pytest.fixture
def check(tmp_path):
    return lambda rows, task=TASK, **config: run(rows, tmp_path, task, **config)


def many(count, label, start=0, window=WINDOW):
    return rows_of(
        *((f"{label}-{number}", f"text {label} {number}", label) for number in range(start, count)),
        window=window,
    )


STRICT = dict.fromkeys(SEVERITY, "error")
CELLS = (
    st.none()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    | st.sampled_from(["nan", "inf", "-1e999", "=1+1", "<b>", "\u202e", "\x00", "a@b.cd", "\ufffd"])
)
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


@settings(max_examples=30, deadline=None)
@given(ANY_ROWS, st.sampled_from([{}, STRICT]))
def test_every_row_is_kept_or_quarantined_with_a_reason(rows, severity):
    with tempfile.TemporaryDirectory() as scratch:
        report, good, quarantined = run(rows, Path(scratch), max_characters=8, severity=severity)
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
    assert [tuple(row) for row in good[list(COLUMNS)].to_numpy()] == expected
    assert [tuple(row) for row in quarantined[list(COLUMNS)].to_numpy()] == [rows[3]]


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
    assert report.headline == f"nothing to train on: {report.refusal}"


# --- other kinds of task ---

RATED = TextRegression(low=-4, high=4)
RARE = TextAnomaly()
SEEN = ImageClassification(labels=("x", "y"))


def png(shade=0, side=8):
    return encode_png(np.full((side, side), shade, dtype=np.uint8))


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("4.01", "label-out-of-range"),
        ("-5", "label-out-of-range"),
        ("nan", "label-not-a-number"),
        ("inf", "label-not-a-number,label-out-of-range"),
        ("good", "label-not-a-number"),
        ("", "label-not-a-number"),
        (None, "missing-label"),
    ],
)
def test_a_label_of_a_regression_is_a_number_in_range(check, label, reason):
    good = [("a", "a text", "4"), ("b", "b text", "-4.0"), ("c", "c text", "1e-3")]
    _, kept, quarantined = check(rows_of(*good, ("bad", "a bad text", label)), RATED)
    assert kept["id"].tolist() == ["a", "b", "c"]
    assert quarantined["reasons"].tolist() == [reason]


def test_two_ratings_of_one_text_do_not_contradict_each_other(check):
    report, *_ = check(rows_of(("1", "the film", "1"), ("2", "The film", "2")), RATED)
    assert report.rows == 2


def test_a_regression_on_a_constant_is_nothing_to_train_on(check):
    cells = [(f"r{number}", f"text {number}", "2.0") for number in range(40)]
    report, *_ = check(rows_of(*cells), RATED, min_rows=10)
    assert report.refusal == f"window {WINDOW} has a single value (2.0)"
    assert report.headline == f"nothing to train on: {report.refusal}"


def test_a_refusal_names_what_went_into_quarantine_and_where(check):
    cells = [(f"r{number}", f"text {number}", "bill" * (1 + number % 7)) for number in range(40)]
    elsewhere = rows_of(("old", "old text", None), window="2026-01-05")
    report, *_ = check(rows_of(*cells, ("none", "a text", None)) + elsewhere)
    assert report.refusal == (
        f"window {WINDOW} has no usable rows; "
        "41 of its 41 rows are in quarantine: 40 unknown-label, 1 missing-label; "
        f"labels such as {', '.join(repr('bill' * times) for times in range(1, 6))}, … "
        "are none of the task's, which are x, y"
    )
    assert report.headline == f"nothing to train on: {report.refusal}"
    told = report.refusal_with("s3://bucket/quarantine")
    assert told == f"{report.refusal}; all quarantined rows: s3://bucket/quarantine (Parquet)"


def test_a_long_value_is_cut_in_a_message():
    assert examples(pd.Series(["a" * 41, "b" * 40])) == f"'{'a' * 39}…', '{'b' * 40}'"


def test_a_refusal_without_quarantine_names_no_place(check):
    report, *_ = check(rows_of(("1", "a text", "x")))
    assert report.refusal == f"window {WINDOW} has 1 usable rows, validate.min_rows asks for 50"
    assert report.refusal_with("anywhere") == report.refusal


def test_ratings_that_vary_are_trainable(check):
    cells = [(f"r{number}", f"text {number}", str(number % 3)) for number in range(40)]
    report, *_ = check(rows_of(*cells), RATED, min_rows=10)
    assert report.trainable


@pytest.mark.parametrize(("normal", "trainable"), [(40, True), (5, True), (4, False), (0, False)])
def test_anomalies_are_found_by_what_is_normal(check, normal, trainable):
    labels = ["normal"] * normal + ["anomaly"] * (40 - normal)
    cells = [(f"r{number}", f"text {number}", label) for number, label in enumerate(labels)]
    report, *_ = check(rows_of(*cells), RARE, min_rows=10)
    assert report.trainable == trainable
    if not trainable:
        assert f"has {normal or 'no'} rows with the label 'normal'" in report.refusal


def huge():
    """A small file that says that it has a hundred million pixels."""
    raw = bytearray(base64.b64decode(png()))
    raw[16:24] = (10_000).to_bytes(4, "big") * 2  # width and height in the header
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "missing-image"),
        ("", "not-an-image"),
        ("no base64", "not-an-image"),
        (base64.b64encode(b"no image").decode(), "not-an-image"),
        (base64.b64encode(base64.b64decode(png())[:-30]).decode(), "not-an-image"),
        (huge(), "image-too-large"),
    ],
)
def test_what_is_no_image_is_quarantined(check, content, reason):
    _, kept, quarantined = check(rows_of(("a", png(7), "x"), ("bad", content, "x")), SEEN)
    assert kept["id"].tolist() == ["a"]
    assert quarantined["reasons"].tolist() == [reason]


def test_images_need_no_letters_and_may_be_longer_than_texts(check):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200)).astype(np.uint8)
    report, *_ = check(rows_of(("a", encode_png(noise), "x")), SEEN, max_characters=100)
    assert report.rows == 1


def test_one_image_with_two_labels_is_quarantined(check):
    _, kept, quarantined = check(rows_of(("a", png(1), "x"), ("b", png(1), "y")), SEEN)
    assert kept.empty
    assert quarantined["reasons"].tolist() == ["conflicting-labels"] * 2


# --- further columns ---

AGES = ["31", "4.5", None, "old", "inf", "1e3"]


def aged(ages):
    found = rows_of(*((f"{place}", f"text {place}", "x") for place in range(len(ages))))
    return [(*row, age) for row, age in zip(found, ages, strict=True)]


def test_numbers_of_further_columns_must_be_numbers_and_become_such(check):
    report, good, bad = check(aged(AGES), metadata={"age": {"kind": "number"}})
    assert report.reasons == {"unreadable-age": 2}
    np.testing.assert_equal(good["age"].tolist(), [31.0, 4.5, np.nan, 1000.0])
    assert bad["age"].tolist() == ["old", "inf"]


def test_a_further_column_may_be_required(check):
    report, good, bad = check(aged(AGES), metadata={"age": {"required": True}})
    assert report.reasons == {"missing-age": 1}
    assert good["age"].tolist() == ["31", "4.5", "old", "inf", "1e3"]
    assert bad["age"].tolist() == [None]


@pytest.mark.parametrize("kind", ["text", "number"])
def test_a_further_column_may_hold_nothing_at_all(check, kind):
    report, good, _ = check(aged([None] * 3), metadata={"age": {"kind": kind}})
    assert (report.rows, report.quarantined) == (3, 0)
    assert good["age"].isna().all()


def test_the_digest_follows_what_a_further_column_is(tmp_path):
    digests = set()
    for place, metadata in enumerate(({}, {"kind": "number"})):
        (tmp_path / str(place)).mkdir()
        found = run(aged(["1", "2"]), tmp_path / str(place), metadata={"age": metadata})
        digests.add(found[0].digest)
    assert len(digests) == 2


# --- what is odd, and what people decided ---

ODD = [("nul", "a\x00b", "x"), ("mark", "a \u202eb", "y"), ("sum", "=1+1", "x")]
CODES = {"nul": "control-character", "mark": "bidi-control", "sum": "formula"}


def test_what_is_merely_odd_is_kept_and_shown(check):
    report, good, quarantined = check(rows_of(*ODD, ("fine", "a text", "x")))
    assert len(good) == 4
    assert quarantined.empty
    assert {each.code: each.ids for each in report.warnings} == {
        code: [id_] for id_, code in CODES.items()
    }


def test_a_project_makes_an_error_of_what_is_odd_or_looks_away(tmp_path):
    for place, severity in enumerate(("error", "off")):
        (tmp_path / severity).mkdir()
        report, _, bad = run(
            rows_of(*ODD),
            tmp_path / severity,
            severity={"characters": severity, "injection": severity},
        )
        assert report.warnings == []
        assert dict(zip(bad["id"], bad["reasons"], strict=True)) == (CODES if place == 0 else {})


def test_conflicts_may_be_kept(check):
    report, good, _ = check(
        rows_of(("1", "film", "x"), ("2", "Film", "y")), severity={"conflicts": "warn"}
    )
    assert len(good) == 2
    assert report.warnings[0].code == "conflicting-labels"


def test_an_error_of_the_window_refuses_it_and_a_warning_does_not(tmp_path):
    rows = many(30, "x") + many(30, "y")
    for number in range(4):
        old = f"2026-01-0{number + 1}"
        rows += [
            (f"{id_}-{old}", f"{group}-{old}", time, f"{text} {old}", label, old)
            for id_, group, time, text, label, _ in many(300, "x") + many(300, "y")
        ]
    refusals = []
    for severity in ("warn", "error"):
        (tmp_path / severity).mkdir()
        report, *_ = run(rows, tmp_path / severity, severity={"row_count": severity})
        assert report.findings[0].code == "row-count"
        assert report.trainable == (severity == "warn")
        refusals.append(report.refusal)
    assert refusals[0] == ""
    assert "60 good rows, where 600 are usual" in refusals[1]


def readmitted(rows, folder, decided, **config):
    """Validate rows of which some were taken in again."""
    (folder / "snapshot").mkdir(parents=True)
    records = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    table = pa.Table.from_pylist(records, snapshot_schema({}))
    pq.write_table(table, folder / "snapshot" / "rows.parquet")
    kept: list[pd.DataFrame] = []
    report = validate(
        folder / "snapshot",
        WINDOW,
        folder / "good",
        folder / "quarantine.parquet",
        TASK,
        ValidateConfig(**config),
        readmitted=decided,
        keep=kept.append,
    )
    return report, pd.read_parquet(folder / "good" / "rows.parquet"), kept[0]


def test_a_row_that_was_put_right_is_good_and_one_that_was_not_stays_out(tmp_path):
    rows = rows_of(("a", "a text", "X"), ("b", "b text", None), ("c", "c text", "x"))
    _, _, bad = readmitted(rows, tmp_path / "1", {})
    keys = dict(zip(bad["id"], keys_of(bad), strict=True))
    decided = {
        keys["a"]: Readmitted(key=keys["a"], window=WINDOW, changes={"label": "x"}),
        keys["b"]: Readmitted(key=keys["b"], window=WINDOW, changes={"label": "z"}),
    }
    report, good, bad = readmitted(rows, tmp_path / "2", decided)
    assert good[["id", "label"]].to_numpy().tolist() == [["a", "x"], ["c", "x"]]
    assert report.readmitted == 1
    # In quarantine a row stays as the source has it, and so does its key.
    assert bad[["id", "label", "reasons"]].to_numpy().tolist() == [["b", None, "unknown-label"]]
    assert keys_of(bad) == [keys["b"]]


def test_a_waived_reason_does_not_count_for_that_row_alone(tmp_path):
    rows = rows_of(("a", "the film", "x"), ("b", "The film", "y"), ("c", "a\x00 text", "x"))
    strict = {"characters": "error"}
    _, _, bad = readmitted(rows, tmp_path / "1", {}, severity=strict)
    keys = dict(zip(bad["id"], keys_of(bad), strict=True))
    decided = {
        keys[id_]: Readmitted(key=keys[id_], window=WINDOW, waived=["conflicting-labels"])
        for id_ in ("a", "c")
    }
    _, good, bad = readmitted(rows, tmp_path / "2", decided, severity=strict)
    assert good["id"].tolist() == ["a"]
    assert bad["id"].tolist() == ["b", "c"]


def test_the_page_shows_what_was_found_and_escapes_it(check):
    report, *_ = check([*rows_of(("<i>1", "<b>text</b>", "x"), ("2", "more", "nope"))], min_rows=10)
    page = to_html(report)
    assert "nothing to train on" in page
    assert "unknown-label" in page
    assert "&lt;i&gt;1" in page
    assert "<i>" not in page


@pytest.mark.slow
def test_evidently_summarises_the_good_rows(check, tmp_path):
    pytest.importorskip("evidently")
    check(many(30, "x") + many(30, "y"))
    assert "validate.evidently: true" in evidently_html(tmp_path / "good", WINDOW, TASK, False)
    page = evidently_html(tmp_path / "good", WINDOW, TASK, True)
    assert "<html" in page
    assert "characters" in page
