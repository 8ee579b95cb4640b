"""What a project hands to the graphs, the shipped ones, and the schema of their files."""

from __future__ import annotations

import copy
import json
import re
import shlex
from typing import Any

import pytest
import typer
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.errors import ConfigError
from components.plan import Bases
from components.settings import Section
from pipelines.cli import app
from pipelines.project import ProjectConfig
from pipelines.project_file import SHIPPED, load, shipped_projects
from tests.project_files import SOUND

# --- what a project hands to the graphs


def test_sections_travel_as_json_and_come_back(project):
    config = load(project())
    names = [name.rstrip("_") for name in ProjectConfig.model_fields]
    given = config.arguments([*names, *(f"{name}_config" for name in names), "ledger", "bases"])
    assert given["ledger"] == "projects/demo"
    assert Bases.from_json(given["bases"]).models == config.finetune.base
    sections = {name: getattr(config, name) for name in ProjectConfig.model_fields}
    sections = {name: each for name, each in sections.items() if isinstance(each, Section)}
    assert {"finetune", "validate_", "register_"} <= set(sections)
    for name, section in sections.items():
        json_text = given[f"{name.rstrip('_')}_config"]
        assert type(section).from_json(json_text) == section


def test_only_what_a_graph_asks_for_is_handed_over(project):
    given = load(project()).arguments(["project", "drift_config", "window"])
    assert given == {"project": "demo", "drift_config": load(project()).drift.to_json()}


# --- shipped projects


@pytest.mark.parametrize("name", shipped_projects())
def test_a_shipped_project_is_sound(name):
    config = load(name)
    assert config.name == name
    assert config.description, "a reader wants to know what it answers"


@pytest.mark.parametrize("name", shipped_projects())
def test_a_shipped_project_begins_with_its_launch_command(name):
    first = (SHIPPED / f"{name}.yaml").read_text().splitlines()[0]
    sign, tokiwa, command, *words = shlex.split(first)
    assert (sign, tokiwa) == ("#", "tokiwa")
    assert command in typer.main.get_group(app).commands
    assert words[0] == name


# --- schema


def breaches(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "") -> list[str]:
    """Return where a value breaks a JSON schema, for the words that pydantic uses."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]] | {
            key: each for key, each in schema.items() if key != "$ref"
        }
    if "oneOf" in schema:
        kinds_of = schema["discriminator"]["mapping"]
        if value["kind"] not in kinds_of:
            return [f"{at}: no such kind"]
        return breaches(value, {"$ref": kinds_of[value["kind"]]}, root, at)
    if "anyOf" in schema:
        tries = [breaches(value, each, root, at) for each in schema["anyOf"]]
        return [] if [] in tries else [f"{at}: none of the choices fits"]
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    kind = schema.get("type")
    if kind and (
        not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean")
    ):
        return [f"{at}: not {kind}"]
    found = []
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: not in {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{at}: not like {schema['pattern']}")
    for word, sound in (
        ("minimum", lambda limit: value >= limit),
        ("maximum", lambda limit: value <= limit),
        ("exclusiveMinimum", lambda limit: value > limit),
        ("exclusiveMaximum", lambda limit: value < limit),
        ("minItems", lambda limit: len(value) >= limit),
        ("maxItems", lambda limit: len(value) <= limit),
    ):
        if word in schema and not sound(schema[word]):
            found.append(f"{at}: {word} {schema[word]}")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        found += [f"{at}.{key}: missing" for key in schema.get("required", []) if key not in value]
        for key, each in value.items():
            if key in known:
                found += breaches(each, known[key], root, f"{at}.{key}")
            elif others is False:
                found.append(f"{at}.{key}: unknown")
            elif isinstance(others, dict):
                found += breaches(each, others, root, f"{at}.{key}")
    if isinstance(value, list):
        firsts = schema.get("prefixItems", [])
        for index, each in enumerate(value):
            item = firsts[index] if index < len(firsts) else schema.get("items", {})
            found += breaches(each, item, root, f"{at}.{index}")
    return found


def spoil(tree: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """Return a copy of a tree with one value exchanged."""
    spoilt = copy.deepcopy(tree)
    *way, last = [int(key) if key.isdigit() else key for key in dotted.split(".")]
    branch: Any = spoilt
    for key in way:
        branch = branch[key]
    branch[last] = value
    return spoilt


@pytest.mark.parametrize("name", shipped_projects())
def test_the_schema_accepts_shipped_files_and_refuses_spoilt_ones(name):
    schema = ProjectConfig.model_json_schema(by_alias=True)
    json.dumps(schema)
    tree = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    assert breaches(tree, schema, schema) == []
    for place, value in (
        ("name", "Two Words"),
        ("task.labels", ["one"]),
        ("task.kind", "poetry"),
        ("source.files", []),
        ("source.files.0.nmae", "x"),
        ("finetune.epochs", 0),
        ("finetune.epochs", "many"),
        ("validate_", {}),
    ):
        assert len(breaches(spoil(tree, place, value), schema, schema)) == 1, place


def test_the_schema_knows_every_key_that_a_file_may_have():
    schema = ProjectConfig.model_json_schema(by_alias=True)
    for section in schema["$defs"].values():
        assert section["additionalProperties"] is False
    assert {"validate", "register"} <= set(schema["properties"])


# --- anything at all


SHAPES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.dates()
    | st.sampled_from(["~x", "a:b", "~", "\0", ":", "2026-02-30", "null", "[", "(", "a" * 5000]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*ProjectConfig.model_fields, "kind", "files", "labels", "path", "on"])
            | st.text(max_size=6)
            | st.integers()
            | st.booleans()
            | st.none(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the ways to everything inside a tree."""
    keys = value if isinstance(value, dict) else range(len(value) if type(value) is list else 0)
    ways = [(*way, key) for key in keys]
    return ways + [below for each in ways for below in places(value[each[-1]], each)]


WHOLE = yaml.safe_load(SOUND) | {
    "trigger": {"on": ["drift"], "lease_hours": 1.0},
    "register": {"tags": {"team": "x"}},
    "drift": {"min_rows": 100},
}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_mutation_raises_anything_but_a_config_error(tmp_path, data):
    tree = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 3), "mutations")):
        *way, last = data.draw(st.sampled_from(places(tree)), "place")
        branch = tree
        for key in way:
            branch = branch[key]
        if isinstance(branch, dict) and data.draw(st.booleans(), "rename"):
            branch[data.draw(st.text(max_size=8) | st.sampled_from(["nmae", "seed"]))] = branch.pop(
                last
            )
        elif data.draw(st.booleans(), "drop"):
            del branch[last]
        else:
            branch[last] = data.draw(SHAPES, "value")
        if not places(tree):
            break
    path = tmp_path / "mutated.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    overrides = data.draw(
        st.lists(
            st.builds(
                "{}={}".format,
                st.sampled_from(["finetune.epochs", "task", "a.b", "source.files", "name.x", ""])
                | st.text(max_size=8),
                st.text(max_size=8),
            )
            | st.text(max_size=12),
            max_size=2,
        ),
        "overrides",
    )
    try:
        config = load(str(path), overrides)
    except ConfigError as refused:
        message = str(refused)
        assert message.startswith(str(path))
        assert len(message) < 20_000
    else:
        assert ProjectConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config
