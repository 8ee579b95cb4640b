"""The compiled graphs in outline, kept beside the tests so that a diff shows what changed.

After a change that is meant: ``python tests/pipelines/test_golden.py``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import runners
from pipelines.project_file import load

GOLDEN = Path(__file__).parent / "golden"
SEARCH = "finetune.search={space: {learning_rate: {choices: [0.0001, 0.001]}}, parallel: 2}"
CASES = {"sentiment": [], "sentiment-with-search": [SEARCH]}


def outline(path: Path) -> str:
    """Return the tasks of a compiled graph: what feeds them, when they run, what they get."""
    ir, platform = yaml.load_all(path.read_text(), yaml.CSafeLoader)
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors = ir["deploymentSpec"]["executors"]
    dags = {"root": ir["root"], **ir["components"]}
    shown: dict[str, Any] = {"parameters": sorted(ir["root"]["inputDefinitions"]["parameters"])}
    for name, component in dags.items():
        if "dag" in component:
            shown[name] = {
                task: described(content, ir["components"], executors, pods)
                for task, content in component["dag"]["tasks"].items()
            }
    return yaml.safe_dump(shown, sort_keys=True, width=100, default_flow_style=None)


def described(task: dict[str, Any], components: Any, executors: Any, pods: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if after := task.get("dependentTasks"):
        shown["after"] = after
    if policy := task.get("triggerPolicy"):
        when = policy.get("condition") or policy["strategy"]
        shown["when"] = when.replace("inputs.parameter_values", "").replace("pipelinechannel--", "")
    if "parameterIterator" in task:
        shown["for each of"] = task["parameterIterator"]["items"]["raw"]
    component = components[task["componentRef"]["name"]]
    if "executorLabel" not in component:
        return shown
    given = task.get("inputs", {})
    takes = {**given.get("parameters", {}), **given.get("artifacts", {})}
    if takes:
        shown["takes"] = {key: origin(value) for key, value in takes.items()}
    label = component["executorLabel"]
    container, pod = executors[label]["container"], pods[label]
    shown["cached"] = bool(task.get("cachingOptions", {}).get("enableCache"))
    shown["image"] = container["image"].partition(":")[0]
    sizes = container["resources"]
    shown["gets"] = f"{sizes['resourceCpuRequest']} cores, {sizes['resourceMemoryRequest']}"
    shown["retries"] = task.get("retryPolicy", {}).get("maxRetryCount", 0)
    shown["reads"] = sorted(
        {each["secretName"] for each in pod.get("secretAsEnv", [])}
        | {each["configMapName"] for each in pod.get("configMapAsEnv", [])}
    )
    made = component.get("outputDefinitions", {}).get("artifacts", {})
    if made:
        shown["makes"] = {
            key: each["artifactType"]["schemaTitle"].removeprefix("system.")
            for key, each in made.items()
        }
    return shown


def origin(value: dict[str, Any]) -> str:
    """Return where an input comes from, in one word."""
    for kind in ("componentInputParameter", "componentInputArtifact"):
        if kind in value:
            return str(value[kind]).removeprefix("pipelinechannel--")
    if "runtimeValue" in value:
        return f"'{value['runtimeValue']['constant']}'"
    for kind in ("taskOutputParameter", "taskOutputArtifact"):
        if kind in value:
            made = value[kind]
            key = made.get("outputParameterKey") or made.get("outputArtifactKey")
            return f"{made['producerTask']}.{key}"
    return next(iter(value))


def outlines(case: str, folder: Path) -> dict[str, str]:
    """Return the outline of each graph of a case by its file's name."""
    packages = runners.packages_of(load("sentiment", CASES[case]), folder)
    return {f"{case}-{graph}.yaml": outline(path) for graph, path in packages.items()}


@pytest.mark.parametrize("case", CASES)
def test_the_compiled_graphs_are_as_reviewed(case, tmp_path):
    for name, found in outlines(case, tmp_path).items():
        assert found == (GOLDEN / name).read_text(), (
            f"{name} differs; if that is meant: python {Path(__file__).relative_to(Path.cwd())}"
        )


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            for file, text in outlines(each, Path(scratch)).items():
                (GOLDEN / file).write_text(text)
