"""Commands for the quality of rows: draft-schema, quarantine list | show | readmit, forget."""

from __future__ import annotations

from typing import Annotated

import typer

from components.errors import BadInput
from pipelines.commands.options import AsJson, Overrides, Project, Reason, Window, ready
from pipelines.commands.printing import out, print_json, print_table, quoted
from pipelines.progress import working
from pipelines.project_file import load

SHOWN_ROWS = 50
SHOWN_CHARACTERS = 60

Rows = Annotated[list[str], typer.Argument(help="Ids of rows, or (beginnings of) their keys.")]


def draft_schema(project: Project, window: Window = "latest", overrides: Overrides = None) -> None:
    """Draft the section `validate` of a project from the rows of a window."""
    from pipelines.draft_schema import drafted

    config = ready(project, overrides, window)
    with working("reading the rows"):
        text = drafted(config, window)
    print(text, end="")


def list_rows(
    project: Project,
    window: Annotated[str, typer.Option(help="Only those of one window.")] = "",
    code: Annotated[str, typer.Option(help="Only those with one reason code.")] = "",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """List the rows that runs left out, and why."""
    from pipelines.quarantining import listed

    config = load(project, overrides or ())
    rows = whole = listed(config)
    if window:
        rows = rows[rows["window"] == window]
    if code:
        rows = rows[[code in each.split(",") for each in rows["reasons"]]]
    lines = [
        {
            "key": row["key"],
            "window": row["window"],
            "id": row["id"],
            "reasons": row["reasons"],
            "state": row["state"],
        }
        for _, row in rows.iterrows()
    ]
    if as_json:
        print_json(lines)
        return
    if not lines and not whole.empty:
        codes = sorted({each for row in whole["reasons"] for each in row.split(",")})
        out.print(
            f"none of the {len(whole)} rows of {config.name} in quarantine is one of these; there "
            f"are windows {', '.join(sorted(set(whole['window'])))} and codes {', '.join(codes)}",
            markup=False,
            soft_wrap=True,
        )
        return
    if not lines:
        out.print(f"{config.name} has no rows in quarantine", markup=False)
    print_table(("key", "window", "id", "reasons", "state"), lines[:SHOWN_ROWS])
    if len(lines) > SHOWN_ROWS:
        out.print(f"and {len(lines) - SHOWN_ROWS} more; --json shows all", style="dim")
    if lines:
        typed = quoted(project)
        out.print(
            f"see one whole: tokiwa quarantine show {typed} KEY\n"
            "mend rows where they lie, or put one right: "
            f"tokiwa quarantine readmit {typed} KEY --set column=value --reason …",
            markup=False,
            soft_wrap=True,
        )


def show(
    project: Project, rows: Rows, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Show rows in quarantine whole, with what each reason means."""
    from components.validate.reasons import explained
    from pipelines.quarantining import found

    shown = [row.to_dict() for _, row in found(load(project, overrides or ()), rows).iterrows()]
    if as_json:
        print_json(shown)
        return
    for row in shown:
        for name, value in row.items():
            if name == "reasons":
                for code in value.split(","):
                    out.print(f"  {code}: {explained(code)}", markup=False, soft_wrap=True)
            else:
                # repr, so that marks and control characters are seen and do nothing.
                said = "–" if value is None else repr(value)
                out.print(f"{name}: {said[:2000]}", markup=False, soft_wrap=True)


def readmit(
    project: Project,
    rows: Rows,
    reason: Reason,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Put a value right: label=positive.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take rows in again, as they are or put right, from the next run on."""
    from pipelines.quarantining import readmit as readmit_rows

    pairs = [each.partition("=") for each in changes or ()]
    if any(not name or not sign for name, sign, _ in pairs):
        raise BadInput("write --set as column=value")
    values = {name: value for name, _, value in pairs}
    made = readmit_rows(load(project), rows, values, reason)
    if as_json:
        print_json([each.model_dump(mode="json") for each in made])
        return
    windows = ", ".join(sorted({each.window for each in made}))
    out.print(
        f"{len(made)} rows of window {windows} take part in the next run: "
        f"tokiwa run {quoted(project)}",
        markup=False,
        soft_wrap=True,
    )


def forget(
    project: Project,
    reason: Reason,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Id of a row. Repeatable.")] = None,
    groups: Annotated[
        list[str] | None, typer.Option("--group", help="Group, such as a customer. Repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Forget a person's rows: no later run reads them, and nothing kept holds them."""
    from pipelines.forgetting import forget as forget_rows
    from pipelines.forgetting import summary

    if bool(ids) == bool(groups):
        raise BadInput("name what to forget: --id or --group, one of the two")
    config = load(project, overrides or ())
    with working("looking for the rows", quiet=as_json):
        if ids:
            report = forget_rows(config, "id", ids, reason, dry_run=dry_run)
        else:
            report = forget_rows(config, "group", groups or [], reason, dry_run=dry_run)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    for line in summary(report):
        out.print(line, markup=False, soft_wrap=True)
