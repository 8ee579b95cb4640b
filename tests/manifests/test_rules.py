"""Every alert at every level: it fires where its figure is broken, and only there."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from components.serve.metrics import Metrics

POD = 'namespace="tokiwa",pod="sentiment-predictor-1"'
MODEL = 'namespace="tokiwa",model_name="sentiment"'
DAY_MIN = 24 * 60
FROM_KUBERNETES = {"namespace", "pod", "service"}
"""Labels that Prometheus adds to what a pod tells."""
Series = dict[str, str]


@dataclass(frozen=True)
class Case:
    """What is measured, and which levels of an alert fire after some minutes."""

    alert: str
    levels: Sequence[int]
    series: Series
    minutes: int = 60
    step_min: int = 1


def cpu(ratio: float) -> Series:
    return {
        f'container_cpu_usage_seconds_total{{{POD},container="kserve-container"}}': (
            f"0+{ratio * 60 * 2:.3f}x60"
        ),
        f'kube_pod_container_resource_limits{{{POD},resource="cpu"}}': "2x60",
    }


def memory(ratio: float) -> Series:
    return {
        f'container_memory_working_set_bytes{{{POD},container="kserve-container"}}': (
            f"{ratio * 1e9:.0f}x60"
        ),
        f'kube_pod_container_resource_limits{{{POD},resource="memory"}}': "1000000000x60",
    }


def mean(seconds: float) -> Series:
    return {
        f"tokiwa_request_seconds_count{{{MODEL}}}": "0+60x60",
        f"tokiwa_request_seconds_sum{{{MODEL}}}": f"0+{60 * seconds:.3f}x60",
    }


def latency(at_most: float) -> Series:
    """All answers fall into the bucket that ends there."""
    return {
        f'tokiwa_request_seconds_bucket{{{MODEL},le="{le}"}}': (
            "0+60x60" if le == "+Inf" or float(le) >= at_most else "0x60"
        )
        for le in ("0.05", "0.1", "0.2", "0.5", "1.0", "+Inf")
    }


def dropped(rows: int) -> Series:
    return {f"tokiwa_request_log_dropped_total{{{MODEL}}}": f"0x30 {rows}x30"}


def up(values: str, project: str = "sentiment", ready: str = "") -> Series:
    """A server that is alive, and gets requests only if it is ready as well."""
    pod = f'namespace="tokiwa",pod="{project}-predictor-1"'
    return {
        f'up{{{pod},service="tokiwa-servers",project="{project}"}}': values,
        f'kube_pod_status_ready{{{pod},condition="true"}}': ready or values,
    }


def gpu(ratio: float, whose: str = 'namespace="tokiwa"') -> Series:
    labels = f'Hostname="node-1",gpu="0",{whose}'
    return {
        f"DCGM_FI_DEV_FB_USED{{{labels}}}": f"{ratio * 1000:.0f}x60",
        f"DCGM_FI_DEV_FB_FREE{{{labels}}}": f"{1000 - ratio * 1000:.0f}x60",
    }


def volume(ratio: float) -> Series:
    labels = 'namespace="tokiwa",persistentvolumeclaim="data-tokiwa-store-0"'
    return {
        f"kubelet_volume_stats_used_bytes{{{labels}}}": f"{ratio * 1000:.0f}x60",
        f"kubelet_volume_stats_capacity_bytes{{{labels}}}": "1000x60",
    }


def replicas(current: int) -> Series:
    labels = 'namespace="tokiwa",horizontalpodautoscaler="sentiment-predictor"'
    return {
        f"kube_horizontalpodautoscaler_status_current_replicas{{{labels}}}": f"{current}x60",
        f"kube_horizontalpodautoscaler_spec_max_replicas{{{labels}}}": "20x60",
    }


def failed(pod: str, count: int, minutes: int = 60) -> Series:
    labels = f'namespace="tokiwa",phase="Failed",pod="{pod}"'
    return {f"kube_pod_status_phase{{{labels}}}": f"{count}x{minutes}"}


def killed(reason: str, which: str = "last_terminated") -> Series:
    """A server is started again by its pod; of a step, the pod ends."""
    labels = f'{POD},container="kserve-container",reason="{reason}"'
    return {f"kube_pod_container_status_{which}_reason{{{labels}}}": "1x60"}


def started(days_ago: int, project: str = "sentiment", graph: str = "training") -> Series:
    """Ten days, in half hours, at whose end a run had started so long ago; pods stay a week."""
    before, kept = (10 - days_ago) * 48, min(7, days_ago) * 48
    # As Kubeflow names the pods of a schedule: letters of its title, 25 at most.
    title = f"{project}{graph}nowschedule"[:25]
    pod = f'namespace="tokiwa",pod="{title}abcde-1-1234567-system-container-impl-1"'
    labels = f'{pod},label_tokiwa_project="{project}",label_tokiwa_graph="{graph}"'
    return {
        f"kube_pod_start_time{{{pod}}}": f"_x{before} {before * 1800}x{kept} _x{480}",
        f"kube_pod_labels{{{labels}}}": f"_x{before} 1x{kept} _x{480}",
    }


def ready(metric: str, labels: str, count: int) -> Series:
    return {f'{metric}{{namespace="tokiwa",{labels}}}': f"{count}x60"}


def errors(ratio: float) -> Series:
    labels = f'{MODEL},protocol="v1",version="1"'
    return {
        f'tokiwa_requests_total{{{labels},status="200"}}': f"0+{6000 * (1 - ratio):.1f}x60",
        f'tokiwa_requests_total{{{labels},status="500"}}': f"0+{6000 * ratio:.1f}x60",
    }


STORE = ("kube_statefulset_status_replicas_ready", 'statefulset="tokiwa-store"')
MLFLOW = ("kube_deployment_status_replicas_available", 'deployment="tokiwa-mlflow"')
CASES = (
    Case("TokiwaCpu", (), cpu(0.79)),
    Case("TokiwaCpu", (1,), cpu(0.85)),
    Case("TokiwaCpu", (1, 2), cpu(0.95)),
    Case("TokiwaCpu", (1, 2, 3), cpu(0.99)),
    Case("TokiwaMemory", (), memory(0.69)),
    Case("TokiwaMemory", (1,), memory(0.75)),
    Case("TokiwaMemory", (1, 2), memory(0.85)),
    Case("TokiwaMemory", (1, 2, 3), memory(0.95)),
    Case("TokiwaLatencyMean", (), mean(0.099)),
    Case("TokiwaLatencyMean", (2,), mean(0.101)),
    Case("TokiwaLatencyP95", (), latency(0.2)),
    Case("TokiwaLatencyP95", (2,), latency(0.5)),
    Case("TokiwaLatencyP95", (2, 3), latency(1.0)),
    Case("TokiwaDown", (), up("1x60")),
    Case("TokiwaDown", (3,), up("1x50 0x10")),
    Case("TokiwaDown", (3,), {}),
    Case("TokiwaDown", (3,), up("1x60", ready="1x50 0x10")),
    Case("TokiwaDown", (3,), up("1x60") | up("1x50 0x10", "digits")),
    Case("TokiwaAvailability", (), up("1x1400 0 1x39"), minutes=DAY_MIN),
    Case("TokiwaAvailability", (2,), up("1x1400 0x9 1x30"), minutes=DAY_MIN),
    Case("TokiwaAtMaxReplicas", (), replicas(19)),
    Case("TokiwaAtMaxReplicas", (2,), replicas(20)),
    Case("TokiwaGpuMemory", (), gpu(0.79)),
    Case("TokiwaGpuMemory", (1,), gpu(0.85)),
    Case("TokiwaGpuMemory", (1, 2), gpu(0.95)),
    Case("TokiwaGpuMemory", (1, 2, 3), gpu(0.99)),
    Case("TokiwaGpuMemory", (1, 2, 3), gpu(0.99, 'namespace="gpus",exported_namespace="tokiwa"')),
    Case("TokiwaGpuMemory", (), gpu(0.99, 'namespace="gpus",exported_namespace="others"')),
    Case("TokiwaStepFailed", (), failed("sentiment-training-abcde-1", 0)),
    Case("TokiwaStepFailed", (), failed("sentiment-predictor-1", 1)),
    Case("TokiwaStepFailed", (), failed("tokiwa-store-0", 1)),
    Case("TokiwaStepFailed", (2,), failed("sentiment-training-abcde-1", 1)),
    Case("TokiwaStepFailed", (2,), failed("sentimenttrainingnowschedabcde-1-1234567-1", 1)),
    Case(
        "TokiwaStepFailed",
        (),
        failed("sentiment-training-abcde-1", 1, minutes=2 * DAY_MIN),
        minutes=2 * DAY_MIN,
    ),
    Case("TokiwaOutOfMemory", (), killed("Completed")),
    Case("TokiwaOutOfMemory", (2,), killed("OOMKilled")),
    Case("TokiwaOutOfMemory", (2,), killed("OOMKilled", "terminated")),
    Case("TokiwaTrainingMissed", (), started(7), minutes=10 * DAY_MIN, step_min=30),
    Case("TokiwaTrainingMissed", (2,), started(9), minutes=10 * DAY_MIN, step_min=30),
    Case(
        "TokiwaTrainingMissed",
        (2,),
        started(7, graph="monitoring"),
        minutes=10 * DAY_MIN,
        step_min=30,
    ),
    Case("TokiwaTrainingMissed", (2,), {}, minutes=10 * DAY_MIN, step_min=30),
    Case(
        "TokiwaTrainingMissed",
        (2,),
        started(7) | started(9, "digits"),
        minutes=10 * DAY_MIN,
        step_min=30,
    ),
    Case("TokiwaStateDown", (), ready(*STORE, 1)),
    Case("TokiwaStateDown", (3,), ready(*STORE, 0)),
    Case("TokiwaStateDown", (), ready(*MLFLOW, 1)),
    Case("TokiwaStateDown", (3,), ready(*MLFLOW, 0)),
    Case("TokiwaVolume", (), volume(0.69)),
    Case("TokiwaVolume", (1,), volume(0.75)),
    Case("TokiwaVolume", (1, 2), volume(0.85)),
    Case("TokiwaVolume", (1, 2, 3), volume(0.95)),
    Case("TokiwaRequestLog", (), dropped(0)),
    Case("TokiwaRequestLog", (1,), dropped(10)),
    Case("TokiwaErrors", (), errors(0.0009)),
    Case("TokiwaErrors", (2,), errors(0.002)),
    Case("TokiwaErrors", (2, 3), errors(0.02)),
)


@pytest.fixture(scope="module")
def groups(objects_of: Any) -> list[dict[str, Any]]:
    """The groups of rules of all components."""
    rules = [each for each in objects_of("everything") if each["kind"] == "PrometheusRule"]
    return [group for each in rules for group in each["spec"]["groups"]]


@pytest.fixture(scope="module")
def shown(objects_of: Any) -> set[str]:
    """What the panels of the dashboard ask."""
    (dashboard,) = [
        each["data"]["dashboard.json"]
        for each in objects_of("production")
        if each["metadata"]["name"] == "tokiwa-dashboard"
    ]
    return {
        target["expr"]
        for panel in yaml.safe_load(dashboard)["panels"]
        for target in panel["targets"]
    }


def test_every_level_of_every_alert_has_a_case_that_fires_and_one_that_does_not(groups):
    written = {
        (rule["alert"], int(rule["labels"]["level"]))
        for group in groups
        for rule in group["rules"]
        if "alert" in rule
    }
    assert {(case.alert, level) for case in CASES for level in case.levels} == written
    assert {case.alert for case in CASES if not case.levels} == {alert for alert, _ in written}


def test_every_alert_says_what_to_do(groups):
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        assert rule["annotations"]["summary"] and rule["annotations"]["action"]
        # Without the namespace's label, the operator's routes would take none of them.
        assert set(rule["labels"]) == {"level", "namespace"}
        assert rule["labels"]["namespace"] == "tokiwa"


def test_what_is_asked_of_the_server_is_what_it_tells(groups, shown):
    told = {
        sample.name: set(sample.labels) | FROM_KUBERNETES
        for family in metrics_of("one", version="1", protocol="v1", status="500")
        for sample in family.samples
    }
    asked = 0
    for expression in [*shown, *(rule["expr"] for group in groups for rule in group["rules"])]:
        for metric, selector in re.findall(r"\b(tokiwa_\w+)\{([^}]*)\}", expression):
            assert metric in told, f"no server tells {metric}"
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            assert labels <= told[metric], (metric, labels)
            asked += 1
            for group in re.findall(rf"by \(([^)]*)\)\s*\(\w+\({metric}\{{", expression):
                assert set(re.split(r",\s*", group)) <= told[metric], (metric, group)
    assert asked >= 12


def metrics_of(name: str, *, version: str, protocol: str, status: str) -> list[Any]:
    """Return what a server tells that has answered once, and could not keep one row."""
    metrics = Metrics(name)
    metrics.request(protocol, int(status), version)
    metrics.answered(version, 0.15, [{"label": "a", "confidence": 0.5}], 1)
    metrics.batch(version, 1, 0.01)
    metrics.queue(1)
    metrics.dropped(1)
    return list(REGISTRY.collect())


def test_the_latency_alerts_are_where_a_bucket_of_the_server_ends(groups):
    told = metrics_of("two", version="1", protocol="v1", status="200")
    ends = {
        float(sample.labels["le"])
        for family in told
        for sample in family.samples
        if sample.name == "tokiwa_request_seconds_bucket"
    }
    limits = {
        float(rule["expr"].rpartition(">")[2])
        for group in groups
        for rule in group["rules"]
        if rule.get("alert") == "TokiwaLatencyP95"
    }
    # Between two ends a quantile is guessed: 110 ms would have looked like 240.
    assert len(limits) == 2 and limits <= ends


def test_the_dashboard_shows_what_is_recorded(groups, shown):
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    assert {expression for expression in shown if expression.startswith("tokiwa:")} <= recorded


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_alerts_fire_where_their_figure_is_broken(groups, tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; Debian's package prometheus brings one")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    files = []
    for step_min in sorted({case.step_min for case in CASES}):
        content = {
            "rule_files": ["rules.yaml"],
            "evaluation_interval": f"{step_min}m",
            "tests": [as_promtool(case) for case in CASES if case.step_min == step_min],
        }
        files.append(tmp_path / f"every-{step_min}-minutes.yaml")
        files[-1].write_text(yaml.safe_dump(content))
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", *map(str, files)]):
        done = subprocess.run(
            [promtool, *command], cwd=tmp_path, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stdout + done.stderr


def as_promtool(case: Case) -> dict[str, Any]:
    """Return a case as promtool reads it."""
    return {
        "name": f"{case.alert} {case.levels} {case.series}",
        "interval": f"{case.step_min}m",
        "input_series": [
            {"series": name, "values": values} for name, values in case.series.items()
        ],
        "promql_expr_test": [
            {
                "eval_time": f"{case.minutes}m",
                "expr": f'count(ALERTS{{alertname="{case.alert}",alertstate="firing",'
                f'level="{level}"}}) or vector(0)',
                "exp_samples": [{"labels": "{}", "value": int(level in case.levels)}],
            }
            for level in (1, 2, 3)
        ],
    }
