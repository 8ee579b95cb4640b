from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from components.errors import SourceError
from components.sources import open_source, parse_source, reading
from components.sources.direct_get import DirectGet
from components.store import LocalStore, open_store
from components.windows import ALL_TIME

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(s3_url):
    return open_store(s3_url)


def opened(url, store=None, **section):
    return open_source(parse_source(json.dumps({"kind": "s3", "url": url, **section})), store)


def texts(source):
    return sorted(source.read(ALL_TIME).frame["text"].tolist())


def csv(*texts):
    return "".join(["text,label\n", *(f"{text},x\n" for text in texts)]).encode()


def test_objects_of_every_form_are_one_source(bucket, s3_url, tmp_path):
    pq.write_table(pa.table({"text": ["d"], "label": ["x"]}), tmp_path / "d.parquet")
    bucket.put("in/a.csv", csv("a"))
    bucket.put("in/dt=2026-01-05/b.csv.gz", gzip.compress(csv("b")))
    bucket.put("in/c.jsonl", b'{"text": "c", "label": "x"}')
    bucket.put("in/d.parquet", (tmp_path / "d.parquet").read_bytes())
    bucket.put("in/_SUCCESS", b"")
    bucket.put("in/empty.csv", b"")
    bucket.put("in2/e.csv", csv("e"))
    assert texts(opened(f"{s3_url}/in")) == ["a", "b", "c", "d"]
    assert texts(opened(f"{s3_url}/in/", pattern="*.csv*")) == ["a", "b"]
    assert texts(opened(f"{s3_url}/in/a.csv")) == ["a"]


def test_only_new_objects_are_read_and_changed_ones_anew(bucket, s3_url, tmp_path, monkeypatch):
    store, read = LocalStore(tmp_path), list[str]()
    for name in "abc":
        bucket.put(f"in/{name}.csv", csv(name))
    assert texts(opened(f"{s3_url}/in", store)) == ["a", "b", "c"]
    from components.sources.s3 import S3Source

    original = S3Source._blocks

    def noticed(self, *args):
        read.append(args[1])
        return original(self, *args)

    monkeypatch.setattr(S3Source, "_blocks", noticed)
    bucket.put("in/d.csv", csv("d"))
    bucket.put("in/b.csv", csv("B"))
    assert texts(opened(f"{s3_url}/in", store)) == ["B", "a", "c", "d"]
    assert sorted(key.rpartition("/")[2] for key in read) == ["b.csv", "d.csv"]


def test_an_object_that_changes_between_listing_and_reading_is_read_again(
    bucket, s3_url, monkeypatch
):
    from components.sources.s3 import S3Source

    bucket.put("in/a.csv", csv("a"))
    original, changes = S3Source._listed, iter(["b"])

    def changing(self, *args):
        listed = original(self, *args)
        for text in changes:
            bucket.put("in/a.csv", csv(text))
            break
        return listed

    monkeypatch.setattr(S3Source, "_listed", changing)
    monkeypatch.setattr(reading, "PAUSE_S", 0)
    assert texts(opened(f"{s3_url}/in")) == ["b"]


@pytest.mark.parametrize("name", ["a.csv", "a b+ü%2F~'(1)&=?.csv"])
def test_an_object_is_got_past_boto3_at_its_etag_alone(bucket, s3_url, name):
    bucket.put("in/plain.csv", csv("a"))
    source = opened(f"{s3_url}/in")
    place, prefix = source._config.place
    key = f"{prefix}/{name}"
    source._client.put_object(Bucket=place, Key=key, Body=b"content")
    [etag] = [etag for known, etag, _ in source._listed(place, prefix) if known == key]
    for _ in range(2):
        assert source._direct.get(key, etag) == b"content"
    assert source._direct.get(key, "0" * 32) is None
    assert source._direct.get(f"{key}x", etag) is None


def test_objects_are_read_through_boto3_where_the_short_way_is_closed(bucket, s3_url, monkeypatch):
    bucket.put("in/a.csv", csv("a"))
    bucket.put("in/b.csv", csv("b"))
    source = opened(f"{s3_url}/in")
    source._direct._address = "http://127.0.0.1:1/"
    assert texts(source) == ["a", "b"]
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    assert DirectGet.of(source._client, source._config.place[0]) is None


def test_an_object_that_changes_all_the_time_is_refused(bucket, s3_url, monkeypatch):
    from components.sources.s3 import S3Source

    bucket.put("in/a.csv", csv("0"))
    original, numbers = S3Source._listed, iter(range(1, 9))

    def changing(self, *args):
        listed = original(self, *args)
        bucket.put("in/a.csv", csv(str(next(numbers))))
        return listed

    monkeypatch.setattr(S3Source, "_listed", changing)
    monkeypatch.setattr(reading, "PAUSE_S", 0)
    with pytest.raises(SourceError, match="keeps changing"):
        texts(opened(f"{s3_url}/in"))


def test_images_lie_beside_their_table_and_not_outside_of_the_prefix(bucket, s3_url):
    bucket.put("in/pictures/one.png", b"picture")
    bucket.put("secret.png", b"secret")
    bucket.put("in/rows.csv", b"file,label\npictures/one.png,x\nnone.png,x\n")
    columns = {"image": "file"}
    frame = opened(f"{s3_url}/in", columns=columns).read(ALL_TIME).frame
    assert sorted(map(str, frame["text"])) == ["None", "cGljdHVyZQ=="]
    bucket.put("in/rows.csv", b"file,label\n../secret.png,x\n")
    with pytest.raises(SourceError, match="lies outside of"):
        opened(f"{s3_url}/in", columns=columns).read(ALL_TIME)


@pytest.mark.parametrize(
    ("environment", "url", "says"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-geheim"}, None, "denies access"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, None, "denies access"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, None, "cannot reach"),
        ({}, "s3://no-such-bucket-here/in", "no such bucket"),
        ({}, None, "there are no objects"),
    ],
)
def test_what_is_wrong_with_a_store_is_one_line_without_a_secret(
    s3_url, monkeypatch, environment, url, says
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SourceError, match=says) as refusal:
        texts(opened(url or f"{s3_url}/nothing"))
    assert "geheim" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("url", ["http://a/b", "s3://", "s3://key:secret@bucket/x", "s3://b/*.csv"])
def test_addresses_of_another_form_are_refused(url):
    with pytest.raises(ValidationError, match="should be s3://bucket/prefix"):
        opened(url)
