"""Rows to learn from beside what the server was asked: alike, or not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from components.plan import Admission, Served
from components.request_log import COLUMNS, RequestLog, new_file, row_id
from components.tasks.image_classification import ImageClassification, encode_png
from components.tasks.tabular_classification import TabularClassification
from components.tasks.text_classification import TextClassification
from components.validate.checks.skew import skew
from components.validate.config import ValidateConfig
from components.validate.sample import Sample
from components.validate.served import contents_asked
from components.windows import Window

TEXT = TextClassification(labels=("x", "y"))
PERSON = TabularClassification(labels=("x", "y"), columns={"age": "number", "job": "category"})
PICTURE = ImageClassification(labels=("x", "y"))
DAY = Window(start="2026-01-05T00:00:00+00:00", end="2026-01-06T00:00:00+00:00")
WORDS = ("The", "that", "Was", "film", "STORY", "good,", "bad!", "not", "of", "1999", "and", "very")


def texts(rows, seed, least=5):
    chance = np.random.default_rng(seed)
    return [" ".join(chance.choice(WORDS, chance.integers(least, 30))) for _ in range(rows)]


def people(rows, seed, months=1):
    chance = np.random.default_rng(seed)
    return [
        json.dumps(
            {"age": f"{chance.uniform(18, 90) * months:.3f}", "job": str(chance.choice(["a", "b"]))}
        )
        for _ in range(rows)
    ]


def pictures(rows, seed, side=8):
    shades = np.random.default_rng(seed).integers(0, 255, (rows, side, side))
    return [encode_png(each) for each in shades.astype(np.uint8)]


def found(contents, served, task=TEXT, groups=None, **settings):
    frame = pd.DataFrame({"text": contents, "window": "w"})
    frame["group"] = groups or [f"g{place}" for place in range(len(frame))]
    sample = Sample(frame, "w", task, {}, served=served)
    return skew(sample, ValidateConfig.model_validate({"skew": settings}))


@pytest.mark.parametrize(
    ("make", "task"),
    [(texts, TEXT), (people, PERSON), (pictures, PICTURE)],
    ids=["texts", "people", "pictures"],
)
def test_rows_like_those_that_are_asked_are_not_spoken_of(make, task):
    assert found(make(150, 0), make(150, 1), task) == {}
    assert found([], make(150, 1), task) == found(make(150, 0), [], task) == {}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (str.lower, "share of capitals"),
        (lambda text: text[:20], "characters"),
        (lambda text: text.replace(" ", "  . "), "share of punctuation"),
        (lambda text: f"{text} der die und das ist nicht", "language"),
    ],
)
def test_contents_that_come_otherwise_are_seen(changed, says):
    said = found([changed(each) for each in texts(200, 0)], texts(200, 1))
    assert set(said) == {"training-serving-skew"}
    assert says in said["training-serving-skew"]
    assert "200 contents that the server was asked" in said["training-serving-skew"]


def test_a_column_in_another_unit_or_without_values_is_seen():
    assert "column age" in str(found(people(150, 0, months=12), people(150, 1), PERSON))
    nothing = [json.dumps(json.loads(each) | {"job": None}) for each in people(150, 1)]
    said = str(found(people(150, 0), nothing, PERSON))
    assert "column job" in said and "column age" not in said


def test_images_of_another_size_are_seen():
    said = str(found(pictures(120, 0), pictures(120, 1, side=16), PICTURE))
    assert "width (100% apart)" in said


def test_what_a_model_cannot_be_asked_and_few_contents_say_nothing():
    odd = [*people(99, 1, months=12), "no record"]
    assert found(people(150, 0), odd, PERSON) == {}
    assert found(people(150, 0), odd, PERSON, min_rows=99) != {}


def test_rows_of_few_groups_are_hardly_more_than_their_groups():
    """Five writers, whose texts have each one length: five short ones are no rare thing."""
    writers = np.arange(200) % 5
    contents = [
        " ".join(text.split()[: 5 + writer])
        for text, writer in zip(texts(200, 0, least=10), writers, strict=True)
    ]
    assert "words (" in str(found(contents, texts(200, 1)))
    groups = [f"g{each}" for each in writers]
    assert "words (" not in str(found(contents, texts(200, 1), groups=groups))


def test_what_was_asked_in_the_window_is_read_newest_first(store):
    log, day = RequestLog(store, "projects/demo"), datetime(2026, 1, 5, tzinfo=UTC)
    admission = Admission(project="projects/demo", served=Served(window=DAY, files="digest"))
    assert contents_asked(store, admission) == []
    for hours, *contents in ((-0.5, "before", "a"), (1, "b", None, "a"), (23, "c"), (24, "after")):
        at = day + timedelta(hours=hours)
        file = new_file(at)
        rows = [
            {"id": row_id(f"{file}-{n}", 0), "text": text}
            | {"time": (at + timedelta(minutes=45 * n)).isoformat()}
            for n, text in enumerate(contents)
        ]
        log.write(file, [dict.fromkeys(COLUMNS) | row for row in rows])
    assert contents_asked(store, admission) == ["c", "a", "b"]
    assert contents_asked(store, admission.model_copy(update={"served": None})) == []
