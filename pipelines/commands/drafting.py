"""Commands for project files: init, check, schema."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from components.errors import BadInput
from pipelines.commands.options import AsJson, Overrides, Project, ready
from pipelines.commands.printing import out, print_json, print_table
from pipelines.project import SUFFIXES, ProjectConfig, load


def init(
    data: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines or Parquet.")],
    output: Annotated[Path | None, typer.Option("--out", help="The project file.")] = None,
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    text: Annotated[str | None, typer.Option(help="Column of texts, instead of a guess.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of labels, instead of a guess.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Column that names each row.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of what must not be torn apart.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of when rows happened, ISO 8601.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between columns; told from the first rows by default.")
    ] = None,
) -> None:
    """Draft a commented project file from the columns of a table."""
    from pipelines.draft import draft

    if not data.is_file():
        raise BadInput(f"there is no file {data}")
    path = output or Path(f"{data.name.split('.')[0] or 'project'}.yaml")
    if path.suffix not in SUFFIXES:
        raise BadInput(f"a project file ends in .yaml, unlike {path}")
    if not path.parent.is_dir():
        raise BadInput(f"there is no folder {path.parent}")
    if path.exists() and not force:
        raise BadInput(f"{path} exists already; --force overwrites it")
    given = {"text": text, "label": label, "id": id_, "group": group, "time": time}
    named = {role: column for role, column in given.items() if column}
    content, columns, others = draft(data, path, named, separator or "")
    path.write_text(content, encoding="utf-8")
    load(str(path))
    roles = {"text": columns.text, "label": columns.label, "id": columns.id}
    roles |= {"group": columns.group, "time": columns.time}
    found = ", ".join(f"{role} is {column!r}" for role, column in roles.items() if column)
    out.print(f"wrote {path}: {found}", markup=False, soft_wrap=True)
    for role, candidates in others.items():
        could = f"{role} could also be: {', '.join(candidates)}; choose with --{role}"
        out.print(could, markup=False, soft_wrap=True)
    typed = shlex.quote(str(path))
    out.print(f"next: tokiwa run {typed}, then tokiwa serve {typed}", markup=False, soft_wrap=True)


def check(project: Project, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a project file, its data and its base model; run nothing."""
    from pipelines.history import labels_of

    config = ready(project, overrides)
    rows, warnings = labels_of(config)
    for warning in warnings:
        Console(stderr=True, highlight=False, emoji=False).print(
            f"warning: {warning}", style="yellow", markup=False, soft_wrap=True
        )
    if as_json:
        print_json(rows)
        return
    out.print(f"{config.name}: the file, the data and the base model are there")
    if not rows:
        out.print("no whole window has rows yet; see resolve.start and resolve.window_days")
    print_table(("window", "rows", "labelled", "unlabelled", "unknown", "labels"), rows)


def schema() -> None:
    """Print the JSON schema of project files, for editors to complete and check them."""
    print_json(ProjectConfig.model_json_schema(by_alias=True))
