"""Both graphs compile, have every step, and cache what is pure; wrappers only wrap."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler
from kfp import components as kfp_components

import components
from pipelines import runners
from pipelines.project_file import load, shipped_projects

TOKIWA = Path(sysconfig.get_path("scripts")) / "tokiwa"
GRAPHS = ("training", "monitoring")
BODY = {"ingest", "validate", "prepare", "finetune", "evaluate", "register", "deploy", "decline"}
STEPS = {
    "training": {"resolve", *BODY, "notify"},
    "monitoring": {"resolve", "collect", "drift", "trigger", *BODY, "notify"},
}
SEARCH = {"search", "choose"}
PARTITIONS = {"summarize"}
WORKERS = (0, 1, 3)
UNCACHED = {"resolve", "trigger", "register", "deploy", "notify", "decline"}
ORDER = {
    "training": ["resolve", "ingest", "validate", "prepare", "finetune", "evaluate", "register"],
    "monitoring": ["resolve", "collect", "drift", "trigger", "ingest"],
}


@pytest.fixture(scope="module", params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=WORKERS, ids=lambda count: f"{count}-workers")
def workers(request: pytest.FixtureRequest) -> int:
    """Workers of a search; 0 is without one."""
    return int(request.param)


@pytest.fixture(scope="module")
def compiled(graph: str, workers: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The IR YAML of a graph."""
    return runners.compiled(graph, tmp_path_factory.mktemp("compiled"), workers)


@pytest.fixture(scope="module")
def ir(compiled: Path) -> dict[str, Any]:
    """The content of the IR YAML."""
    content: dict[str, Any] = yaml.safe_load(compiled.read_text())
    return content


def tasks_of(ir: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every task of a graph that runs a container, by the component that it runs."""
    dags = [
        ir["root"]["dag"],
        *(each["dag"] for each in ir["components"].values() if "dag" in each),
    ]
    for dag in dags:
        for task in dag["tasks"].values():
            name = task["componentRef"]["name"]
            if "executorLabel" in ir["components"][name]:
                yield name.removeprefix("comp-"), task


# --- the graphs


def test_a_graph_survives_writing_and_reading(compiled, graph, workers, tmp_path):
    loaded = kfp_components.load_component_from_file(str(compiled))
    assert loaded.pipeline_spec == runners.graph_of(graph, workers).pipeline_spec
    again = tmp_path / "again.yaml"
    compiler.Compiler().compile(loaded, str(again))
    assert list(yaml.safe_load_all(again.read_text())) == list(
        yaml.safe_load_all(compiled.read_text())
    )


def test_every_step_appears_once(ir, graph, workers):
    names = [name for name, _ in tasks_of(ir)]
    assert sorted(names) == sorted(STEPS[graph] | (SEARCH if workers else set()))


def test_only_workers_that_share_a_search_make_a_loop(ir, workers):
    loops = [
        task["parameterIterator"]["items"]["raw"]
        for component in ir["components"].values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if "parameterIterator" in task
    ]
    assert loops == (['["1", "2", "3"]'] if workers == 3 else [])


def test_partitions_of_a_window_are_read_in_a_loop_before_what_they_give_is_collected(tmp_path):
    path = runners.compiled("monitoring", tmp_path, partitions=3)
    content = yaml.safe_load(path.read_text())
    assert {name for name, _ in tasks_of(content)} == STEPS["monitoring"] | PARTITIONS
    [loop] = content["components"]["comp-summaries"]["dag"]["tasks"].values()
    assert loop["parameterIterator"]["items"]["raw"] == '["1", "2", "3"]'
    # kfp.local puts the number of the round in the place of what comes from a step.
    assert all("componentInputParameter" in each for each in loop["inputs"]["parameters"].values())
    by_name = dict(tasks_of(content))
    assert "summaries" in by_name["collect"]["dependentTasks"]
    given = by_name["summarize"]["inputs"]["parameters"]
    assert set(given) == {"live", "champion", "partition", "code", "settings"}
    assert by_name["summarize"]["cachingOptions"]["enableCache"]


def test_notify_is_the_exit_handler(ir):
    tasks = ir["root"]["dag"]["tasks"]
    assert set(tasks) == {"exit-handler-1", "notify"}
    assert tasks["notify"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert tasks["notify"]["dependentTasks"] == ["exit-handler-1"]
    nested = [name for name, task in tasks_of(ir) if "triggerPolicy" in task and name != "notify"]
    assert nested == []


def test_only_pure_functions_are_cached(ir, graph):
    cached = {name for name, task in tasks_of(ir) if task["cachingOptions"].get("enableCache")}
    assert STEPS[graph] - cached == UNCACHED & STEPS[graph]


def test_a_cached_step_sees_nothing_that_differs_from_run_to_run(ir):
    for name, task in tasks_of(ir):
        if name in UNCACHED:
            continue
        given = task["inputs"]["parameters"]
        assert not {"run", "job", "generation", "cause", "ledger"} & set(given), name
        assert "code" in given, f"{name} would be answered from before a change of its code"


def test_each_read_of_the_world_has_one_consumer_parameter(ir):
    """A promotion must not rerun what it does not concern."""
    concerned = {
        name
        for name, task in tasks_of(ir)
        if "champion" in task["inputs"]["parameters"] and name not in UNCACHED
    }
    assert concerned <= {"collect", "drift", "search", "finetune", "evaluate"}
    assert concerned >= {"finetune", "evaluate"}


def test_steps_follow_each_other_as_drawn(ir, graph, workers):
    """Follow inputs to their producers, through the conditions and the nested body."""
    upstream: dict[str, set[str]] = {}
    text = {name: yaml.safe_dump(task) for name, task in tasks_of(ir)}
    for name, task in text.items():
        upstream[name] = {
            other
            for other in text
            if f"producerTask: {other}\n" in task or f"pipelinechannel--{other}-" in task
        }
    order = ORDER[graph]
    for before, after in pairwise(order):
        linked = before in upstream[after] or (before, after) in {
            ("resolve", "ingest"),  # enters the body as a parameter
            ("trigger", "ingest"),  # a condition around the body
        }
        assert linked, f"{after} takes nothing from {before}"
    assert "evaluate" in upstream["register"] and "register" in upstream["deploy"]
    if workers:
        assert "prepare" in upstream["search"]
        assert "search" in upstream["choose"] and "choose" in upstream["finetune"]


def test_containers_install_nothing_at_start(ir):
    executors = ir["deploymentSpec"]["executors"].values()
    for executor in executors:
        container = executor["container"]
        assert "pip install" not in " ".join(container["command"])
        assert container["image"].startswith(("tokiwa-python-base:", "tokiwa-python-train:"))
        assert "env" not in container


def test_the_graph_that_tunes_promotes_nothing(tmp_path):
    for workers in WORKERS[1:]:
        content = yaml.safe_load(runners.compiled("tuning", tmp_path, workers).read_text())
        names = {name for name, _ in tasks_of(content)}
        assert names == {"resolve", "ingest", "validate", "decline", "prepare", *SEARCH}


@pytest.mark.parametrize("workers", WORKERS[1:], indirect=True, scope="module")
def test_a_run_finds_what_was_tuned_first(ir, workers, tmp_path):
    """What the cache looks at must be the same in both graphs."""
    tuning = yaml.safe_load(runners.compiled("tuning", tmp_path, workers).read_text())
    for name in ("ingest", "validate", "prepare", *SEARCH):
        mine, theirs = (
            next(task for found, task in tasks_of(each) if found == name) for each in (ir, tuning)
        )
        assert set(mine["inputs"]["parameters"]) == set(theirs["inputs"]["parameters"])


# --- compiled for a project


@pytest.mark.parametrize("name", shipped_projects())
def test_compiled_defaults_are_the_projects(name, tmp_path):
    override = "finetune.epochs=7"
    done = subprocess.run(
        [TOKIWA, "compile", name, "--out", tmp_path / "a" / "b", "--set", override],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "20"},
    )
    config = load(name, [override])
    graphs = (*GRAPHS, "scoring")
    files = [tmp_path / "a" / "b" / f"{name}-{graph}.yaml" for graph in graphs]
    assert done.stdout.splitlines() == [str(file) for file in files]
    for graph, file in zip(graphs, files, strict=True):
        content, _platform = yaml.safe_load_all(file.read_text())
        parameters = content["root"]["inputDefinitions"]["parameters"]
        own = config.arguments(parameters)
        defaults = {key: each.get("defaultValue") for key, each in parameters.items()}
        of_a_run: dict[str, str | None] = {
            "window": "now",
            "cause": "schedule",
            "run": "",
            "clock": "",
        }
        if graph == "monitoring":
            of_a_run["request"] = ""
        if graph == "scoring":
            of_a_run = {"input_address": None, "output_address": None}
        assert defaults == of_a_run | own
        assert graph == "scoring" or '"epochs":7' in own["finetune_config"]
        assert content["pipelineInfo"]["name"] == f"{name}-{graph}"


def test_no_credential_gets_into_a_compiled_graph(tmp_path):
    secrets = {
        "AWS_ACCESS_KEY_ID": "canary-access-key",
        "AWS_SECRET_ACCESS_KEY": "canary-secret-key",
        "AWS_SESSION_TOKEN": "canary-session",
        "AWS_ENDPOINT_URL_S3": "http://canary-endpoint",
        "MLFLOW_TRACKING_URI": "http://canary-user:canary-password@localhost:5000",
        "MLFLOW_TRACKING_TOKEN": "canary-mlflow",
        "HF_TOKEN": "canary-hub",
        "TOKIWA_STORE": "s3://canary-bucket/prefix",
        "TOKIWA_HOME": str(tmp_path / "canary-home"),
        "HOME": str(tmp_path / "canary-user"),
    }
    subprocess.run(
        [TOKIWA, "compile", "--out", tmp_path / "out"],
        check=True,
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | secrets | {"TOKIWA_IMAGE_TAG": "known-tag"},
    )
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == len((*GRAPHS, "scoring")) * len(shipped_projects())
    for file in files:
        text = file.read_text()
        assert "canary" not in text
        assert ":known-tag" in text, "the environment was read, or this test would say nothing"


# --- wrappers


WRAPPERS = sorted(Path(components.__file__).parent.glob("*/component.py"))
FORBIDDEN = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.While,
    ast.Try,
    ast.Match,
    ast.Compare,
    ast.BinOp,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.FunctionDef,
    ast.ClassDef,
    ast.Raise,
    ast.Assert,
)
MODULE_LEVEL = {"typing": {"NamedTuple"}, "kfp": {"dsl"}, "components": {"images"}}
SHARED = {
    "bundle",
    "candidates",
    "embeddings",
    "erasures",
    "freeze",
    "home",
    "ledger",
    "plan",
    "quarantine",
    "records",
    "request_log",
    "rollout",
    "sources",
    "step",
    "tasks",
}


def logic_in(source: str, name: str) -> list[str]:
    """Return what a wrapper does beyond parsing, calling its core, and handing over."""
    module = ast.parse(source)
    found = []
    _docstring, *statements = module.body
    *imports, function = statements
    for each in imports:
        named = {alias.name for alias in each.names} if isinstance(each, ast.ImportFrom) else {""}
        if not named <= MODULE_LEVEL.get(getattr(each, "module", ""), set()):
            found.append(f"at module level: {ast.unparse(each)}")
    if not isinstance(function, ast.FunctionDef) or function.name != name:
        return [*found, f"the last statement is not the function {name}"]
    if not all(
        "install_kfp_package=False" in ast.unparse(each) for each in function.decorator_list
    ):
        found.append("kfp would be installed at start")
    for node in (inner for statement in function.body for inner in ast.walk(statement)):
        if isinstance(node, FORBIDDEN):
            found.append(f"line {node.lineno}: {ast.unparse(node)[:60]}")
        if isinstance(node, ast.BoolOp) and ast.unparse(node) != "run or job":
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Import):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.ImportFrom):
            top, _, inside = (node.module or "").partition(".")
            own = inside.partition(".")[0] or {alias.name for alias in node.names}
            own = {own} if isinstance(own, str) else own
            if top == "components" and not own <= SHARED | {name}:
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
            if top != "components" and top not in sys.stdlib_module_names:
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
    works = {
        node.func.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "core"
        and node.func.attr[0].islower()
    }
    if f"from components.{name} import core" not in ast.unparse(function) or not works:
        found.append("its own core is not called")
    if f"step.running('{name}')" not in ast.unparse(function):
        found.append("it does not run under its own name")
    if "log.hand_over(result, " not in ast.unparse(function):
        found.append("it hands no report over")
    return found


def test_there_is_a_wrapper_for_each_step():
    assert {path.parent.name for path in WRAPPERS} == STEPS["training"] | STEPS[
        "monitoring"
    ] | SEARCH | PARTITIONS | {"score"}


@pytest.mark.parametrize("path", WRAPPERS, ids=lambda path: path.parent.name)
def test_a_wrapper_carries_no_logic(path):
    assert logic_in(path.read_text(), path.parent.name) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("result = core.ingest(", "result = None if code else core.ingest("),
        ("snapshot.metadata", "for _ in range(3):\n            pass\n        snapshot.metadata"),
        ("from components import home, step", "from components import home, registry, step"),
        ("from components.ingest import core", "from components.drift import core"),
        ("    from pathlib import Path", "    import pandas\n    from pathlib import Path"),
        ("from kfp import dsl", "import numpy\nfrom kfp import dsl"),
        ("rows=result.rows", "rows=result.rows + 1"),
        ("rows=result.rows", "rows=sum(n for n in [result.rows])"),
        ('step.running("ingest")', 'step.running("resolve")'),
        ("install_kfp_package=False", "install_kfp_package=True"),
    ],
)
def test_logic_in_a_wrapper_would_be_seen(old, new):
    source = Path(components.__file__).with_name("ingest").joinpath("component.py").read_text()
    assert source.count(old) == 1
    assert logic_in(source.replace(old, new), "ingest") != []


@pytest.mark.parametrize("path", WRAPPERS, ids=lambda path: path.parent.name)
def test_the_core_has_a_config_or_needs_none(path):
    """What the wrapper parses is the section of the step, so that a project can set it."""
    name = path.parent.name
    core = importlib.import_module(f"components.{name}.core")
    wrapper = path.read_text()
    assert ("config: str" in wrapper) == hasattr(core, f"{name.capitalize()}Config")


HEAVY = [
    *("accelerate", "boto3", "evidently", "kserve", "mlflow", "numpy", "onnxruntime", "pandas"),
    *("pandera", "pyarrow", "safetensors", "scipy", "sklearn", "torch", "transformers"),
]


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("pipelines.training", set()),
        ("pipelines.monitoring", set()),
        # The cores' configurations live beside their numeric code.
        ("pipelines.cli", {"numpy", "pandas", "pyarrow", "scipy"}),
    ],
)
def test_importing_loads_nothing_heavy(module, allowed):
    script = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) <= allowed
