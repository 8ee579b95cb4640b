"""Commands that let the champion answer: serve, predict."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from components.errors import BadInput
from pipelines.commands.options import AsJson, Overrides, Project
from pipelines.commands.printing import print_json, print_table
from pipelines.progress import working
from pipelines.project_file import load


def serve(
    project: Project,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    poll_s: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 1.0,
    overrides: Overrides = None,
) -> None:
    """Serve the champion over HTTP; a new champion is picked up without a restart."""
    from components import home
    from components.serve import serve as serve_until_stopped

    config = load(project, overrides or ())
    serve_until_stopped(
        home.store_url(),
        config.ledger,
        config.name,
        host,
        port,
        poll_s,
        config.serve,
        alias_of=config.name if config.deploy.mirror_alias else "",
    )


def predict(
    project: Project,
    contents: Annotated[
        list[str] | None,
        typer.Argument(help="Texts or image files; without any, lines of standard input."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Answer texts or images with the champion."""
    config = load(project, overrides or ())
    asked = contents or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not asked:
        raise BadInput(f"there is no {config.task.content} to answer; name some or pipe lines in")
    with working("loading the champion", quiet=as_json):
        from pipelines.history import champion_of, predictions_of

        model, entry = champion_of(config, project)
        rows = predictions_of(model, asked)
    if as_json:
        print_json({"version": entry.version, "generation": entry.number, "predictions": rows})
        return
    print_table([*(name for name in rows[0] if name != model.content), model.content], rows)
