from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from components.rollout.config import Stage
from components.rollout.judgement import judge
from components.serve.config import LimitsConfig, ServeConfig

BAD = Path(__file__).with_name("bad_challenger.py")
SHADOW = Stage(kind="shadow", requests=20)
CANARY = Stage(kind="canary", share=0.5, requests=20)
LENIENT = {"max_disagreement": 0.99, "max_slowdown": 1000.0, "deadline_ms": 20000.0}
PATIENT = ServeConfig(limits=LimitsConfig(queue_ms=60_000))
"""On a busy machine nobody is refused."""
TEXTS = ["the film was good", "a very dull story"]


def acting(way):
    """Return what makes the command of a challenger that acts so; it needs no model."""
    return lambda digest: [sys.executable, str(BAD), way]


def ask(client, **headers):
    give_up = time.monotonic() + 60
    while True:
        answer = client.post("/v1/models/demo:predict", json={"instances": TEXTS}, headers=headers)
        # The champion is loaded once; afterwards no request may ever be told so.
        if "loading generation 1" not in answer.text or time.monotonic() > give_up:
            break
        time.sleep(0.02)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask_until(client, world, done, limit_s=60):
    """Ask until the rollout says something; return the versions that answered."""
    versions, give_up = [], time.monotonic() + limit_s
    while not done(world.rollouts.last()):
        assert time.monotonic() < give_up, world.rollouts.last()
        versions.append(ask(client)["model_version"])
    return versions


def ended(last):
    return not last.is_live


@pytest.fixture
def champion(world):
    return world.promote(world.publish(1), version="champion")


def check_promotion(world, begun, versions):
    moves = world.rollouts.all()
    assert [each.words for each in moves] == ["shadow 100%", "canary 50%", "promoted"]
    assert {each.rollout for each in moves} == {begun.rollout}
    assert set(versions) == {"champion", "challenger"}
    # In the shadow nobody sees the challenger.
    assert versions.index("challenger") >= moves[1].seen.challenger.requests >= 20
    assert moves[1].seen.compared == moves[1].seen.challenger.answered
    head = world.ledger.head()
    assert (head.bundle, head.key, head.by) == (begun.bundle, begun.rollout, "test")
    assert head.reason == "better"


def test_a_good_challenger_goes_through_its_stages_and_is_promoted(world, champion, running, until):
    begun = world.begin(world.publish(2), SHADOW, CANARY, **LENIENT)
    with running(world, command=acting("well")) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        versions = ask_until(client, world, ended)
        until(lambda: ask(client)["generation"] == 2, "the new champion")
        assert ask(client)["model_version"] == "challenger"
    check_promotion(world, begun, versions)


@pytest.mark.slow
def test_a_real_bundle_goes_through_its_stages_in_a_process_of_its_own(
    world, champion, running, until
):
    begun = world.begin(world.publish(2), SHADOW, CANARY, **LENIENT)
    with running(world) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        versions = ask_until(client, world, ended, limit_s=300)
    check_promotion(world, begun, versions)


def test_the_challenger_answers_its_share_and_a_client_stays_with_one_version(
    world, champion, running, until
):
    world.begin("bundle", Stage(kind="canary", share=0.3, requests=10**6), **LENIENT)
    with running(world, command=acting("well")) as client:
        until(lambda: ask_versions(client, 20) == {"champion", "challenger"}, "both")
        for key in map(str, range(10)):
            said = {ask(client, **{"x-request-id": key})["model_version"] for _ in range(2)}
            assert len(said) == 1
        asked = [ask(client)["model_version"] for _ in range(100)]
    # Of 100 draws at 0.3, fewer than 13 or more than 49 come once in 10,000 times.
    assert 13 <= asked.count("challenger") <= 49


def ask_versions(client, count):
    return {ask(client)["model_version"] for _ in range(count)}


def test_an_ab_test_ends_with_a_report_and_promotes_nobody(world, champion, running, until):
    stage = Stage(kind="ab", share=0.5, requests=30)
    world.begin("bundle", stage, **LENIENT)
    with running(world, command=acting("well")) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        ask_until(client, world, ended)
        # The record comes first, and then the router lets go.
        until(lambda: set(ask_versions(client, 10)) == {"champion"}, "the champion alone")
    last = world.rollouts.last()
    assert (last.state, world.ledger.generation) == ("reported", 1)
    assert last.seen.challenger.requests >= 30
    assert last.seen.champion.requests > 0


WAYS = {
    "crashes at load": "exit code -11",
    "never loads": "is not loaded in time",
    "is too big": "too much memory",
    "leaks": "too much memory",
    "crashes on request": "died",
    "raises": "error",
    "hangs": "late",
    "is slow": "latency: ",
    "answers nothing but NaN": "not an answer",
    "answers garbage": "not an answer",
    "answers numbers beyond all": "not an answer",
    "answers under odd ids": "wrong protocol",
    "answers with odd places": "not an answer",
    "answers too few": "wrong number of answers",
    "answers unknown labels": "not an answer",
    "speaks another protocol": "wrong protocol",
    "refuses everything": "refused",
    "answers others' requests": "late",
    "dies at random": "died",
}


QUICK = ("crashes on request", "leaks", "answers garbage", "speaks another protocol")


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=() if way in QUICK else pytest.mark.slow) for way in WAYS]
)
def test_a_bad_challenger_costs_no_request_and_is_rolled_back(way, world, champion, running, until):
    limits = {
        "max_slowdown": 1.0 if way == "is slow" else 1000.0,
        "deadline_ms": 150.0 if WAYS[way] == "late" else 5000.0,
        "start_s": 1.0 if way == "never loads" else 30.0,
        "memory_mib": 200,
        "slack_ms": 0.0,
    }
    canary = Stage(kind="canary", share=0.5, requests=10**6)
    with running(world, command=acting(way)) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        world.begin("some bundle", canary, max_disagreement=0.99, **limits)
        ask_until(client, world, ended)  # each answer is checked
        assert ask(client)["model_version"] == "champion"
    last = world.rollouts.last()
    assert last.state == "rolled back"
    assert WAYS[way] in last.reason
    assert world.ledger.generation == 1


def test_wrong_labels_are_found_in_the_shadow(world, champion, running, until):
    with running(world, command=acting("well")) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        labels = [each["label"] for each in ask(client)["predictions"]]
    # An untrained champion may say anything; one of these two says otherwise in a half at least.
    other = "answers the wrong labels" if labels[0] == "positive" else "well"
    with running(world, command=acting(other)) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        world.begin("bundle", Stage(kind="shadow", requests=10**6), max_slowdown=1000.0)
        assert set(ask_until(client, world, ended)) == {"champion"}
    assert world.rollouts.last().reason.startswith("disagreement: ")


def test_one_large_request_of_alike_texts_fails_no_stage(world, champion, running, until):
    way: list[str] = []
    with running(world, command=lambda digest: acting(way[0])(digest)) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        label = ask(client)["predictions"][0]["label"]
        way.append("answers the wrong labels" if label == "positive" else "well")
        begun = world.begin("bundle", Stage(kind="shadow", requests=10**6), max_slowdown=1000.0)

        def copied():
            # A copy that was made before the challenger was ready leaves nothing.
            texts = {"instances": [TEXTS[0]] * 100}
            assert client.post("/v1/models/demo:predict", json=texts).status_code == 200
            return world.rollouts.observed(begun).compared

        until(copied, "a copy")
        seen = world.rollouts.observed(begun)
        assert (seen.disagreeing, seen.compared) == (seen.compared, 1)
        assert judge(begun.stage, begun.config, seen, 0.0).action == "stay"
        assert world.rollouts.last() == begun


def test_blue_green_compares_with_the_champion_too(world, champion, running, until):
    way: list[str] = []
    with running(world, command=lambda digest: acting(way[0])(digest)) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        labels = [each["label"] for each in ask(client)["predictions"]]
        way.append("answers the wrong labels" if labels[0] == "positive" else "well")
        all_at_once = Stage(kind="canary", share=1.0, requests=10**6)
        world.begin("bundle", all_at_once, max_slowdown=1000.0)
        ask_until(client, world, ended)
    last = world.rollouts.last()
    assert last.reason.startswith("disagreement: ")
    assert last.seen.champion.requests > 0


def test_a_challenger_is_not_to_blame_for_the_store(world, champion, running, until):
    ways = ["finds no store"] * 3
    with running(world, command=lambda digest: acting(ways.pop() if ways else "well")(digest)) as (
        client
    ):
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        world.begin("bundle", Stage(kind="canary", share=0.5, requests=10**6), **LENIENT)
        until(lambda: "challenger" in ask_versions(client, 10), "the challenger")
    assert world.rollouts.last().is_live


def test_somebody_elses_promotion_ends_the_rollout(world, champion, running, until):
    world.begin("bundle", Stage(kind="shadow", requests=10**6), **LENIENT)
    with running(world, command=acting("well")) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        world.promote(world.publish(3))
        until(lambda: ended(world.rollouts.last()), "the end")
    last = world.rollouts.last()
    assert (last.state, last.reason) == (
        "rolled back",
        "the champion moved: generation 2 serves meanwhile",
    )


def test_what_a_server_saw_outlives_it(world, champion, running, until):
    stage = Stage(kind="shadow", requests=10**6)
    begun = world.begin("bundle", stage, **LENIENT)
    with running(world, command=acting("well")) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        ask_until(client, world, lambda last: world.rollouts.observed(last).compared >= 10)
    seen = world.rollouts.observed(begun)
    with running(world, command=acting("well")) as client:
        until(lambda: client.get("/v2/health/ready").status_code == 200, "a champion")
        ask_until(
            client, world, lambda last: world.rollouts.observed(last).compared > seen.compared
        )
    assert world.rollouts.last() == begun


def test_a_store_that_goes_away_stops_no_request(world, champion, running, until):
    world.begin("bundle", Stage(kind="canary", share=0.5, requests=10**6), **LENIENT)
    with running(world, command=acting("well")) as client:
        until(lambda: "challenger" in ask_versions(client, 10), "the challenger")
        away = world.store.root.with_name("away")
        world.store.root.rename(away)
        world.store.root.touch()  # so that nobody makes a new store in its place
        for _ in range(20):
            ask(client)
        world.store.root.unlink()
        away.rename(world.store.root)
        until(lambda: world.rollouts.last().is_live, "the record")


def test_what_fails_is_stopped_though_the_store_hangs(world, champion, running, until, monkeypatch):
    stage = Stage(kind="canary", share=1.0, requests=10**6)
    begun, go_on = world.begin("bundle", stage, **LENIENT), threading.Event()

    def hanging(act):
        def hang(*given):
            assert go_on.wait(60)
            return act(*given)

        return hang

    with running(world, command=acting("raises every other time after 20")) as client:
        until(lambda: "challenger" in ask_versions(client, 2), "the challenger")
        for name in ("list", "get", "put"):
            monkeypatch.setattr(world.store, name, hanging(getattr(world.store, name)))
        # Of two requests one would be the challenger's.
        until(lambda: ask_versions(client, 10) == {"champion"}, "the champion alone")
        assert not world.store.local_path("demo/rollouts/00000002.json").exists()
        go_on.set()
        until(lambda: ended(world.rollouts.last()), "the end")
    assert world.rollouts.last().number == begun.number + 1
    assert world.rollouts.last().reason.startswith("errors: ")


def test_requests_at_once_are_told_apart(world, champion, running, until):
    world.begin("bundle", Stage(kind="canary", share=0.5, requests=10**6), **LENIENT)
    wrong = []

    def work(client, number):
        texts, label = ([TEXTS[0]], "positive") if number % 2 else ([TEXTS[1]] * 3, "negative")
        for _ in range(15):
            got = client.post("/v1/models/demo:predict", json={"instances": texts}).json()
            labels = [each["label"] for each in got["predictions"]]
            right = got["model_version"] == "champion" or set(labels) == {label}
            if len(labels) != len(texts) or not right:
                wrong.append(got)

    with running(world, config=PATIENT, command=acting("well")) as client:
        until(lambda: "challenger" in ask_versions(client, 10), "the challenger")
        threads = [threading.Thread(target=work, args=(client, each)) for each in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert not wrong
