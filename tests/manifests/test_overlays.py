"""What `kubectl apply -k` would send: complete, narrow, and of one piece."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components import images

ROOT = Path(__file__).parents[2]
SECRETS_SCRIPT = ROOT / "manifests" / "secrets.sh"
Object = dict[str, Any]
CLUSTER_WIDE = {"Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding", "Profile"}
ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""Of the Pod Security Standard *restricted*."""


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def names(objects: list[Object], *kinds: str) -> set[str]:
    return {each["metadata"]["name"] for each in of_kind(objects, *kinds)}


def selected(selector: Object, labels: dict[str, str]) -> bool:
    """Tell whether a label selector takes a pod with these labels."""
    for each in selector.get("matchExpressions", []):
        value = labels.get(each["key"])
        if each["operator"] == "Exists" and value is None:
            return False
        if each["operator"] == "In" and value not in each["values"]:
            return False
        assert each["operator"] in ("Exists", "In")
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


# --- of one piece


def test_every_object_is_named_once_and_is_in_the_namespace(objects):
    counted = Counter((each["kind"], each["metadata"]["name"]) for each in objects)
    assert [key for key, count in counted.items() if count > 1] == []
    for each in objects:
        namespace = each["metadata"].get("namespace")
        assert namespace == (None if each["kind"] in CLUSTER_WIDE else "tokiwa"), each["metadata"]


def test_every_reference_leads_somewhere(objects, pods):
    secrets = names(objects, "Secret") | set(
        re.findall(r"\b(tokiwa-[a-z0-9-]+)", SECRETS_SCRIPT.read_text())
    )
    for name, pod in pods.items():
        spec = pod["spec"]
        assert spec["serviceAccountName"] in names(objects, "ServiceAccount") | {"tokiwa-store"}
        assert spec["priorityClassName"] in names(objects, "PriorityClass"), name
        for volume in spec["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets, name
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    assert source["configMapRef"]["name"] in names(objects, "ConfigMap")
                else:
                    assert source["secretRef"]["name"] in secrets, name
            volumes = {volume["name"] for volume in spec["volumes"]} | {"data"}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name


def test_every_service_finds_its_pods(objects, pods):
    for service in of_kind(objects, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        chosen = [pod for pod in pods.values() if selected(selector, pod["metadata"]["labels"])]
        assert chosen, service["metadata"]["name"]
        ports = {
            value
            for pod in chosen
            for container in pod["spec"]["containers"]
            for port in container["ports"]
            for value in (port["name"], port["containerPort"])
        }
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_the_images_are_those_that_the_steps_name(objects, pods):
    ours = [
        container["image"].rpartition("/")[2]
        for pod in pods.values()
        for container in pod["spec"]["containers"]
        if "tokiwa-python-" in container["image"]
    ]
    known = {images.image(kind) for kind in ("base", "train", "serve", "mlflow")}
    assert set(ours) <= known
    assert images.SERVE in ours


# --- narrow


def test_the_namespace_is_restricted(objects):
    (namespace,) = of_kind(objects, "Namespace")
    for mode in ("enforce", "audit", "warn"):
        assert namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"


def test_every_pod_is_as_the_restricted_standard_asks(pods):
    for name, pod in pods.items():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True and context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for volume in spec["volumes"]:
            assert len(set(volume) & ALLOWED_VOLUMES) == 1, (name, volume)
        for container in spec["containers"] + spec.get("initContainers", []):
            narrow = container["securityContext"]
            assert narrow["allowPrivilegeEscalation"] is False, name
            assert narrow["capabilities"] == {"drop": ["ALL"]}, name
            # Beyond the standard.
            assert narrow["readOnlyRootFilesystem"] is True, name
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_no_pod_but_a_step_may_ask_the_kubernetes_api(objects, pods):
    for name, pod in pods.items():
        assert pod["spec"]["automountServiceAccountToken"] is False, name
    asking = [
        account["metadata"]["name"]
        for account in of_kind(objects, "ServiceAccount")
        if account["automountServiceAccountToken"]
    ]
    assert asking == ["tokiwa-steps"]


def test_no_role_asks_for_more_than_it_names(objects):
    for role in of_kind(objects, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert not {"secrets", "configmaps"} & set(rule["resources"]) or rule["resourceNames"]
    bound = {
        subject["name"]
        for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding")
        for subject in binding["subjects"]
    }
    assert bound == {"tokiwa-steps"}


def test_every_image_has_a_tag_of_its_own(pods):
    for name, pod in pods.items():
        for container in pod["spec"]["containers"]:
            tag = container["image"].rpartition("/")[2].partition(":")[2]
            assert tag and tag != "latest", (name, container["image"])


def test_every_container_says_what_it_needs_and_what_it_may_take(pods):
    for name, pod in pods.items():
        for container in pod["spec"]["containers"]:
            for side in ("requests", "limits"):
                given = container["resources"][side]
                assert {"cpu", "memory", "ephemeral-storage"} <= set(given), (name, side)
        for volume in pod["spec"]["volumes"]:
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"], name


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_no_secret_lies_in_an_overlay_of_people(objects_of, overlay):
    assert names(objects_of(overlay), "Secret") == set()


# --- the network


def policies_for(objects: list[Object], labels: dict[str, str], way: str) -> list[Object]:
    """Return the rules of a direction, ``ingress`` or ``egress``, that hold for a pod."""
    return [
        rule
        for policy in of_kind(objects, "NetworkPolicy")
        if selected(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get(way, [])
    ]


def test_nothing_may_talk_that_is_not_named(objects):
    (deny,) = [each for each in of_kind(objects, "NetworkPolicy") if "deny" in str(each)]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_every_pod_may_talk_to_somebody(objects, pods):
    for name, pod in pods.items():
        labels = pod["metadata"]["labels"]
        named = [
            policy["metadata"]["name"]
            for policy in of_kind(objects, "NetworkPolicy")
            if policy["spec"]["podSelector"] and selected(policy["spec"]["podSelector"], labels)
        ]
        assert named, name


def test_what_one_pod_may_send_the_other_lets_in(objects, pods):
    step = {"metadata": {"labels": {"pipelines.kubeflow.org/v2_component": "true"}}}
    pairs = 0
    for sender, one in (pods | {"step": step}).items():
        for name, other in pods.items():
            mine, theirs = one["metadata"]["labels"], other["metadata"]["labels"]
            sent = open_ports(policies_for(objects, mine, "egress"), "to", theirs)
            let_in = open_ports(policies_for(objects, theirs, "ingress"), "from", mine)
            served = {
                port["containerPort"]
                for container in other["spec"]["containers"]
                for port in container.get("ports", [])
            }
            assert sent & served == let_in & served or not served, (sender, name)
            pairs += bool(sent & served)
    assert pairs >= 2


def test_a_step_reaches_the_figures_of_a_rollout(objects):
    step = {"pipelines.kubeflow.org/v2_component": "true"}
    ports = [
        rule["ports"]
        for rule in policies_for(objects, step, "egress")
        for peer in rule["to"]
        if "tokiwa.dev/monitoring" in str(peer.get("namespaceSelector"))
    ]
    assert ports == [[{"protocol": "TCP", "port": 9090}]], "deploy.kserve.prometheus"


def open_ports(rules: list[Object], side: str, labels: dict[str, str]) -> set[int]:
    """Return the ports that rules open towards a pod of this namespace."""
    return {
        port["port"]
        for rule in rules
        for peer in rule.get(side, [])
        if "podSelector" in peer
        and "namespaceSelector" not in peer
        and selected(peer["podSelector"], labels)
        for port in rule.get("ports", [])
    }


@pytest.mark.parametrize("overlay", ["local", "staging", "production", "everything"])
def test_all_pods_are_in_the_mesh_or_none(objects_of, overlay):
    in_mesh = overlay == "everything"
    templates = [
        *(
            each["spec"]["template"]["metadata"]["labels"]
            for each in workloads(objects_of(overlay))
        ),
        *(each["spec"]["labels"] for each in of_kind(objects_of(overlay), "ServingRuntime")),
    ]
    assert len(templates) >= 4
    for labels in templates:
        assert labels["sidecar.istio.io/inject"] == ("true" if in_mesh else "false")
    mesh = [each for each in of_kind(objects_of(overlay), "NetworkPolicy") if "istiod" in str(each)]
    assert bool(mesh) == in_mesh


def workloads(objects: list[Object]) -> list[Object]:
    """Return what holds a template of pods at the same place."""
    jobs = [
        job["template"]
        for runtime in of_kind(objects, "TrainingRuntime")
        for job in runtime["spec"]["template"]["spec"]["replicatedJobs"]
    ]
    return [*of_kind(objects, "Deployment", "StatefulSet", "Job"), *jobs]


# --- serving and training


def test_a_budget_lets_a_node_be_drained(objects):
    least = {
        service["metadata"]["name"]: service["spec"]["predictor"]["minReplicas"]
        for service in of_kind(objects, "InferenceService")
    }
    for budget in of_kind(objects, "PodDisruptionBudget"):
        assert budget["spec"]["minAvailable"] < least[budget["metadata"]["name"]]


def test_serving_comes_before_training(objects):
    value = {each["metadata"]["name"]: each["value"] for each in of_kind(objects, "PriorityClass")}
    assert value["tokiwa-state"] > value["tokiwa-serving"] > value["tokiwa-training"]
    (training,) = [
        each for each in of_kind(objects, "PriorityClass") if "training" in each["metadata"]["name"]
    ]
    assert training["preemptionPolicy"] == "Never"


def test_a_step_counts_towards_the_quota_of_training(objects):
    quotas = {
        quota["metadata"]["name"]: quota["spec"]["scopeSelector"]["matchExpressions"]
        for quota in of_kind(objects, "ResourceQuota")
        if "scopeSelector" in quota["spec"]
    }

    def limiting(priority_class: str | None) -> list[str]:
        fits = {
            "In": lambda values: priority_class in values,
            "NotIn": lambda values: priority_class not in values,
        }
        return [
            name
            for name, (term,) in quotas.items()
            if term["scopeName"] == "PriorityClass" and fits[term["operator"]](term["values"])
        ]

    # KFP gives the pods of a run no priority class.
    assert limiting(None) == ["training"] and limiting("tokiwa-training") == ["training"]
    assert limiting("tokiwa-serving") == ["serving"] and limiting("tokiwa-state") == []


def test_a_server_may_write_where_its_project_is_and_nowhere_else():
    read = [ROOT / "manifests" / "overlays" / "local" / "s3.json", SECRETS_SCRIPT]
    for file in read:
        found = re.search(r'"name": "server".*?"actions": \[(.*?)\]', file.read_text(), re.S)
        assert found is not None
        assert found[1] == '"Read:tokiwa", "List:tokiwa", "Write:tokiwa/projects/*"', file


def test_all_servers_fit_into_the_quota(objects, pods):
    (quota,) = [
        each for each in of_kind(objects, "ResourceQuota") if each["metadata"]["name"] == "serving"
    ]
    for service in of_kind(objects, "InferenceService"):
        most = service["spec"]["predictor"]["maxReplicas"]
        pod = pods[f"InferenceService/{service['metadata']['name']}"]
        (container,) = pod["spec"]["containers"]
        asked = container["resources"]["requests"]["cpu"]
        assert most * float(asked) <= float(quota["spec"]["hard"]["requests.cpu"])
        assert most <= int(quota["spec"]["hard"]["pods"])
