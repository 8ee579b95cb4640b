from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import components
from components import bundle
from components.errors import ConfigError, Evicted, UserError, WorldError
from components.finetune import cluster, trainjob
from components.finetune.config import TrainJobConfig, VolumeConfig
from components.finetune.core import finetune
from components.finetune.fulfil import fulfil
from components.finetune.history import Silent
from components.finetune.launch import Order
from components.finetune.start import Start
from components.plan import Base
from components.store import LocalStore, open_store
from tests import kubernetes_api

# Kubeflow's SDK, on import.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Support for class-based:pydantic.warnings.PydanticDeprecatedSince20"
)

REPOSITORY = Path(components.__file__).parents[1]
TRAINING = "0123456789abcdef" * 4
PATIENCE_S = 50


class Watching:
    """Writes down what it is told."""

    def __init__(self):
        self.told: list[tuple[Any, ...]] = []

    def metrics(self, values, step):
        self.told.append((values, step))

    def progress(self, done, total, what):
        self.told.append((done, total, what))


@pytest.fixture
def api(tmp_path, monkeypatch):
    """A cluster of the test's own, to which the SDK is led."""
    with kubernetes_api.KubernetesApi() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        yield server


@pytest.fixture
def volume(tmp_path):
    """A folder that stands for a volume which step and pods share."""
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture
def order(toy, tmp_path, volume):
    """Make an order for two nodes; keyword arguments change the job's section."""

    def make(*, store="", base=toy.base, training=TRAINING, finetune=None, **settings):
        settings = {
            "namespace": kubernetes_api.NAMESPACE,
            "gpus_per_node": 0,
            "storage": VolumeConfig(claim="shared", path=str(volume)),
            "poll_s": 0.05,
            "evictions": 0,
            **settings,
        }
        config = {
            "nodes": 2,
            "device": "cpu",
            "precision": "float32",
            "epochs": 1,
            "threads": 1,
            "trainjob": TrainJobConfig(**settings),
            **(finetune or {}),
        }
        return Order(
            prepared=toy.first,
            start=Start(name="base", base=Base(place=str(base)), reason=""),
            champion=None,
            folder=tmp_path / "bundle",
            task=toy.task,
            config=toy.training.model_copy(update=config),
            lineage={"window_end": toy.weeks[0].window.end},
            store=store or str(tmp_path / "home"),
            training=training,
        )

    return make


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """A bundle and the report of its training."""
    folder = tmp_path_factory.mktemp("trained") / "bundle"
    config = toy.training.model_copy(update={"method": "head", "head_epochs": 2})
    return folder, finetune(toy.first, toy.start, None, folder, toy.task, config, {}, Silent())


@pytest.fixture
def arriving(trained, volume):
    """Leave report and bundle in the volume, as the first pod of a job does."""
    folder, report = trained

    def arrive():
        store = LocalStore(volume)
        bundle.publish(store, folder)
        store.put(f"trainjobs/{TRAINING}/report.json", report.to_json().encode())
        return report

    return arrive


def node(*lines, code=0, reason=""):
    """What a pod prints, and how it ends."""
    return lines, code, reason


def said(name, *arguments):
    """A line as a process of a training tells it."""
    return json.dumps({"tell": name, "with": arguments})


class Arriving:
    """Pods of which the first leaves a bundle, as soon as they start."""

    def __init__(self, arrive, *lines):
        self.arrive = arrive
        self.scripted = kubernetes_api.Scripted([node(*lines), node()])

    def start(self, api, job, pods):
        self.arrive()
        return self.scripted.start(api, job, pods)


def test_a_job_is_created_followed_and_deleted_and_its_bundle_fetched(
    api, order, arriving, trained, capfd
):
    progress = said("progress", 7, 9, "loss 0.5"), said("metrics", {"loss": 0.5}, 7)
    api.pods = Arriving(arriving, "a library says hello", *progress)
    watcher = Watching()
    placed = order()
    report = fulfil(placed, watcher)
    assert report == trained[1]
    bundle.verify(placed.folder, report.bundle)
    assert watcher.told == [(7, 9, "loss 0.5"), ({"loss": 0.5}, 7)]
    assert "a library says hello" in capfd.readouterr().out
    assert api.jobs == {}
    assert len(api.created) == 1


def test_the_job_says_what_the_project_says_and_nothing_secret(api, order, arriving, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-real-secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.example")
    api.pods = Arriving(arriving)
    settings = {"gpus_per_node": 4, "cpu": "8", "memory": "64Gi", "secret": "storage-keys"}
    settings |= {"image": "registry.example/train:1", "service_account": "trainer"}
    fulfil(order(**settings, timeout_hours=2), Watching())
    (job,) = api.created
    spec, trainer = job["spec"], job["spec"]["trainer"]
    assert job["metadata"]["namespace"] == kubernetes_api.NAMESPACE
    assert job["metadata"]["name"] == trainjob.name_of(TRAINING)
    assert spec["runtimeRef"]["name"] == "torch-distributed"
    assert spec["activeDeadlineSeconds"] == 7200
    assert trainer["numNodes"] == 2
    assert trainer["image"] == "registry.example/train:1"
    limits = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "4"}
    assert trainer["resourcesPerNode"]["limits"] == limits
    assert trainer["command"] == ["python", "-m", "components.finetune.pod"]
    environment = {each["name"]: each["value"] for each in trainer["env"]}
    assert environment["AWS_ENDPOINT_URL_S3"] == "http://s3.example"
    (pod,) = kubernetes_api._pod_patches(job)
    assert pod["serviceAccountName"] == "trainer"
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["secret"]["secret"] == {"secretName": "storage-keys"}
    assert volumes["storage"]["persistentVolumeClaim"] == {"claimName": "shared"}
    assert "a-real-secret" not in json.dumps(job)


def test_what_the_training_needs_is_emptied_when_it_is_done(api, order, arriving, volume):
    api.pods = Arriving(arriving)
    fulfil(order(), Watching())
    left = {path for path in (volume / "trainjobs").rglob("*") if path.is_file()}
    assert [path.name for path in left if path.stat().st_size] == ["report.json"]


def test_a_training_that_is_done_starts_no_job(api, order, arriving):
    report = arriving()
    assert fulfil(order(), Watching()) == report
    assert api.asked == []


def once_it_runs(api, act):
    """Do something in a thread, a little after a job is there to be followed."""

    def wait():
        give_up = time.monotonic() + 60
        while not api.jobs and time.monotonic() < give_up:
            time.sleep(0.02)
        time.sleep(0.3)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_retried_step_adopts_the_job_that_runs(api, order, arriving):
    api.pods = kubernetes_api.Scripted([node(code=None), node(code=None)])
    first = once_it_runs(api, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Evicted, match="goes on without it"):
        fulfil(order(), Watching())
    first.join()
    (name,) = api.jobs

    def complete():
        arriving()
        for pod in api._pods[name]:
            pod.end(0)
        api.finish(api.jobs[name], failed=False)

    second = threading.Timer(0.3, complete)
    second.start()
    fulfil(order(), Watching())
    second.join()
    assert len(api.created) == 1
    assert api.jobs == {}


def test_a_job_that_completed_while_nobody_looked_is_adopted(api, order, arriving):
    api.pods = kubernetes_api.Scripted([node(), node()])
    with pytest.raises(WorldError, match="its bundle is not in"):
        fulfil(order(), Watching())
    arriving()
    fulfil(order(), Watching())
    assert len(api.created) == 1


def test_a_failed_job_is_kept_with_its_last_lines_and_the_next_try_starts_again(
    api, order, arriving
):
    lines = [f"line {number}" for number in range(40)]
    api.pods = kubernetes_api.Scripted([node(*lines, code=1), node(code=137, reason="OOMKilled")])
    with pytest.raises(WorldError) as raised:
        fulfil(order(), Watching())
    message = str(raised.value)
    assert "line 39" in message and "line 5\n" not in message
    assert "ended with exit code 137 (OOMKilled)" in message
    assert len(api.jobs) == 1
    api.pods = Arriving(arriving)
    fulfil(order(), Watching())
    assert len(api.created) == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_the_training_comes_back_in_its_own_words(api, order, rank):
    nodes = [node(code=1), node(code=1)]
    nodes[rank] = node(said("failed", "finetune.mixup does not work here", 2), code=2)
    api.pods = kubernetes_api.Scripted(nodes)
    with pytest.raises(UserError, match=r"^finetune\.mixup does not work here$"):
        fulfil(order(), Watching())


@pytest.mark.parametrize(
    "end",
    [
        {"code": 75},
        {"code": 137, "reason": "Preempted"},
    ],
    ids=["told to stop", "preempted"],
)
def test_an_evicted_job_is_started_again(api, order, arriving, end):
    # The node that is left fails as well, and knows no better.
    evicted = [node(said("failed", "process 0 ended with code 1", 1), code=1), node(**end)]
    api.pods = kubernetes_api.Scripted(evicted, evicted, [node(), node()])
    arrived = threading.Timer(0.1, arriving)
    arrived.start()
    fulfil(order(evictions=2), Watching())
    arrived.join()
    assert len(api.created) == 3


def test_a_job_that_is_evicted_too_often_is_worth_a_retry_of_the_step(api, order):
    api.pods = kubernetes_api.Scripted([node(code=75), node(code=75)])
    with pytest.raises(Evicted, match="lost a machine"):
        fulfil(order(evictions=1), Watching())
    assert len(api.created) == 2


def test_a_job_that_its_deadline_ended_is_not_started_again(api, order):
    api.pods = kubernetes_api.Scripted([node(code=None), node(code=None)])

    def end():
        (name,) = api.jobs
        for pod in api._pods[name]:
            pod.end(75)
        api.finish(api.jobs[name], failed=True, reason="DeadlineExceeded")

    deadline = once_it_runs(api, end)
    with pytest.raises(WorldError, match=r"did not end within 24 hours .*timeout_hours") as raised:
        fulfil(order(evictions=3), Watching())
    deadline.join()
    assert not isinstance(raised.value, Evicted)
    assert len(api.created) == 1


def test_a_job_that_disappears_is_told(api, order):
    api.pods = kubernetes_api.Scripted([node(code=None), node(code=None)])
    deletion = once_it_runs(api, lambda: api.delete(trainjob.name_of(TRAINING)))
    with pytest.raises(WorldError, match="was deleted while the step followed it"):
        fulfil(order(), Watching())
    deletion.join()


def test_a_job_that_gets_no_machine_is_given_up(api, order, monkeypatch):
    monkeypatch.setattr(trainjob, "PATIENCE_S", 0.2)
    with pytest.raises(WorldError, match=r"did not end within .* hours \(node-0 Pending"):
        fulfil(order(timeout_hours=1e-5), Watching())


def test_an_outage_of_the_api_while_a_job_runs_is_waited_for(api, order, arriving):
    api.pods = kubernetes_api.Scripted([node(code=None), node(code=None)])

    def fail_and_complete():
        api.outage = (503, 5)
        arriving()
        (name,) = api.jobs
        for pod in api._pods[name]:
            pod.end(0)
        api.finish(api.jobs[name], failed=False)

    trouble = once_it_runs(api, fail_and_complete)
    fulfil(order(), Watching())
    trouble.join()
    assert api.outage[1] == 0


def test_an_api_that_stays_away_is_told(api, order, monkeypatch):
    monkeypatch.setattr(trainjob, "PATIENCE_S", 0.2)
    api.pods = kubernetes_api.Scripted([node(code=None), node(code=None)])
    outage = once_it_runs(api, lambda: setattr(api, "outage", (503, 1_000_000)))
    with pytest.raises(WorldError, match="answers 503: etcd has no leader"):
        fulfil(order(), Watching())
    outage.join()


def test_an_api_that_hangs_is_told(api, order, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_S", 0.5)
    api.flowing.clear()
    with pytest.raises(WorldError, match=r"the Kubernetes API does not answer within 0\.5 s"):
        fulfil(order(), Watching())


def test_a_log_whose_connection_broke_is_read_on_without_repeating_a_line(
    api, order, arriving, capfd
):
    lines = [f"line {number}" for number in range(6)]
    api.pods, api.cut_log_after = Arriving(arriving, *lines), 4
    fulfil(order(), Watching())
    printed = [line for line in capfd.readouterr().out.splitlines() if line.startswith("line")]
    assert printed == lines


@pytest.mark.parametrize("status", [401, 403])
def test_an_api_that_denies_access_names_the_rights(api, order, status):
    api.deny = status
    with pytest.raises(WorldError, match=rf"denies access \({status}.*service account needs"):
        fulfil(order(), Watching())


def test_an_unknown_runtime_is_the_users_error(api, order):
    with pytest.raises(ConfigError, match="no training runtime 'torch-typo'"):
        fulfil(order(runtime="torch-typo"), Watching())


def test_a_missing_sdk_is_told_before_anything_travels(order, volume, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'tokiwa\[trainjob\]'"):
        fulfil(order(), Watching())
    assert list(volume.iterdir()) == []


def test_no_cluster_is_told(order, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(WorldError, match="there is no cluster here"):
        fulfil(order(), Watching())


def test_a_store_on_this_machines_disk_is_refused(order):
    with pytest.raises(ConfigError, match=r"TOKIWA_STORE to s3://"):
        fulfil(order(storage="store"), Watching())


def test_a_volume_that_is_not_mounted_is_refused(order):
    volume = VolumeConfig(claim="shared", path="/nowhere/at/all")
    with pytest.raises(ConfigError, match="no volume is mounted at /nowhere/at/all"):
        fulfil(order(storage=volume), Watching())


def test_a_teacher_that_pods_do_not_have_is_refused(toy, order):
    distill = toy.training.distill.model_copy(update={"teacher": "/home/me/teacher"})
    with pytest.raises(ConfigError, match=r"finetune\.distill\.teacher is /home/me/teacher"):
        fulfil(
            order(
                store="s3://bucket",
                storage="store",
                finetune={"method": "distill", "distill": distill},
            ),
            Watching(),
        )


# --- the whole way: the pods are real processes ------------------------------------------


@pytest.fixture
def base(toy, tmp_path):
    """The toy's encoder without any dropout, which would differ between the processes."""
    folder = tmp_path / "base"
    shutil.copytree(toy.base, folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
@pytest.mark.e2e
def test_two_nodes_really_train_through_s3_and_follow_a_single_process(
    api, order, base, s3_url, tmp_path
):
    api.pods = kubernetes_api.Processes(REPOSITORY, tmp_path / "mounts")
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    api.secrets["storage-keys"] = {key: os.environ[key] for key in keys}
    placed = order(store=s3_url, storage="store", secret="storage-keys", base=base)
    watcher = Watching()
    report = fulfil(placed, watcher)
    bundle.verify(placed.folder, report.bundle)
    (job,) = api.created
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in json.dumps(job)
    assert open_store(s3_url).exists(f"bundles/{report.bundle}/manifest.json")
    single = placed.model_copy(
        update={
            "config": placed.config.model_copy(update={"nodes": 1}),
            "folder": tmp_path / "single",
            "store": str(tmp_path / "home"),
        }
    )
    alone = fulfil(single, Watching())
    assert report.steps == alone.steps > 0
    for mine, yours in zip(report.epochs, alone.epochs, strict=True):
        assert mine.train_loss == pytest.approx(yours.train_loss, abs=1e-4)
    assert any(len(each) == 3 and each[2].startswith("loss") for each in watcher.told)


@pytest.mark.slow
@pytest.mark.e2e
def test_an_evicted_node_is_replaced_and_the_training_goes_on(api, order, volume, tmp_path):
    api.pods = kubernetes_api.Processes(REPOSITORY, tmp_path / "mounts")
    told: list[int] = []

    class Evicting(Watching):
        def progress(self, done, total, what):
            super().progress(done, total, what)
            if what.startswith("loss") and not told:
                told.append(done)
                api.pods.kill(1)

    watcher = Evicting()
    long = {"epochs": 40, "patience_epochs": 40, "batch_rows": 8}
    report = fulfil(order(evictions=1, finetune=long), watcher)
    assert len(api.created) == 2
    assert report.steps == next(total for _, total, _ in watcher.told if total > 1)
    resumed = [each[0] for each in watcher.told if each[-1] == "resumed"]
    assert resumed and resumed[0] >= told[0]


@pytest.mark.slow
@pytest.mark.e2e
def test_an_error_in_a_real_pod_is_the_users_error(api, order, tmp_path):
    api.pods = kubernetes_api.Processes(REPOSITORY, tmp_path / "mounts")
    started_s = time.monotonic()
    with pytest.raises(UserError, match=r"finetune\.sharded does not work"):
        fulfil(order(finetune={"sharded": True, "method": "gradual", "epochs": 2}), Watching())
    assert time.monotonic() - started_s < PATIENCE_S
    assert len(api.jobs) == 1
