"""Commands that have rows labelled by people: label export, label import."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from components.errors import BadInput
from pipelines import progress
from pipelines.commands.options import AsJson, Overrides, Project, Window, ready
from pipelines.commands.printing import out, print_json, print_table, quoted
from pipelines.project_file import load

SHOWN_CONFLICTS = 20


def export(
    project: Project,
    window: Window = "latest",
    rows: Annotated[int, typer.Option(min=1, help="How many rows at most.")] = 200,
    output: Annotated[Path | None, typer.Option("--out", help="The file of JSON lines.")] = None,
    form: Annotated[
        Literal["lines", "label-studio"],
        typer.Option(help="lines: for doccano, Prodigy and the like."),
    ] = "lines",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write the most telling rows of a window that have no label, for annotation tools."""
    from pipelines.labelling import export as export_rows

    config = ready(project, overrides, window)
    path = output or Path(f"{config.name}-{window}.jsonl")
    if not path.parent.is_dir():
        raise BadInput(f"there is no folder {path.parent}")
    with progress.working("choosing the most telling rows", quiet=as_json) as counted:
        done = export_rows(config, project, window, rows, path, form, counted)
    if as_json:
        print_json({"file": str(path), **asdict(done)})
        return
    out.print(
        f"wrote {path}: the {done.rows} most telling of {done.unlabelled} rows without a label "
        f"in window {done.window}\nnext: label them, then "
        f"tokiwa label import {quoted(project)} FILE",
        markup=False,
        soft_wrap=True,
    )


def import_labels(
    project: Project,
    files: Annotated[
        list[Path], typer.Argument(help="What annotation tools wrote; one each, or all in one.")
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Take labels in, and say where annotators disagree."""
    from pipelines.labelling import summary, take_in

    config = load(project, overrides or ())
    with progress.working("reading the labels", quiet=as_json):
        report = take_in(config, files)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    for line in summary(report):
        out.print(line, markup=False, soft_wrap=True)
    agreed = [
        {
            "annotators": f"{each.first}, {each.second}",
            "rows": each.rows,
            "agreed": f"{each.agreed:.0%}",
            "Cohen's kappa": "–" if each.kappa is None else f"{each.kappa:.2f}",
        }
        for each in report.agreements
    ]
    print_table(("annotators", "rows", "agreed", "Cohen's kappa"), agreed)
    conflicts = [*report.conflicts, *report.against_source]
    print_table(
        ("row", "said"),
        [
            {
                "row": each.row,
                "said": ", ".join(f"{who}: {what}" for who, what in each.said.items()),
            }
            for each in conflicts[:SHOWN_CONFLICTS]
        ],
    )
    if len(conflicts) > SHOWN_CONFLICTS:
        out.print(f"and {len(conflicts) - SHOWN_CONFLICTS} more; --json shows all", style="dim")
