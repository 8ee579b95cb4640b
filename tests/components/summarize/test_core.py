from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.collect.core import CURRENT, CollectConfig, collect
from components.errors import SourceError
from components.plan import Live
from components.sources import Source
from components.store import LocalStore
from components.summarize.core import summarize

CONFIG = CollectConfig(partitions=3, max_rows=100)


@pytest.fixture
def objects(tmp_path):
    return LocalStore(tmp_path / "objects")


@pytest.fixture
def live(toy):
    return Live(source=toy.source, current=toy.weeks[1], labelled=[])


@pytest.fixture
def collected(live, make_bundle, objects, tmp_path):
    """Collect the window; give the report and the current rows."""

    def run(config=CONFIG):
        folder = tmp_path / "collected"
        report = collect(
            live,
            make_bundle(1),
            folder,
            objects,
            "code",
            config,
            lambda texts: np.zeros((len(texts), 2), np.float32),
        )
        return report, pd.read_parquet(folder / CURRENT)

    return run


def test_what_is_summarized_is_collected_without_reading_it_again(
    collected, live, make_bundle, objects, monkeypatch
):
    whole = collected(CONFIG.model_copy(update={"partitions": 1}))
    reports = [
        summarize(live, make_bundle(1), objects, "code", CONFIG, number) for number in (1, 2, 3)
    ]
    assert sum(each.rows for each in reports) == whole[0].window_rows == 300
    assert all(0 < each.rows < 300 for each in reports)
    assert [reports[0].start[:10], reports[2].end[:10]] == ["2026-01-12", "2026-01-19"]
    assert [each.end for each in reports[:2]] == [each.start for each in reports[1:]]
    monkeypatch.setattr(Source, "batches", None)
    report, current = collected()
    assert report == whole[0]
    pd.testing.assert_frame_equal(current, whole[1])


def test_a_part_that_is_not_in_the_store_is_read_where_it_is_needed(
    collected, live, make_bundle, objects
):
    expected = collected()
    summarize(live, make_bundle(1), objects, "code", CONFIG, 2)
    report, current = collected()
    assert report == expected[0]
    pd.testing.assert_frame_equal(current, expected[1])


def test_what_decides_a_summary_names_it(live, make_bundle, objects, toy):
    for change in (
        {},
        {"code": "other"},
        {"champion": make_bundle(2)},
        {"config": CONFIG.model_copy(update={"max_input_rows": 200})},
        {"config": CONFIG.model_copy(update={"partitions": 2})},
        {"live": live.model_copy(update={"current": toy.weeks[0]})},
    ):
        given = {"live": live, "champion": make_bundle(1), "code": "code", "config": CONFIG}
        before = len(list(objects.list("summaries/")))
        summarize(**(given | change), store=objects, partition=1)
        assert len(list(objects.list("summaries/"))) == before + 1


def test_rows_that_changed_since_the_plan_stop_the_run(live, make_bundle, objects):
    stale = live.current.model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(SourceError, match="2026-01-12 changed after the run began"):
        summarize(
            live.model_copy(update={"current": stale}), make_bundle(1), objects, "code", CONFIG, 1
        )
    assert not list(objects.list("summaries/"))
