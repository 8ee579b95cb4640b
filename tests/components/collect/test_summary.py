from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.collect.summary import DIGEST, OWN, Size, Summary
from components.sources.mapping import INSTANT, MOMENT, ROW, TABLE
from components.sources.rows import MetadataColumn
from components.split import content_digest
from components.store import LocalStore
from components.tasks.text_classification import TextClassification

TASK = TextClassification(labels=("no", "yes"))
METADATA = {"age": MetadataColumn(kind="number"), "land": MetadataColumn()}
START = datetime(2026, 1, 5, tzinfo=UTC)
SIZE = Size(rows=3, described=7)


class Reader:
    """Says of texts what needs no network, as a model does."""

    def input_categories(self, contents):
        return {"first": [each.strip()[0] for each in contents]}

    def input_features(self, contents):
        return {"characters": np.array([len(each) for each in contents], np.float64)}


def batch_of(rows):
    """An Arrow table as a source yields it, of minute, text and age."""
    return pa.table(
        {
            "id": [f"{number % 3}-{minute}" for number, (minute, _, _) in enumerate(rows)],
            "group": [str(minute) for minute, _, _ in rows],
            "source": [""] * len(rows),
            "text": pa.array([text for _, text, _ in rows], pa.string()),
            "label": pa.array([None] * len(rows), pa.string()),
            "age": pa.array([age for _, _, age in rows], pa.string()),
            "land": pa.array([age for _, _, age in rows], pa.string()),
            MOMENT: pa.array([START + timedelta(minutes=each[0]) for each in rows], INSTANT),
            TABLE: ["rows.csv"] * len(rows),
            ROW: pa.array(range(len(rows)), pa.int64()),
        }
    )


def summary_of(batches, size=SIZE):
    return Summary.of(batches, TASK, METADATA, Reader(), size)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 9),
        # Few letters, so that texts come again, in other cases and spaces, too.
        st.none() | st.text("aAb \u3000", max_size=4),
        st.none() | st.sampled_from(["7", "8.5", "old"]),
    ),
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(ROWS, st.data())
def test_summaries_of_any_parts_in_any_batches_merge_to_that_of_the_whole(rows, data):
    table = batch_of(rows)
    whole = summary_of([table])
    parts = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    merged = summary_of([])
    for number in data.draw(st.permutations(range(3))):
        part = table.filter(pa.array([each == number for each in parts], pa.bool_()))
        cut = data.draw(st.integers(0, part.num_rows))
        merged = merged.merged(summary_of([part.slice(cut), part.slice(0, cut)]), SIZE)
    assert merged.rows == whole.rows == len(rows)
    pd.testing.assert_frame_equal(merged.frame, whole.frame)
    pd.testing.assert_frame_equal(merged.sample(3), whole.sample(3))


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_of_each_of_the_smallest_contents_the_first_row_is_kept(rows):
    found = summary_of([batch_of(rows)])
    there = [(content_digest(text), minute) for minute, text, _ in rows if text and text.strip()]
    expected = sorted(
        {digest: min(m for d, m in there if d == digest) for digest, _ in there}.items()
    )
    kept = [(digest, str(minute)) for digest, minute in expected[: SIZE.described]]
    assert list(zip(found.frame[DIGEST], found.frame["group"], strict=True)) == kept
    assert found.frame["text"].notna().tolist() == [place < SIZE.rows for place in range(len(kept))]
    sample = found.sample(SIZE.rows)
    assert sample[MOMENT].is_monotonic_increasing
    assert [content_digest(text) for text in sample["text"]] == sample[DIGEST].tolist()


def test_a_summary_comes_back_from_the_store_as_it_was(tmp_path):
    store = LocalStore(tmp_path)
    rows = [(number % 9, string.ascii_letters[number] * 3, str(number)) for number in range(40)]
    for name, found in {"some": summary_of([batch_of(rows)]), "none": summary_of([])}.items():
        found.save(store, name)
        back = Summary.load(store, name)
        assert back.rows == found.rows
        pd.testing.assert_frame_equal(back.frame, found.frame)
        again = back.merged(summary_of([batch_of(rows)]), SIZE)
        assert again.frame[DIGEST].tolist() == summary_of([batch_of(rows)]).frame[DIGEST].tolist()


def test_declared_columns_and_what_is_said_of_contents_are_features():
    found = summary_of([batch_of([(0, "Aab", "8.5"), (1, "b", "old"), (2, "a", None)])]).frame
    assert set(found) == {*OWN, "first", "characters", "column age", "column land"}
    by_group = found.set_index("group")
    assert by_group["column age"].fillna(-1).to_dict() == {"0": 8.5, "1": -1, "2": -1}
    assert by_group["column land"].to_dict() == {"0": "8.5", "1": "old", "2": "(missing)"}
    assert by_group["characters"].to_dict() == {"0": 3, "1": 1, "2": 1}


def test_the_sample_is_of_contents_and_not_of_rows():
    rows = [(0, "again" if number % 3 else f"text {number}", "1") for number in range(3000)]
    found = summary_of([batch_of(rows)], Size(100, 500)).frame
    assert (len(found), found[DIGEST].nunique()) == (500, 500)
    place = found["characters"].map({len(f"text {10**n}"): n for n in range(4)})
    # Of the numbers below 3,000 that three divides, one in ten has less than three digits.
    assert (place < 2).mean() < 0.1
    assert (place == 3).mean() == pytest.approx(667 / 1000, abs=0.1)


@pytest.mark.parametrize("described", [7, 100])
def test_memory_is_bounded_by_the_size_and_not_by_the_rows(described, monkeypatch):
    """No more rows wait at a time than twice what is kept, and a batch."""
    from components.collect import summary

    held: list[int] = []
    smallest = summary._smallest

    def noticed(frames, count):
        held.append(sum(map(len, frames)))
        return smallest(frames, count)

    monkeypatch.setattr(summary, "_smallest", noticed)
    batches = [batch_of([(n, f"{m} {n}", "1") for n in range(50)]) for m in range(60)]
    found = summary_of(batches, Size(3, described))
    assert (found.rows, len(found.frame)) == (3000, described)
    assert max(held) <= 2 * described + 50
