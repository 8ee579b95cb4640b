"""What section cluster says reaches every step of the compiled graphs, and nothing secret does."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kfp import compiler
from kfp import components as kfp_components

from components.attempts import NODE
from components.errors import ConfigError
from pipelines import runners
from pipelines.cluster import (
    MAX_GPUS,
    MAX_WAIT_S,
    STEPS,
    WITH_MODEL,
    ClusterConfig,
    Pod,
    Retries,
)
from pipelines.placement import RETRIED_FOR, TITLES
from pipelines.project_file import load, shipped_projects

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "canary-access-key",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-key",
    "AWS_SESSION_TOKEN": "canary-session",
    "AWS_ENDPOINT_URL_S3": "http://canary-endpoint",
    "MLFLOW_TRACKING_URI": "http://canary-user:canary-password@localhost:5000",
    "MLFLOW_TRACKING_TOKEN": "canary-mlflow",
    "MLFLOW_TRACKING_PASSWORD": "canary-mlflow-password",
    "HF_TOKEN": "canary-hub",
    "KF_PIPELINES_ENDPOINT": "http://canary-kubeflow",
    "TOKIWA_KFP_TOKEN": "canary-token",
    "TOKIWA_KFP_COOKIE": "canary=cookie",
    "TOKIWA_STORE": "s3://canary-bucket/prefix",
    "TOKIWA_STUDIES": "postgresql://canary:canary@localhost/studies",
    "TOKIWA_HOME": "/canary-home",
}
SPACE = "{learning_rate: {choices: [0.0001, 0.001]}}"
FULL = """\
namespace: team-a
service_account: trainer
timeout_s: 86400
keep_s: 3600
default:
  labels: {cost-center: nlp}
  image_pull_secrets: [registry]
steps:
  finetune:
    cpu: "8"
    memory: 32Gi
    memory_limit: 48Gi
    gpu: {type: nvidia.com/gpu, count: 2}
    shared_memory: 8Gi
    node_selector: {pool: gpu}
    tolerations:
      - {key: spot, operator: Exists, effect: NoSchedule}
      - {key: slow, value: "yes", effect: NoExecute, seconds: 60}
    affinity:
      - {key: nvidia.com/gpu.product, values: [A100, H100]}
      - {key: zone, operator: Exists}
      - {key: capacity, values: [spot], weight: 80}
    scratch: {size: 100Gi, storage_class: fast}
    secrets: [{name: hub, keys: {token: HF_TOKEN}}]
    config_maps: [{name: places, keys: {store: TOKIWA_STORE}, optional: true}]
    annotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: "false"}
    timeout_s: 7200
    retries: {most: 5, wait_s: 10, factor: 3}
    run_as: {user: 1000, group: 2000}
    image_pull_policy: Always
    cache: false
  prepare:
    scratch: {claim: shared, mount: /work}
"""


def project_with(cluster: str = FULL, name: str = "sentiment") -> Any:
    section = ClusterConfig.model_validate(yaml.safe_load(cluster))
    return load(name).model_copy(update={"cluster": section})


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a compiled graph and what it says for Kubernetes alone."""
    ir, platform = yaml.load_all(path.read_text(), yaml.CSafeLoader)
    return ir, platform["platforms"]["kubernetes"]


def steps_of(path: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return each step's container, and what Kubernetes gets for it."""
    ir, platform = documents(path)
    pods = platform["deploymentSpec"]["executors"]
    executors = ir["deploymentSpec"]["executors"]
    return {
        name.removeprefix("exec-"): (each["container"], pods[name])
        for name, each in executors.items()
    }


def tasks_of(ir: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tasks that run a container, by name."""
    inner = (each["dag"] for each in ir["components"].values() if "dag" in each)
    dags = [ir["root"]["dag"], *inner]
    return {
        name: task
        for dag in dags
        for name, task in dag["tasks"].items()
        if "executorLabel" in ir["components"][task["componentRef"]["name"]]
    }


# --- what a step gets


def test_what_a_step_leaves_out_comes_from_the_default_and_then_from_what_is_built_in():
    cluster = ClusterConfig.model_validate(
        {
            "default": {"cpu": "3", "image_pull_policy": "Always"},
            "steps": {"finetune": {"memory": "9Gi"}, "validate": {"cpu": "100m"}},
        }
    )
    finetune, validate = cluster.pod("finetune"), cluster.pod("validate")
    assert (finetune.cpu, finetune.memory, finetune.retries.most) == ("3", "9Gi", 3)
    assert finetune.limits == ("3", "9Gi") and finetune.image_pull_policy == "Always"
    assert (validate.cpu, validate.memory) == ("100m", Pod().memory)
    assert cluster.pod("prepare").memory == "6Gi"


def test_a_list_without_anything_takes_what_is_built_in_away():
    cluster = ClusterConfig.model_validate({"steps": {"drift": {"secrets": []}}})
    assert cluster.pod("drift").secrets == () and cluster.pod("drift").config_maps
    assert cluster.pod("trigger") == Pod()


def test_every_setting_reaches_the_pod(tmp_path):
    package = runners.packages_of(project_with(), tmp_path)["training"]
    ir, platform = documents(package)
    container, pod = steps_of(package)["finetune"]
    resources = container["resources"]
    assert resources["resourceCpuRequest"] == "8" and resources["resourceCpuLimit"] == "8"
    assert resources["resourceMemoryRequest"] == "32Gi"
    assert resources["resourceMemoryLimit"] == "48Gi"
    assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert resources["accelerator"]["resourceCount"] == "2"
    assert container["env"] == [{"name": "TMPDIR", "value": "/scratch"}]
    (shared,) = pod["emptyDirMounts"]
    assert (shared["mountPath"], shared["medium"], shared["sizeLimit"]) == (
        "/dev/shm",
        "Memory",
        "8Gi",
    )
    assert pod["nodeSelector"]["labels"] == {"pool": "gpu"}
    assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu", "spot", "slow"]
    assert pod["tolerations"][2]["tolerationSeconds"] == "60"
    required, preferred = pod["nodeAffinity"]
    assert [each["key"] for each in required["matchExpressions"]] == [
        "nvidia.com/gpu.product",
        "zone",
    ]
    assert "weight" not in required and preferred["weight"] == 80
    (scratch,) = pod["genericEphemeralVolume"]
    assert (scratch["size"], scratch["storageClassName"]) == ("100Gi", "fast")
    secret, of_the_store = pod["secretAsEnv"]
    config, *places = pod["configMapAsEnv"]
    assert secret["secretName"] == "hub" and not secret["optional"]
    assert secret["keyToEnv"] == [{"secretKey": "token", "envVar": "HF_TOKEN"}]
    assert config["configMapName"] == "places" and config["optional"]
    # What is built in stays beside them, but for what they give.
    assert of_the_store["secretName"] == "tokiwa-store"
    given = [each["envVar"] for named in places for each in named["keyToEnv"]]
    assert given == ["MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION"]
    assert pod["podMetadata"]["labels"] == {
        "cost-center": "nlp",
        "tokiwa/graph": "training",
        "tokiwa/project": "sentiment",
        "tokiwa/step": "finetune",
    }
    assert "cluster-autoscaler.kubernetes.io/safe-to-evict" in pod["podMetadata"]["annotations"]
    assert pod["activeDeadlineSeconds"] == "7200" and pod["imagePullPolicy"] == "Always"
    assert pod["imagePullSecret"][0]["secretName"] == "registry"
    assert pod["securityContext"] == {
        "runAsUser": "1000",
        "runAsGroup": "2000",
        "runAsNonRoot": True,
    }
    task = tasks_of(ir)["finetune"]
    assert task["retryPolicy"] == {
        "maxRetryCount": 5,
        "backoffDuration": "10s",
        "backoffFactor": 3.0,
        "backoffMaxDuration": RETRIED_FOR,
    }
    assert not task["cachingOptions"].get("enableCache")
    assert tasks_of(ir)["prepare"]["cachingOptions"]["enableCache"]
    (claim,) = steps_of(package)["prepare"][1]["pvcMount"]
    assert (claim["mountPath"], claim["pvcNameParameter"]["runtimeValue"]["constant"]) == (
        "/work",
        "shared",
    )
    whole = platform["pipelineConfig"]
    assert "3600" in str(whole) and "86400" in str(whole)


def test_no_retry_is_cut_off_by_the_time_that_the_attempts_before_it_took():
    # Argo counts from the start of the first attempt, and ends later ones by it.
    pod, retries = fields_of(Pod), fields_of(Retries)
    longest_s = (retries["most"] + 1) * pod["timeout_s"] + retries["most"] * MAX_WAIT_S
    assert int(RETRIED_FOR.removesuffix("s")) > longest_s


def fields_of(section: Any) -> dict[str, int]:
    """Return the greatest value of each number of a section."""
    return {
        name: bound.le
        for name, field in section.model_fields.items()
        for bound in field.metadata
        if hasattr(bound, "le")
    }


def test_a_step_learns_which_attempt_it_is(shipped):
    for _container, pod in steps_of(shipped["training"]).values():
        told = {each["name"]: each["fieldPath"] for each in pod["fieldPathAsEnv"]}
        assert told == {
            "TOKIWA_RUN": "metadata.labels['pipeline/runid']",
            NODE: "metadata.annotations['workflows.argoproj.io/node-name']",
        }


def test_a_search_is_a_loop_only_where_loops_may_be(tmp_path):
    project = load("sentiment", [f"finetune.search={{space: {SPACE}, parallel: 3, trials: 3}}"])
    with_loop = runners.packages_of(project, tmp_path)["training"].read_text()
    flat = project.model_copy(update={"cluster": ClusterConfig(fan_out=False)})
    without = runners.packages_of(flat, tmp_path)["training"].read_text()
    assert "parameterIterator" in with_loop and "parameterIterator" not in without
    assert "exec-search" in without


def test_partitions_are_a_loop_only_where_loops_may_be(tmp_path):
    project = load("sentiment", ["collect.partitions=4", "source.max_rows_per_window=null"])
    with_loop = runners.packages_of(project, tmp_path)["monitoring"].read_text()
    assert "parameterIterator" in with_loop and TITLES["summarize"] in with_loop
    flat = project.model_copy(update={"cluster": ClusterConfig(fan_out=False)})
    without = runners.packages_of(flat, tmp_path)["monitoring"].read_text()
    assert "parameterIterator" not in without and "exec-summarize" not in without
    assert '"partitions":4' in without  # collect reads them one after the other


def test_a_gpu_of_the_default_goes_to_the_steps_that_load_a_model(tmp_path):
    project = project_with("{default: {gpu: {type: nvidia.com/mig-1g.10gb}, memory: 1.5Gi}}")
    steps = steps_of(runners.packages_of(project, tmp_path)["training"])
    with_gpu = {name for name, (each, _) in steps.items() if "accelerator" in each["resources"]}
    with_torch = {name for name, (each, _) in steps.items() if "python-train" in each["image"]}
    assert with_gpu == with_torch == set(steps) & set(WITH_MODEL)
    tolerated = [each["key"] for each in steps["finetune"][1]["tolerations"]]
    assert tolerated == ["nvidia.com/gpu"], "the taint of the nodes, whatever their slices"
    assert steps["notify"][0]["resources"]["resourceMemoryLimit"] == "1.5Gi"


# --- the place is all that differs


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The compiled graphs of the default project."""
    return runners.packages_of(load("sentiment"), tmp_path_factory.mktemp("shipped"))


@pytest.mark.parametrize("graph", runners.GRAPHS)
def test_nothing_but_the_place_differs_from_a_local_run(graph, shipped, tmp_path):
    ir, _ = documents(shipped[graph])
    here = yaml.load(runners.compiled(graph, tmp_path).read_text(), yaml.CSafeLoader)
    there = copy.deepcopy(ir)
    for each in there["deploymentSpec"]["executors"].values():
        assert each["container"].pop("resources")
    for name, task in tasks_of(there).items():
        assert task["taskInfo"].pop("name") == TITLES[name]
        assert task.pop("retryPolicy")
        task["taskInfo"]["name"] = name
    assert there["components"] == here["components"]
    assert there["deploymentSpec"] == here["deploymentSpec"]
    assert there["root"]["dag"] == here["root"]["dag"]


def test_every_step_has_a_title_and_a_place():
    assert set(TITLES) == set(STEPS)


# --- the shipped projects


def round_trip(path: Path, folder: Path) -> None:
    read = kfp_components.load_component_from_file(str(path))
    again = folder / "again.yaml"
    compiler.Compiler().compile(read, str(again))
    assert documents(again) == documents(path)


def test_the_training_graph_of_the_default_project_round_trips(shipped, tmp_path):
    round_trip(shipped["training"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_projects())
def test_both_graphs_of_every_shipped_project_round_trip(name, tmp_path):
    for path in runners.packages_of(load(name), tmp_path).values():
        round_trip(path, tmp_path)


def test_compiling_again_makes_the_same_to_the_last_letter(shipped, tmp_path):
    # The digest of what is compiled names the version, and a schedule is replaced for another.
    again = runners.packages_of(load("sentiment"), tmp_path)
    for graph in runners.GRAPHS:
        assert shipped[graph].read_text() == again[graph].read_text()


# --- any project


names = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
cpus = st.one_of(st.integers(1, 64).map(str), st.integers(1, 9000).map("{}m".format))
memories = st.tuples(st.integers(1, 999), st.sampled_from(["Mi", "Gi", "G"])).map(
    lambda each: f"{each[0]}{each[1]}"
)
keyed = st.dictionaries(names, names, min_size=1, max_size=2)
pods = st.fixed_dictionaries(
    {},
    optional={
        "cpu": cpus,
        "memory": memories,
        "gpu": st.fixed_dictionaries(
            {"type": st.sampled_from(["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.10gb"])},
            optional={"count": st.integers(1, MAX_GPUS)},
        ),
        "node_selector": st.dictionaries(names, names, max_size=2),
        "tolerations": st.lists(
            st.fixed_dictionaries({"key": names, "operator": st.just("Exists")}), max_size=2
        ),
        "affinity": st.lists(
            st.fixed_dictionaries(
                {"key": names, "values": st.lists(names, min_size=1, max_size=2)},
                optional={"weight": st.integers(1, 100)},
            ),
            max_size=3,
        ),
        "scratch": st.one_of(
            st.fixed_dictionaries({"claim": names}), st.fixed_dictionaries({"size": memories})
        ),
        "secrets": st.lists(st.fixed_dictionaries({"name": names, "keys": keyed}), max_size=2),
        "config_maps": st.lists(st.fixed_dictionaries({"name": names, "keys": keyed}), max_size=2),
        "labels": st.dictionaries(names, names, max_size=2),
        "timeout_s": st.integers(60, 10_000),
        "retries": st.fixed_dictionaries({"most": st.integers(0, 10)}),
        "image_pull_policy": st.sampled_from(["Always", "Never", "IfNotPresent"]),
        "cache": st.booleans(),
    },
)
clusters: Any = st.fixed_dictionaries(
    {},
    optional={
        "default": pods,
        "steps": st.dictionaries(st.sampled_from(STEPS), pods, max_size=4),
        "fan_out": st.booleans(),
        "service_account": names,
        "keep_s": st.one_of(st.none(), st.integers(0, 10**6)),
        "timeout_s": st.integers(60, 10**6),
    },
).filter(lambda drawn: not ClusterConfig.model_validate(drawn).impossible())
searches = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "space": st.just(yaml.safe_load(SPACE)),
            "parallel": st.integers(1, 3),
            "trials": st.integers(1, 4),
        }
    ),
)
projects = st.tuples(st.sampled_from(shipped_projects()), clusters, searches, names)


def check_any_project(drawn, folder: Path) -> None:
    name, cluster, search, called = drawn
    given = {"cluster": cluster, "finetune.search": search, "name": called}
    overrides = [f"{key}={yaml.safe_dump(value)}" for key, value in given.items()]
    for graph, path in runners.packages_of(load(name, overrides), folder).items():
        assert "canary" not in path.read_text()
        steps = steps_of(path)
        least = {"score"} if graph == "scoring" else {"resolve", "finetune", "notify"}
        assert least <= set(steps) <= set(STEPS)
        section = ClusterConfig.model_validate(cluster)
        for step, (container, pod) in steps.items():
            wanted = section.pod(step)
            resources = container["resources"]
            assert resources["resourceCpuRequest"] == wanted.cpu
            assert resources["resourceMemoryLimit"] == wanted.limits[1]
            assert ("accelerator" in resources) == (wanted.gpu is not None)
            assert pod["activeDeadlineSeconds"] == str(wanted.timeout_s)
            named = {each["secretName"] for each in pod.get("secretAsEnv", [])}
            assert named == {each.name for each in wanted.secrets}


@pytest.fixture
def planted(monkeypatch):
    """A canary in every credential that a machine may hold."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


relaxed = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(relaxed, max_examples=2, derandomize=True)
@given(drawn=projects)
def test_any_project_compiles_without_secrets_and_with_its_resources(drawn, planted, tmp_path):
    assert os.environ["HF_TOKEN"] == "canary-hub"
    check_any_project(drawn, tmp_path)


@pytest.mark.slow
@settings(relaxed, max_examples=100)
@given(drawn=projects)
def test_many_projects_compile_without_secrets_and_with_their_resources(drawn, planted, tmp_path):
    check_any_project(drawn, tmp_path)


# --- bad input


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cluster.default.gpu={type: nvidia-a100}", "there are nvidia.com/gpu, nvidia.com/mig-"),
        ("cluster.default.gpu={count: 0}", "cluster.default.gpu.count"),
        ("cluster.default.gpu={count: 400}", "less than or equal to 16"),
        ("cluster.default.cpu=two", "cluster.default.cpu: is no quantity of CPU"),
        ("cluster.default.cpu='0'", "is no quantity of CPU"),
        ("cluster.default.memory=4 GB", "is no quantity of bytes, such as"),
        ("cluster.steps.finetun={cpu: '1'}", "did you mean finetune?"),
        ("cluster.steps.finetune={cpus: '1'}", "did you mean cpu?"),
        (
            "cluster.steps.finetune={memory: 8Gi, memory_limit: 4Gi}",
            "memory_limit of 4Gi is below the 8Gi",
        ),
        (
            "cluster.steps.drift={cpu: '4', cpu_limit: 500m}",
            "drift.cpu_limit of 500m is below",
        ),
        ("cluster.steps.finetune={shared_memory: 64Gi}", "must be below the pod's 6Gi"),
        ("cluster.default.scratch={mount: /x}", "either a claim, or the size"),
        ("cluster.default.scratch={claim: a, size: 1Gi}", "either a claim, or the size"),
        ("cluster.default.tolerations=[{operator: Exists, value: x}]", "takes no value"),
        ("cluster.default.affinity=[{key: a}]", "by In cannot have 0 values"),
        ("cluster.default.run_as={user: 0}", "user 0 is root"),
        ("cluster.default.secrets=[{name: a, keys: {}}]", "at least 1 item"),
        ("cluster.default.secrets=[{name: a, keys: {token: s3cr-et}}]", "cluster.default.secrets"),
        ("cluster.default.retries={factor: 1.5}", "cluster.default.retries.factor"),
        ("cluster.default.retries={most: 9, factor: 5}", "the last of 9 waits would take"),
        ("cluster.default.cpu='２'", "is no quantity of CPU"),  # as a Japanese keyboard writes it
        ("cluster.default.cpu='0.0001'", "is no quantity of CPU"),
        ("cluster.default.cpu='5000'", "more than the 1024 cores"),
        ("cluster.default.memory=500K", "is no quantity of bytes"),  # Kubernetes has k and Ki
        ("cluster.default.memory='4'", "is the unit right?"),
        ("cluster.default.memory=99Pi", "between 1Mi and 64Ti"),
        ("cluster.steps.drift={gpu: {count: 1}}", "drift.gpu would lie idle"),
        ("cluster.namespace=team.a", "cluster.namespace: is no namespace: up to 63 small letters"),
        ("cluster.service_account=a-.b", "cluster.service_account: is no name of Kubernetes"),
        ("cluster.default.labels={tokiwa/step: x}", "is a label that Kubeflow or Tokiwa sets"),
        (
            "cluster.default.labels={app.kubernetes.io/component: store}",
            "network policies and quotas go by",
        ),
        ("cluster.default.labels={a..b/c: x}", "cluster.default.labels"),
        (
            "cluster.default.affinity=[{key: a, operator: Gt, values: [b]}]",
            "by Gt compares with a whole number",
        ),
        ("cluster.default.scratch={size: 1Gi, mount: /dev/shm}", "would hide what a pod needs"),
        ("cluster.default.scratch={size: 1Gi, mount: /kfp-launcher}", "would hide"),
        ("cluster.default.scratch={size: 1Gi, mount: /x/../app}", "would hide"),
        ("cluster.default.scratch={size: 1Gi, mount: //}", "would hide"),
        ("cluster.default.secrets=[{name: a, keys: {b: TOKIWA_RUN}}]", "choose another"),
        (
            "cluster.default.secrets=[{name: a, keys: {b: HF_TOKEN, c: HF_TOKEN}}]",
            "secrets and config_maps give HF_TOKEN more than once",
        ),
        ("name=ends-with-", "name: string should match"),  # which no label may
        ("cluster.default.image_pull_policy=Sometimes", "'Always', 'IfNotPresent' or 'Never'"),
        ("schedules.training={cron: 30 3 * * MON}", "write '0 30 3 * * MON'"),
        ("schedules.training={cron: 0 0 3 1 * *}", "cannot be said by the cluster's clock, UTC"),
        ("schedules.timezone=Mars", "there is no such time zone"),
        ("schedules.weekly={cron: 0 0 3 * * 1}", "known are training, monitoring"),
    ],
)
def test_what_no_cluster_can_do_is_refused_with_what_it_can(override, said):
    with pytest.raises(ConfigError) as refused:
        load("sentiment", [override])
    assert said in str(refused.value)
    assert override[:60] in str(refused.value), "the place of the mistake is named"
