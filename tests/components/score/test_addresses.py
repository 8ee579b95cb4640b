"""Rows that lie in a bucket: a real S3 server, and addresses that name nothing."""

from __future__ import annotations

import pandas as pd
import pytest

from components import bundle
from components.errors import BadInput, StoreError
from components.ledger import Ledger
from components.score import core
from components.score.core import ScoreConfig, score_addresses
from components.store import LocalStore, S3Store, open_store

TEXTS = ["the film was good", "a very dull story", "awful and bad"]


class Bucket:
    """A bucket to score from and into, and a champion."""

    def __init__(self, url, folder, made):
        self.url, self.folder, self.store = url, folder, open_store(url)
        models = LocalStore(folder / "objects")
        self.models, self.ledger = models, Ledger(models, "demo")
        self.ledger.append(
            action="promote",
            bundle=bundle.publish(models, made),
            version="7",
            key="1",
            by="test",
            reason="",
            expected=0,
        )

    def rows(self, count):
        frame = pd.DataFrame({"id": range(count), "text": (TEXTS * count)[:count]})
        frame.to_parquet(self.folder / "rows.parquet")
        self.store.upload("in.parquet", self.folder / "rows.parquet")
        return frame

    def score(self, source="in.parquet", target="out.parquet", progress=lambda *told: None):
        return score_addresses(
            source if "/" in source else f"{self.url}/{source}",
            target if "/" in target else f"{self.url}/{target}",
            self.models,
            self.ledger,
            ScoreConfig(),
            home=self.folder / "home",
            progress=progress,
        )

    def answered(self, key="out.parquet"):
        self.store.download(key, self.folder / "out.parquet")
        return pd.read_parquet(self.folder / "out.parquet")


@pytest.fixture
def bucket(s3_url, tmp_path, make_bundle, monkeypatch):
    monkeypatch.setattr(core, "PART_ROWS", 10)
    return Bucket(s3_url, tmp_path, make_bundle(1))


@pytest.mark.slow
def test_rows_go_from_a_bucket_into_a_bucket(bucket, tmp_path):
    rows = bucket.rows(23)
    assert bucket.score().rows == 23
    answered = bucket.answered()
    assert answered[["id", "text"]].equals(rows)
    assert answered["answer_label"].notna().all()
    assert bucket.score(target=str(tmp_path / "here.parquet")).rows == 23
    assert pd.read_parquet(tmp_path / "here.parquet").equals(answered)


@pytest.mark.slow
def test_a_run_that_broke_off_carries_on_and_an_old_output_stays_until_then(bucket):
    bucket.rows(5)
    bucket.score()
    before = bucket.answered()
    bucket.rows(35)

    def breaks(done, total, what):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bucket.score(progress=breaks)
    assert bucket.answered().equals(before)
    assert bucket.score().resumed_rows == 20
    assert bucket.answered()["id"].tolist() == list(range(35))


@pytest.mark.slow
def test_an_output_that_cannot_be_sent_costs_no_work(bucket, monkeypatch):
    bucket.rows(25)

    def away(self, key, file):
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(S3Store, "upload", away)
        with pytest.raises(StoreError):
            bucket.score()
    assert bucket.score().resumed_rows == 25
    assert bucket.answered()["id"].tolist() == list(range(25))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("none.parquet", "out.parquet", "there is no file s3://"),
        ("s3://", "out.parquet", "names no object; write s3://bucket/key.parquet"),
        ("s3://bucket/", "out.parquet", "names no object"),
        ("in.parquet", "s3://bucket", "names no object"),
    ],
)
def test_an_address_that_names_nothing_is_refused(bucket, source, target, says):
    bucket.rows(3)
    told = []
    with pytest.raises(BadInput, match=says):
        bucket.score(source, target, lambda *progress: told.append(progress))
    assert not told, "nothing is answered for an address that leads nowhere"
