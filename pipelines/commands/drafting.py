"""Commands for project files: init, check, schema."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from components.errors import BadInput
from pipelines import progress
from pipelines.commands.options import AsJson, Overrides, Project, ready
from pipelines.commands.printing import out, print_json, print_table, print_warning
from pipelines.project import ProjectConfig
from pipelines.project_file import SUFFIXES, TABLES, load


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
    time: Annotated[str | None, typer.Option(help="Column of when rows happened.")] = None,
    separator: Annotated[
        str | None, typer.Option(help="Between columns; told from the first rows by default.")
    ] = None,
    encoding: Annotated[str, typer.Option(help="What the file is written in.")] = "utf-8",
) -> None:
    """Draft a commented project file from the columns of a table."""
    from pipelines.draft import draft

    if data.is_dir():
        tables = sorted(each for each in data.iterdir() if {*each.suffixes} & {*TABLES})
        first = f", such as {tables[0]}" if tables else ""
        raise BadInput(f"{data} is a folder; name a table{first}")
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
    with progress.working(f"reading {data}"):
        drafted = draft(data, path, named, separator or "", encoding)
    path.write_text(drafted.text, encoding="utf-8")
    load(str(path))
    columns = drafted.columns
    roles = {"text": columns.text, "label": columns.label, "id": columns.id}
    roles |= {"group": columns.group, "time": columns.time}
    found = ", ".join(f"{role} is {column!r}" for role, column in roles.items() if column)
    if columns.record:
        found += f", learnt from {', '.join(columns.record)}"
    out.print(f"wrote {path}: {found}", markup=False, soft_wrap=True)
    for role, candidates in drafted.others.items():
        could = f"{role} could also be: {', '.join(candidates)}; choose with --{role}"
        out.print(could, markup=False, soft_wrap=True)
    for note in drafted.notes:
        out.print(note, markup=False, soft_wrap=True)
    typed = shlex.quote(str(path))
    out.print(
        f"next: tokiwa check {typed}, tokiwa run {typed}, then tokiwa serve {typed}",
        markup=False,
        soft_wrap=True,
    )


def check(project: Project, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a project file, its data and its base model; run nothing."""
    from components.validate.reasons import explained
    from pipelines.inspection import inspect

    config = ready(project, overrides)
    with progress.working("reading the rows", quiet=as_json):
        found = inspect(config)
    for warning in found.warnings:
        print_warning(warning)
    ahead = found.foresight
    if as_json:
        print_json(
            {
                "windows": found.windows,
                "run": ahead.model_dump(mode="json") if ahead else None,
            }
        )
        return
    out.print(f"{config.name}: the file, the data and the base model are there")
    if ahead is None:
        out.print("no whole window has rows yet; see resolve.start and resolve.window_days")
        return
    print_table(("window", "rows", "labelled", "unlabelled", "unknown", "labels"), found.windows)
    out.print(ahead.headline, markup=False, soft_wrap=True)
    for each in ahead.reasons:
        out.print(
            f"  {each.rows:,} {each.reason}: {each.meaning}\n"
            f"    such as {each.example}\n    {each.remedy}",
            markup=False,
            soft_wrap=True,
        )
    for code, rows in ahead.odd.items():
        odd = f"  {rows:,} {code}, which are kept: {explained(code)}"
        out.print(odd, markup=False, soft_wrap=True)
    if ahead.refusal:
        refusal = f"it would train nothing: {ahead.refusal}"
        out.print(refusal, style="yellow", markup=False, soft_wrap=True)


def schema() -> None:
    """Print the JSON schema of project files, for editors to complete and check them."""
    print_json(ProjectConfig.model_json_schema(by_alias=True))
