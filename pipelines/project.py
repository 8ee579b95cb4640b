"""A project: one model to keep fresh, described by one YAML file.

Each section of the file is the configuration of one step and travels to it as one JSON
string. All problems of a file are reported at once, each with its line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from components.collect.core import CollectConfig
from components.deploy.core import DeployConfig
from components.drift.core import DriftConfig
from components.errors import ConfigError
from components.evaluate.core import EvaluateConfig
from components.finetune.config import FinetuneConfig
from components.ingest.core import IngestConfig
from components.notify.core import NotifyConfig
from components.prepare.core import PrepareConfig
from components.register.core import RegisterConfig
from components.resolve.core import ResolveConfig
from components.settings import Section
from components.sources import SourceConfig
from components.tasks import TaskConfig
from components.trigger.core import TriggerConfig
from components.validate.core import ValidateConfig

SHIPPED = Path(__file__).parent / "projects"
Place = tuple[str | int, ...]


class ProjectConfig(Section):
    """A project file: what to learn, from which rows, and how each step does its work."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    """Names the ledger, the registered model and the served model."""
    description: str = ""
    task: TaskConfig
    source: SourceConfig
    resolve: ResolveConfig = ResolveConfig()
    ingest: IngestConfig = IngestConfig()
    validate_: ValidateConfig = Field(default=ValidateConfig(), alias="validate")
    prepare: PrepareConfig = PrepareConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    register_: RegisterConfig = Field(default=RegisterConfig(), alias="register")
    deploy: DeployConfig = DeployConfig()
    collect: CollectConfig = CollectConfig()
    drift: DriftConfig = DriftConfig()
    trigger: TriggerConfig = TriggerConfig()
    notify: NotifyConfig = NotifyConfig()

    @model_validator(mode="after")
    def _bins_are_labels(self) -> ProjectConfig:
        bins = self.source.label_bins
        if bins is not None and set(bins) != set(self.task.labels):
            raise ValueError(
                f"source.label_bins makes {', '.join(bins)}, "
                f"but task.labels has {', '.join(self.task.labels)}"
            )
        return self

    @property
    def ledger(self) -> str:
        """Prefix of the project's ledger in the store."""
        return f"projects/{self.name}"

    def arguments(self, parameters: Iterable[str]) -> dict[str, str]:
        """Return the arguments of a graph that come from the project.

        Args:
            parameters: names of the graph's parameters; only those are returned.
        """
        arguments = {
            "project": self.name,
            "task": self.task.to_json(),
            "source": self.source.to_json(),
            "base": self.finetune.base,
            "base_requirement": self.finetune.base_requirement,
            "ledger": self.ledger,
        }
        for name in type(self).model_fields:
            section = getattr(self, name)
            if isinstance(section, Section):
                arguments[f"{name.rstrip('_')}_config"] = section.to_json()
        return {name: arguments[name] for name in parameters if name in arguments}


def shipped_projects() -> list[str]:
    """Return the names of the projects that come with Tokiwa."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find(project: str) -> Path:
    """Return the file of a shipped name or a path.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(project)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise ConfigError(f"there is no project file {project}")
        return path
    shipped = SHIPPED / f"{project}.yaml"
    if not shipped.is_file():
        names = shipped_projects()
        close = difflib.get_close_matches(project, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"shipped are: {', '.join(names)};"
        raise ConfigError(
            f"there is no project {project!r}; {hint} a file of your own is named by its path, "
            f"such as {project}.yaml"
        )
    return shipped


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
        problems += [_problem(each, origins) for each in error.errors()]
    if problems or config is None:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise ConfigError(f"{path} has {count}:\n" + "\n".join(f"  {each}" for each in problems))
    return _anchored(config, path.parent)


def _parse(path: Path, problems: list[str]) -> tuple[dict[str, Any], dict[Place, int]]:
    """Return the content of a YAML file, and the line of every key and value in it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or error
        raise ConfigError(f"{path} is not YAML: {where}{what}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no project: it should be a mapping of sections")
    lines: dict[Place, int] = {}
    _locate(node, (), lines, problems)
    return tree, lines


def _locate(
    node: yaml.Node | None, place: Place, lines: dict[Place, int], problems: list[str]
) -> None:
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
    origin = f"--set {override}"
    dotted, equals, text = override.partition("=")
    place: Place = tuple(dotted.strip().split("."))
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        equals = ""
    if not equals or not all(place):
        problems.append(f"{origin}: write it as key.key=value")
        return
    branch = tree
    for key in place[:-1]:
        inner = branch.get(str(key))
        if inner is None:
            inner = branch[str(key)] = {}
        if not isinstance(inner, dict):
            problems.append(f"{origin}: {key} is no section")
            return
        branch = inner
    branch[str(place[-1])] = value
    for known in [each for each in origins if each[: len(place)] == place]:
        del origins[known]
    origins[place] = origin


def _problem(error: Any, origins: dict[Place, str]) -> str:
    """Return one line about one of pydantic's findings."""
    place: Place = tuple(error["loc"])
    origin = ""
    for length in range(len(place), 0, -1):
        if place[:length] in origins:
            origin = f"{origins[place[:length]]}: "
            break
    name = ".".join(map(str, place))
    if error["type"] == "extra_forbidden":
        known = _keys_at(place[:-1])
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        return f"{origin}{name}: unknown key; {hint}"
    if error["type"] == "missing":
        return f"{origin}{name}: is missing"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = repr(error["input"])
    got = f" (got {shown})" if place and len(shown) < 60 else ""
    return f"{origin}{name}{': ' if name else ''}{message}{got}"


def _keys_at(place: Place) -> list[str]:
    """Return the keys that a section may have."""
    section: Any = ProjectConfig
    for key in place:
        fields = getattr(section, "model_fields", {})
        found = {field.alias or name: field.annotation for name, field in fields.items()}
        section = found.get(str(key))
    fields = getattr(section, "model_fields", {})
    return [field.alias or name for name, field in fields.items()]


def _anchored(config: ProjectConfig, folder: Path) -> ProjectConfig:
    """Make the paths of a project file absolute; ``package:folder`` stays as it is."""

    def anchor(place: str) -> str:
        return place if ":" in place else str((folder / Path(place).expanduser()).resolve())

    return config.model_copy(
        update={
            "source": config.source.model_copy(update={"root": anchor(config.source.root)}),
            "finetune": config.finetune.model_copy(update={"base": anchor(config.finetune.base)}),
        }
    )
