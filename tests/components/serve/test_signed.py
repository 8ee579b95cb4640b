"""What no trusted key has signed never answers."""

from __future__ import annotations

import pytest

from components.rollout.config import Stage
from components.serve.config import ServeConfig
from components.signature import SigningKey

PREDICT = "/v1/models/demo:predict"


@pytest.fixture
def keys(make_key):
    private, public = make_key()
    return SigningKey(private, "a test"), ServeConfig(trusted_keys=[public])


def test_an_unsigned_champion_never_answers_until_it_is_signed(world, until, running, keys):
    key, config = keys
    unsigned = world.publish(1)
    world.promote(unsigned)
    with running(world, config=config) as client:
        until(lambda: "is not signed" in client.get("/v2/health/ready").text, "a refusal")
        asked = client.post(PREDICT, json={"instances": ["good"]})
        assert (asked.status_code, client.get("/v2/health/ready").status_code) == (503, 503)
        key.sign(world.store, unsigned)
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a signed champion")


def test_the_signed_champion_goes_on_beside_an_unsigned_one(world, until, running, keys):
    key, config = keys
    signed = world.publish(1)
    key.sign(world.store, signed)
    world.promote(signed, version="signed")
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        world.promote(world.publish(2), version="unsigned")
        until(lambda: client.get("/v2/health/ready").json()["state"] == "degraded", "a refusal")
        answer = client.post(PREDICT, json={"instances": ["good"]}).json()
        assert answer["model_version"] == "signed"


def test_an_unsigned_challenger_is_rolled_back_unseen(world, until, running, keys):
    key, config = keys
    signed = world.publish(1)
    key.sign(world.store, signed)
    world.promote(signed)
    with running(world, config=config) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        world.begin(world.publish(2), Stage(kind="canary", share=1.0, requests=1))
        until(lambda: not world.rollouts.last().is_live, "its end")
    last = world.rollouts.last()
    assert last.state == "rolled back"
    assert "may not serve" in last.reason
    assert "is not signed" in last.reason
    assert last.seen.challenger.requests == 0
