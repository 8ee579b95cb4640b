from __future__ import annotations

import json
import socket
import threading

import pytest

from components.deploy import kserve
from components.deploy.config import DeployConfig, KServeConfig
from components.deploy.kserve import KServe
from components.deploy.prometheus import arm_of
from components.errors import BackendError, Unauthorised
from components.freeze import Freezes
from components.ledger import Ledger
from components.rollout.config import RolloutConfig, Stage
from components.rollout.record import Rollouts
from components.store import LocalStore

STAGES = [
    Stage(kind="canary", share=0.1, requests=100),
    Stage(kind="canary", share=0.5, requests=100),
]
MODES = ("Standard", "Knative")


class Cluster:
    """A champion on a cluster, and a challenger that is to be tried."""

    def __init__(self, folder, api, prometheus, mode="Standard", **more):
        self.store, self.api, self.prometheus = LocalStore(folder / "store"), api, prometheus
        self.ledger = Ledger(self.store, "demo")
        self.freezes, self.rollouts = Freezes(self.store, "demo"), Rollouts(self.store, "demo")
        self.config = KServeConfig(
            mode=mode, namespace="prod", prometheus=prometheus.address, poll_s=0.01, **more
        )
        self.ledger.append(
            action="promote", bundle="a" * 64, version="1", key="1", by="t", reason="", expected=0
        )
        prometheus.versions = {"1": (2000, 2, 0.01), "2": (2000, 2, 0.01)}
        self.target().settle()

    def target(self):
        return KServe("demo", self.ledger, self.freezes, self.rollouts, self.config)

    def begin(self, **limits):
        return self.rollouts.begin(
            rollout="run/b",
            bundle="b" * 64,
            version="2",
            generation=1,
            config=RolloutConfig(stages=STAGES, **limits),
            by="run",
            why="better",
        )

    def roll_out(self, **limits):
        return self.target().follow(self.begin(**limits))

    @property
    def spec(self):
        return self.api.services["demo"]["spec"]

    def check_only_the_champion_is_served(self):
        assert "canary" not in self.spec
        assert "canaryTrafficPercent" not in self.spec["predictor"]
        assert "--bundle" not in json.dumps(self.spec)


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def cluster(tmp_path, kserve_api, prometheus):
    return Cluster(tmp_path, kserve_api, prometheus)


def shares(api):
    """Return the canary's percentages in the order in which they were asked for."""
    found = []
    for spec in api.changes:
        knative = spec["predictor"].get("canaryTrafficPercent")
        found += [each["trafficPercent"] for each in spec.get("canary", [])]
        found += [] if knative is None else [knative]
    return found


def test_a_service_is_created_once_and_then_left_alone(cluster):
    assert cluster.target().is_serving()
    cluster.target().settle()
    assert len(cluster.api.changes) == 1
    assert cluster.spec["predictor"]["model"]["runtime"] == "tokiwa"


def test_a_good_canary_gets_more_and_more_and_is_promoted(tmp_path, kserve_api, prometheus, mode):
    cluster = Cluster(tmp_path, kserve_api, prometheus, mode)
    end = cluster.roll_out()
    assert end.state == "promoted"
    assert shares(kserve_api) == [10, 50]
    head = cluster.ledger.entries()[-1]
    assert (head.version, head.key, head.reason) == ("2", "run/b", "better")
    cluster.check_only_the_champion_is_served()


def test_the_canary_is_pinned_to_the_challenger_and_scales_by_itself(cluster):
    def grow(service):
        service["spec"]["predictor"] |= {"minReplicas": 2, "maxReplicas": 20}
        service["spec"]["predictor"]["model"]["args"] = ["--poll-s=2"]
        service["metadata"]["finalizers"] = ["inferenceservice.finalizers"]

    cluster.api.edit("demo", grow)
    cluster.roll_out()
    (canary,) = cluster.api.changes[-2]["canary"]
    args = ["--poll-s=2", f"--bundle={'b' * 64}", "--version=2"]
    assert canary["predictor"]["model"]["args"] == args
    assert not {"minReplicas", "maxReplicas"} & set(canary["predictor"])
    # Of the stable predictor nothing is lost.
    assert cluster.spec["predictor"]["maxReplicas"] == 20
    assert cluster.spec["predictor"]["model"]["args"] == ["--poll-s=2"]
    assert cluster.api.services["demo"]["metadata"]["finalizers"]


@pytest.mark.parametrize(
    ("seen", "says"),
    [((400, 80, 0.01), "errors: 80 of 400"), ((400, 0, 0.4), "latency: ")],
    ids=["errors", "slow"],
)
def test_a_bad_canary_is_rolled_back(tmp_path, kserve_api, prometheus, mode, seen, says):
    cluster = Cluster(tmp_path, kserve_api, prometheus, mode)
    prometheus.versions["2"] = seen
    end = cluster.roll_out()
    assert end.state == "rolled back"
    assert end.reason.startswith(says)
    assert cluster.ledger.generation == 1
    assert shares(kserve_api) == [10]
    cluster.check_only_the_champion_is_served()


def test_a_canary_that_never_gets_ready_is_rolled_back(tmp_path, kserve_api, prometheus, mode):
    cluster = Cluster(tmp_path, kserve_api, prometheus, mode, ready_s=1)
    kserve_api.unready.add("b" * 64)
    end = cluster.roll_out()
    assert end.state == "rolled back"
    assert "the canary is not ready: containers with unready status" in end.reason
    cluster.check_only_the_champion_is_served()


def test_a_controller_that_sleeps_is_waited_for_and_then_given_up(tmp_path, kserve_api, prometheus):
    cluster = Cluster(tmp_path, kserve_api, prometheus, ready_s=1)
    kserve_api.lag = 10**6
    end = cluster.roll_out()
    assert "the controller has not seen the change" in end.reason
    cluster.check_only_the_champion_is_served()


def test_a_rollout_that_was_replaced_leaves_the_next_ones_canary_alone(cluster):
    first = cluster.begin()
    second = cluster.rollouts.begin(
        rollout="run/c",
        bundle="c" * 64,
        version="3",
        generation=1,
        config=RolloutConfig(stages=STAGES),
        by="run",
        why="better",
    )
    cluster.target()._reach(second)
    changes = len(cluster.api.changes)
    ended = cluster.rollouts.all()[first.number]
    assert cluster.target().follow(ended).state == "rolled back"
    assert "c" * 64 in json.dumps(cluster.spec["canary"])
    assert len(cluster.api.changes) == changes


def test_what_kserve_fills_in_is_no_reason_to_change_it_again(tmp_path, kserve_api, prometheus):
    cluster = Cluster(tmp_path, kserve_api, prometheus)
    live = cluster.begin()
    cluster.target()._reach(live)
    cluster.api.edit(
        "demo",
        lambda service: service["spec"]["canary"][0]["predictor"]["model"].update(name="", env=[]),
    )
    changes = len(cluster.api.changes)
    cluster.target()._reach(live)
    assert len(cluster.api.changes) == changes
    cluster.target().settle()
    cluster.check_only_the_champion_is_served()


def test_a_prometheus_that_speaks_no_http_is_a_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def babble():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(BackendError, match="cannot be asked"):
            arm_of(address, "demo", "1", 60.0, 5.0)
        thread.join()


def test_without_prometheus_nobody_watches_and_the_canary_goes(tmp_path, kserve_api, prometheus):
    kserve_api.lag = 0
    cluster = Cluster(tmp_path, kserve_api, prometheus, ready_s=0.5)
    prometheus.down = True
    end = cluster.roll_out()
    assert (end.state, "nobody can watch the canary" in end.reason) == ("rolled back", True)
    cluster.check_only_the_champion_is_served()


def test_somebody_elses_changes_are_neither_lost_nor_fatal(cluster):
    edits = iter(range(4))

    def interfere(method, path):
        if method == "PUT" and (number := next(edits, None)) is not None:
            cluster.api.edit(
                "demo", lambda service: service["spec"]["predictor"].update(timeout=number)
            )

    cluster.api.before = interfere
    assert cluster.roll_out().state == "promoted"
    assert cluster.spec["predictor"]["timeout"] == 3


def test_an_api_that_is_away_for_a_moment_is_asked_again(cluster):
    for status in (500, 503, 429):
        cluster.api.outage = (status, 2)
        cluster.target().settle()
    live = cluster.begin()
    cluster.api.outage = (503, 3)
    assert cluster.target().follow(live).state == "promoted"


def test_an_api_that_stays_away_fails_the_step_and_the_next_try_carries_on(cluster):
    live = cluster.begin()
    cluster.api.outage = (503, 10**6)
    with pytest.raises(BackendError, match="cannot be read: the Kubernetes API answers 503"):
        cluster.target().follow(live)
    cluster.api.outage = (503, 0)
    assert cluster.roll_out().state == "promoted"


def test_an_api_that_hangs_is_not_waited_for_for_ever(cluster, monkeypatch):
    monkeypatch.setattr(kserve, "CALL_S", 0.1)
    monkeypatch.setattr(kserve, "TRIES", 2)
    cluster.api.flowing.clear()
    with pytest.raises(BackendError, match="answers nothing"):
        cluster.target().settle()
    cluster.api.flowing.set()


def test_credentials_that_do_not_do_are_the_users(cluster):
    cluster.api.deny = 403
    with pytest.raises(Unauthorised, match="does not let this account get InferenceService"):
        cluster.target().settle()


def test_a_rollback_by_hand_takes_the_canary_away(cluster):
    live = cluster.begin()
    cluster.target()._reach(live)
    assert cluster.spec["canary"]
    cluster.rollouts.move(live, "rolled back", "a person said so", by="eve")
    cluster.target().settle()
    cluster.check_only_the_champion_is_served()


class Crash(BaseException):
    """The process is gone."""


def counted_calls(monkeypatch, crash_at, after):
    """Let the n-th act on the cluster or the store be the last of the process."""
    acts = 0

    def crashing(real):
        def act(*given, **named):
            nonlocal acts
            acts += 1
            if acts == crash_at and not after:
                raise Crash
            done = real(*given, **named)
            if acts == crash_at:
                raise Crash
            return done

        return act

    with monkeypatch.context() as patch:
        patch.setattr(KServe, "_call", crashing(KServe._call))
        patch.setattr(Ledger, "append", crashing(Ledger.append))
        patch.setattr(Rollouts, "move", crashing(Rollouts.move))
        patch.setattr(Rollouts, "begin", crashing(Rollouts.begin))
        yield lambda: acts


@pytest.mark.parametrize("seen", [(2000, 2, 0.01), (400, 80, 0.01)], ids=["good", "bad"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_between_any_two_acts_loses_nothing(
    tmp_path, kserve_api, prometheus, monkeypatch, seen, after
):
    kserve_api.lag = 0
    crash_at, crashed = 0, True
    while crashed:
        crash_at += 1
        kserve_api.services.clear()
        cluster = Cluster(tmp_path / str(crash_at), kserve_api, prometheus)
        prometheus.versions["2"] = seen
        crashed = False
        for _ in counted_calls(monkeypatch, crash_at, after):
            try:
                cluster.roll_out()
            except Crash:
                crashed = True
        end = cluster.roll_out()
        good = seen[1] == 2
        assert end.state == ("promoted" if good else "rolled back")
        assert cluster.ledger.generation == (2 if good else 1)
        assert [each.number for each in cluster.rollouts.all()] == list(range(1, end.number + 1))
        cluster.check_only_the_champion_is_served()
    assert crash_at >= 8


def test_what_kserve_cannot_do_is_refused_in_the_project_file():
    rollout = RolloutConfig(stages=[Stage(kind="shadow"), *STAGES])
    with pytest.raises(ValueError, match="no stage shadow"):
        DeployConfig(target="kserve", rollout=rollout)
    with pytest.raises(ValueError, match=r"kserve\.prometheus"):
        DeployConfig(target="kserve", rollout=RolloutConfig(stages=STAGES))
