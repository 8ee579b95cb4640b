"""Requests and labels that the server keeps."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from components.errors import StoreError
from components.request_log import Feedback, RequestLog, digest_of_content
from components.serve import keeping, service
from components.serve.answers import Answers
from components.serve.config import LimitsConfig, RequestLogConfig, ServeConfig
from components.serve.keeping import Keeper
from components.serve.metrics import Metrics
from components.serve.refusal import Refused
from components.store import LocalStore

V1 = "/v1/models/demo:predict"
V2 = "/v2/models/demo/infer"
FEEDBACK = "/v1/feedback"
ANSWERS = Answers(
    predictions=[{"label": "positive", "confidence": 0.9}, {"label": None, "confidence": 0.5}],
    version="7",
    generation=1,
    bundle="abc",
    truncated=[1],
)


class Flaky(LocalStore):
    """A store that can go away."""

    away = False

    def put(self, key, data):
        if self.away:
            raise StoreError("gone")
        super().put(key, data)

    def create_if_absent(self, key, data):
        if self.away:
            raise StoreError("gone")
        return super().create_if_absent(key, data)


@pytest.fixture
def store(tmp_path):
    return Flaky(tmp_path / "objects")


def window(log):
    now = datetime.now(UTC)
    return log.read(now - timedelta(hours=1), now + timedelta(hours=1))


def keeper(store, **config):
    section = RequestLogConfig(**{"sample": 1.0} | config)
    return Keeper(RequestLog(store, "p"), section, Metrics("test"))


def test_rows_of_a_request_are_kept_with_what_was_answered(store):
    kept = keeper(store)
    request_id = kept.keep("mine", ["good", "odd"], ANSWERS)
    asyncio.run(kept.flush())
    frame = window(RequestLog(store, "p"))
    assert frame["id"].tolist() == [f"{request_id}.0", f"{request_id}.1"]
    assert frame["text"].tolist() == ["good", "odd"]
    assert frame["answer"].tolist() == ["positive", None]
    assert frame["truncated"].tolist() == [False, True]
    assert set(frame["key"]) == {"mine"}
    assert (set(frame["version"]), set(frame["generation"])) == ({"7"}, {1})


@pytest.mark.parametrize(
    ("policy", "text", "digest"),
    [
        ("whole", "good", digest_of_content("good")),
        ("hash", None, digest_of_content("good")),
        ("none", None, None),
    ],
)
def test_inputs_are_kept_as_the_policy_says(store, policy, text, digest):
    kept = keeper(store, inputs=policy)
    kept.keep("", ["good", "odd"], ANSWERS)
    asyncio.run(kept.flush())
    frame = window(RequestLog(store, "p"))
    assert (frame["text"][0], frame["digest"][0]) == (text, digest)
    names = [path for path in store.root.rglob("*") if path.is_file()]
    assert len(names) == 1
    assert (policy == "whole") == (b"good" in names[0].read_bytes())


def test_a_sample_is_kept(store):
    assert keeper(store, sample=0.0).keep("", ["good", "odd"], ANSWERS) is None
    kept = keeper(store, sample=0.5)
    ids = [kept.keep("", ["good", "odd"], ANSWERS) for _ in range(400)]
    assert 100 < sum(each is not None for each in ids) < 300


def test_a_store_that_goes_away_costs_rows_and_no_answers(store):
    kept = keeper(store, file_rows=2, queue_files=2)
    store.away = True
    ids = [kept.keep("", ["good", "odd"], ANSWERS) for _ in range(4)]
    assert [each is None for each in ids] == [False, False, True, True]
    asyncio.run(kept.flush())
    assert kept.trouble == "requests cannot be kept: gone"
    store.away = False
    asyncio.run(kept.flush())
    assert kept.trouble == ""
    assert len(window(RequestLog(store, "p"))) == 4


def test_what_waits_is_bounded_by_its_size_as_well(store, monkeypatch):
    monkeypatch.setattr(keeping, "_FILE_BYTES", 100)
    kept = keeper(store, queue_files=2)
    large = ["x" * 60, "y" * 60]
    ids = [kept.keep("", large, ANSWERS) for _ in range(4)]
    assert [each is None for each in ids] == [False, False, True, True]
    hashed = keeper(store, queue_files=2, inputs="hash")
    assert None not in [hashed.keep("", large, ANSWERS) for _ in range(4)]


def test_a_store_that_hangs_is_told_to_who_sends_labels(world, running, until, monkeypatch):
    world.promote(world.publish(1), version="labelled")
    requests = RequestLogConfig(sample=1.0, flush_s=0.1)
    config = ServeConfig(requests=requests, limits=LimitsConfig(timeout_s=0.5))
    go_on = threading.Event()
    writes = world.store.create_if_absent

    def hangs(key, data):
        assert "/feedback/" not in key or go_on.wait(60)
        return writes(key, data)

    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        first = client.post(V1, json={"instances": ["good"]}).json()["request_id"]
        monkeypatch.setattr(world.store, "create_if_absent", hangs)
        label = {"feedback": [{"request_id": first, "label": "negative"}]}
        refused = client.post(FEEDBACK, json=label)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        monkeypatch.setattr(service, "MAX_LABELLING", 1)
        refused = client.post(FEEDBACK, json=label)
        assert refused.status_code == 503
        assert "too many labels wait" in refused.json()["error"]
        assert client.post(V1, json={"instances": ["good"]}).status_code == 200
        # Whoever watches the model by its errors must not see the store's.
        told = client.get("/metrics").text
        assert 'model_name="demo",protocol="feedback",status="503",version="labelled"} 2.0' in told
        assert 'model_name="demo",protocol="v1",status="503",version="labelled"} 0.0' in told
        go_on.set()
        until(lambda: client.post(FEEDBACK, json=label).status_code == 200, "the store")
    assert set(RequestLog(world.store, world.prefix).feedback().values()) == {"negative"}


def test_a_label_is_kept_with_its_request_or_refused(store):
    kept, log = keeper(store), RequestLog(store, "p")
    request_id = kept.keep("", ["good", "odd"], ANSWERS)
    label = Feedback(request_id=request_id, row=1, label="negative")
    store.away = True
    with pytest.raises(Refused) as caught:
        asyncio.run(kept.label([label]))
    # Not 404: the client would believe that the id is wrong, and never send the label again.
    assert caught.value.status == 503
    assert log.feedback() == {}
    store.away = False
    asyncio.run(kept.label([label]))
    assert window(log)["label"].tolist() == [None, "negative"]
    store.away = True
    with pytest.raises(Refused) as caught:
        asyncio.run(kept.label([label]))
    assert caught.value.status == 503


def test_ids_of_old_files_are_forgotten_and_found_again(store, monkeypatch):
    monkeypatch.setattr(keeping, "_KNOWN_ROWS", 5)
    kept = keeper(store, file_rows=2)
    ids = [kept.keep("", ["good", "odd"], ANSWERS) for _ in range(4)]

    async def label():
        await kept.flush()
        for each in [*ids, ids[0]]:
            await kept.label([Feedback(request_id=each, label="positive")])

    asyncio.run(label())
    assert sum(map(len, kept._ids.values())) == 4
    assert len(RequestLog(store, "p").feedback()) == 4


def test_labels_that_come_together_are_written_together(store):
    kept = keeper(store)
    ids = [kept.keep("", ["good", "odd"], ANSWERS) for _ in range(50)]

    async def label():
        await kept.flush()
        await asyncio.gather(
            *(kept.label([Feedback(request_id=each, label="positive")]) for each in ids)
        )

    asyncio.run(label())
    assert len(RequestLog(store, "p").feedback()) == 50
    assert len(store.list("p/feedback/")) < 50


def test_both_protocols_keep_requests_and_take_labels(world, running, until):
    world.promote(world.publish(1), version="7")
    config = ServeConfig(requests=RequestLogConfig(sample=1.0, flush_s=600))
    log = RequestLog(world.store, world.prefix)
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        first = client.post(V1, json={"instances": ["good", "bad"]}).json()["request_id"]
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["dull"]}
        answer = client.post(V2, json={"id": "mine", "inputs": [tensor]}).json()
        assert answer["id"] == "mine"
        second = answer["parameters"]["request_id"]
        labels = [
            {"request_id": first, "row": 1, "label": "negative"},
            {"request_id": second, "label": "negative"},
        ]
        for _ in range(2):  # the same again changes nothing
            kept = client.post(FEEDBACK, json={"feedback": labels})
            assert (kept.status_code, kept.json()) == (200, {"kept": 2}), kept.text
        frame = window(log).set_index("text")
        assert frame["label"].to_dict() == {"good": None, "bad": "negative", "dull": "negative"}
        assert frame["key"].to_dict() == {"good": "", "bad": "", "dull": "mine"}
        for wrong, status, says in (
            ({"feedback": [{"request_id": first, "row": 2, "label": "negative"}]}, 404, "row"),
            ({"feedback": [{"request_id": f"{first}9", "label": "negative"}]}, 404, "no request"),
            ({"feedback": [{"request_id": "\x00", "label": "negative"}]}, 404, "no request"),
            ({"feedback": [{"request_id": first, "label": "other"}]}, 422, "only negative, pos"),
            ({"feedback": [*labels, labels[0] | {"row": 7}]}, 404, "1 of these 3 labels cannot"),
            ({"feedback": [*labels, labels[0] | {"label": "x"}]}, 422, "so none was: send the"),
            ({"feedback": [{"request_id": first, "row": -1, "label": "negative"}]}, 400, "row"),
            ({"feedback": [{"request_id": first}]}, 400, "label"),
            ({"feedback": [{"request_id": 1, "label": "negative"}]}, 400, "request_id"),
            ({"feedback": []}, 400, "feedback"),
            ({"feedback": [{}] * 1001}, 400, "feedback"),
            ({"labels": []}, 400, "feedback"),
            ([], 400, "feedback"),
        ):
            refused = client.post(FEEDBACK, json=wrong)
            assert refused.status_code == status, (wrong, refused.text)
            assert says in refused.json()["error"]
        assert len(log.feedback()) == 2
    # What was answered last is written at the end.
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        client.post(V1, json={"instances": ["awful"]})
    assert "awful" in set(window(log)["text"])
