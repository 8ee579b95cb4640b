"""Project files: found, read and made a project, with every problem at once and its line."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import yaml
from pydantic import ValidationError

from components.errors import ConfigError
from components.finetune.config import CHAMPION
from components.sources import SOURCES
from components.sources.files import FilesConfig
from components.sources.requests import RequestsConfig
from components.tasks import TASKS
from components.trigger.core import TriggerConfig
from pipelines.project import ProjectConfig, closest

SHIPPED = Path(__file__).parent / "projects"
SUFFIXES = (".yaml", ".yml")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")
MAX_PLACES = 100_000
"""More keys and values make no project: a file's anchors can unfold to billions."""

Place = tuple[str | int, ...]
_KINDS: dict[str, Iterable[str]] = {"task": TASKS, "source": SOURCES}
_BOOL, _TEXT, _DATE = (f"tag:yaml.org,2002:{name}" for name in ("bool", "str", "timestamp"))


class _Loader(yaml.SafeLoader):
    """YAML in which ``on`` is a key, ``no`` a label and 2026-01-05 a text, as in YAML 1.2.

    PyYAML speaks YAML 1.1, where the first two are booleans and the last is a date.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _DATE)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = _TEXT
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), [*"tTfF"])


def shipped_projects() -> list[str]:
    """Return the names of the projects that come with Tokiwa."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find(project: str) -> Path:
    """Return the file of a shipped name or a path.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(project)
    if path.suffix not in SUFFIXES and any(each.lower() in TABLES for each in path.suffixes):
        typed = shlex.quote(project)
        raise ConfigError(
            f"{project} is a table and no project file; draft one from it: tokiwa init {typed}"
        )
    if path.suffix in SUFFIXES or len(path.parts) > 1:
        if not path.is_file():
            raise ConfigError(f"there is no project file {project}{_instead(path)}")
        return path
    shipped = SHIPPED / f"{project}.yaml"
    if project not in shipped_projects():
        names = shipped_projects()
        own = [f"{project}{each}" for each in SUFFIXES if Path(f"{project}{each}").is_file()]
        close = own or difflib.get_close_matches(project, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"shipped are: {', '.join(names)};"
        raise ConfigError(
            f"there is no project {project!r}; {hint} a file of your own is named by its path, "
            f"such as {project}.yaml"
        )
    return shipped


def _instead(path: Path) -> str:
    """Say which project files there are where one is missing."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent}"
    there = sorted(each.name for each in path.parent.iterdir() if each.suffix in SUFFIXES)
    close = difflib.get_close_matches(path.name, there, n=1)
    if close:
        return f"; did you mean {path.parent / close[0]}?"
    return f"; in its folder there are {', '.join(there[:10])}" if there else ""


def load(project: str, overrides: Sequence[str] = ()) -> ProjectConfig:
    """Read a project file.

    Paths in it are relative to the file's own folder.

    Args:
        project: a shipped name or a path.
        overrides: ``key.key=value``, each replacing one value of the file.

    Raises:
        ConfigError: every problem of the file and the overrides, each with its line.
    """
    path = find(project)
    problems: list[str] = []
    tree, lines = _parse(path, problems)
    origins = {place: f"line {line}" for place, line in lines.items()}
    for override in overrides:
        _apply(override, tree, origins, problems)
    config: ProjectConfig | None = None
    try:
        config = ProjectConfig.model_validate(tree)
    except ValidationError as error:
        found = error.errors()
        wrong_inside = {each["loc"][:-1] for each in found}
        problems += [
            problem
            for each in found
            # A list whose items are wrong is said to be too short besides.
            if not (each["type"] == "too_short" and each["loc"] in wrong_inside)
            for problem in _problems(each, origins)
        ]
    else:
        config = _trusting(_anchored(_timed(config), path.parent, origins, problems))
    if problems or config is None:
        raise ConfigError(_all_of(path, problems))
    return config


def load_policy(path: Path) -> TriggerConfig:
    """Read a policy: a YAML file with the keys of a project's section ``trigger``.

    Raises:
        ConfigError: every problem of the file, each with its line.
    """
    if not path.is_file():
        raise ConfigError(f"there is no policy file {path}")
    problems: list[str] = []
    tree, lines = _parse(path, problems)
    if set(tree) == {"trigger"}:
        raise ConfigError(f"{path}: a policy is the section trigger itself; leave out its name")
    section = ("trigger",)
    origins = {(*section, *place): f"line {line}" for place, line in lines.items()}
    try:
        policy = TriggerConfig.model_validate(tree)
    except ValidationError as error:
        problems += [
            _problem({**each, "loc": (*section, *each["loc"])}, origins) for each in error.errors()
        ]
    if problems:
        raise ConfigError(_all_of(path, problems))
    return policy


def _all_of(path: Path, problems: Sequence[str]) -> str:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return f"{path} has {count}:\n" + "\n".join(f"  {each}" for each in problems)


def _parse(path: Path, problems: list[str]) -> tuple[dict[str, Any], dict[Place, int]]:
    """Return the content of a YAML file, and the line of every key and value in it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    lines: dict[Place, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path} is empty, or no mapping of keys to values")
        lines[()] = node.start_mark.line + 1
        _locate(node, (), lines, problems)
        tree = loader.construct_document(node)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{path} is not YAML: line {line}: {error.reason}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply, or an anchor holds itself") from error
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or error
        raise ConfigError(f"{path} is not YAML: {where}{what}") from error
    return tree, lines


def _locate(node: yaml.Node, place: Place, lines: dict[Place, int], problems: list[str]) -> None:
    if len(lines) > MAX_PLACES:
        raise yaml.MarkedYAMLError(
            problem=f"it unfolds to more than {MAX_PLACES:,} values", problem_mark=node.start_mark
        )
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                problems.append(f"line {key.start_mark.line + 1}: {name} is given twice")
            seen.add(name)
            lines[(*place, name)] = key.start_mark.line + 1
            _locate(value, (*place, name), lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*place, index)] = value.start_mark.line + 1
            _locate(value, (*place, index), lines, problems)


def _apply(
    override: str, tree: dict[str, Any], origins: dict[Place, str], problems: list[str]
) -> None:
    origin = f"--set {override if len(override) <= 80 else override[:79] + '…'}"
    dotted, equals, text = override.partition("=")
    place: Place = tuple(dotted.strip().split("."))
    if not equals or not all(place):
        problems.append(f"{origin}: write it as key.key=value")
        return
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        problems.append(f"{origin}: the value is not YAML; quotes may be missing")
        return
    branch = tree
    for key in place[:-1]:
        inner = branch.get(str(key))
        if inner is not None and not isinstance(inner, dict):
            problems.append(f"{origin}: {key} is no section")
            return
        # A copy, because an alias in the file shares one mapping between several places.
        branch[str(key)] = branch = dict(inner or {})
    branch[str(place[-1])] = value
    for known in [each for each in origins if each[: len(place)] == place]:
        del origins[known]
    origins[place] = origin


def _problems(error: Any, origins: dict[Place, str]) -> list[str]:
    """Return a line about each problem in one of pydantic's findings."""
    if error["loc"]:
        return [_problem(error, origins)]
    # What concerns two sections has no place of its own, and begins with that of one.
    lines = error["msg"].removeprefix("Value error, ").split("\n")
    return [f"{_origin(tuple(line.split(' ', 1)[0].split('.')), origins)}{line}" for line in lines]


def _problem(error: Any, origins: dict[Place, str]) -> str:
    """Return one line about one of pydantic's findings."""
    # Of a key that is wrong, pydantic says so behind it.
    found: Place = tuple(each for each in error["loc"] if each != "[key]")
    # Below task and source, pydantic names the kind as if it were a key.
    by_kind = found[:1] in (("task",), ("source",)) and len(found) > 1
    place = found[:1] + found[2:] if by_kind else found
    origin = _origin(place, origins)
    name = ".".join(map(str, place))
    if error["type"] == "extra_forbidden":
        return f"{origin}{name}: unknown key; {closest(str(place[-1]), _keys_at(found[:-1]))}"
    if error["type"] == "union_tag_not_found":
        return f"{origin}{name}.kind: is missing; known are {', '.join(_KINDS[name])}"
    if error["type"] == "union_tag_invalid":
        kind = str(error["ctx"]["tag"])
        origin = _origin((*place, "kind"), origins)
        return (
            f"{origin}{name}.kind: unknown kind; {closest(kind, list(_KINDS[name]))} (got {kind!r})"
        )
    if error["type"] == "missing":
        return f"{origin}{name}: is missing"
    message = error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    message = message[:1].lower() + message[1:].replace("valid tuple", "list")
    message = message.replace("tuple", "list").replace("dictionary", "mapping")
    if error["type"] in ("model_type", "model_attributes_type"):
        message = f"should hold keys and values, such as {{{_keys_at(found)[0]}: …}}"
    if error["type"] == "string_type" and not isinstance(error["input"], (dict, list)):
        message += "; put it in quotes"
    shown = repr(error["input"])
    got = f" (got {shown})" if len(shown) < 60 else ""
    return f"{origin}{name}: {message}{got}"


def _origin(place: Place, origins: dict[Place, str]) -> str:
    """Return where a place, or the nearest known one around it, was written."""
    for length in range(len(place), -1, -1):
        if place[:length] in origins:
            return f"{origins[place[:length]]}: "
    return ""


def _keys_at(place: Place) -> list[str]:
    """Return the keys that a section may have."""
    section: Any = ProjectConfig
    for key in place:
        if isinstance(key, int):
            section, *_ = get_args(section)  # of a list, or of a tuple and an ellipsis
        elif get_origin(section) is dict:
            section = get_args(section)[1]
        elif isinstance(section, UnionType):  # by kind, which pydantic names as if it were a key
            kinds = get_args(section)
            section = next(each for each in kinds if each.model_fields["kind"].default == key)
        else:
            fields = section.model_fields.items()
            found = {field.alias or name: field.annotation for name, field in fields}
            section = found[key]
            if type(None) in get_args(section):  # for a section that may be left out
                section = get_args(section)[0]
    if isinstance(section, UnionType):
        section = get_args(section)[0]
    return [field.alias or name for name, field in section.model_fields.items()]


def _timed(config: ProjectConfig) -> ProjectConfig:
    """Read times without an offset by the clock of the windows, unless the source names its own."""
    if "timezone" in config.source.model_fields_set:
        return config
    source = config.source.model_copy(update={"timezone": config.resolve.timezone})
    return config.model_copy(update={"source": source})


def _trusting(config: ProjectConfig) -> ProjectConfig:
    """Let whoever serves trust the keys that deploy trusts, unless it names its own."""
    trusted = {"trusted_keys": config.deploy.trusted_keys}
    serve, score = config.serve, config.score
    return config.model_copy(
        update={
            "serve": serve if serve.trusted_keys else serve.model_copy(update=trusted),
            "score": score if score.trusted_keys else score.model_copy(update=trusted),
        }
    )


def _anchored(
    config: ProjectConfig, folder: Path, origins: dict[Place, str], problems: list[str]
) -> ProjectConfig:
    """Make the paths of a project file absolute; ``package:folder`` stays as it is."""

    def anchored(path: str, place: Place) -> str:
        if ":" in path:
            return path
        try:
            return str((folder / Path(path).expanduser()).resolve())
        except (ValueError, RuntimeError) as error:
            name = ".".join(map(str, place))
            problems.append(f"{_origin(place, origins)}{name}: is no path: {error} (got {path!r})")
            return path

    source, finetune, evaluate = config.source, config.finetune, config.evaluate
    places: dict[str, Any] = {}
    if isinstance(source, FilesConfig):
        files = [
            part.model_copy(
                update={"root": anchored(part.root, ("source", "files", number, "root"))}
            )
            if part.root
            else part
            for number, part in enumerate(source.files)
        ]
        places = {"files": files, "root": anchored(source.root, ("source", "root"))}
    elif isinstance(source, RequestsConfig):
        places = {"ledger": source.ledger or config.ledger}
    labels_of = source.labels_of or config.ledger
    bases = tuple(
        each.model_copy(update={"place": anchored(each.place, ("finetune", "base", number))})
        for number, each in enumerate(finetune.base)
    )
    teacher, synonyms = finetune.distill.teacher, finetune.augment.synonyms
    if teacher != CHAMPION:
        teacher = anchored(teacher, ("finetune", "distill", "teacher"))
    if synonyms:
        synonyms = anchored(synonyms, ("finetune", "augment", "synonyms"))
    distill = finetune.distill.model_copy(update={"teacher": teacher})
    augment = finetune.augment.model_copy(update={"synonyms": synonyms})
    changed = {"base": bases, "distill": distill, "augment": augment}
    if evaluate.holdout is not None:
        path = anchored(evaluate.holdout.path, ("evaluate", "holdout", "path"))
        holdout = evaluate.holdout.model_copy(update={"path": path})
        evaluate = evaluate.model_copy(update={"holdout": holdout})
    return config.model_copy(
        update={
            "source": source.model_copy(update={**places, "labels_of": labels_of}),
            "finetune": finetune.model_copy(update=changed),
            "evaluate": evaluate,
        }
    )
