"""What the commands take, under the same names and with the same help everywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from components.errors import BadInput, ConfigError
from pipelines.project import ProjectConfig
from pipelines.project_file import load

Project = Annotated[str, typer.Argument(help="A shipped name, or the path of a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: finetune.epochs=3. Repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show every line of the steps.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Do every step again.")]
Window = Annotated[
    str,
    typer.Option(help="First day of a window; latest: the last with rows; now: the last whole."),
]


def _said(reason: str) -> str:
    if not reason.strip():
        raise BadInput("--reason is empty; say in one sentence why, for those who read the history")
    return reason.strip()


Reason = Annotated[
    str, typer.Option(help="One sentence for those who read the history.", callback=_said)
]
Version = Annotated[str, typer.Argument(help="Of a challenger, see `tokiwa candidates`.")]


def ready(project: str, overrides: list[str] | None, window: str = "latest") -> ProjectConfig:
    """Load a project and make sure, before anything runs, that it can.

    Args:
        project: as the user names it.
        overrides: of keys of its file.
        window: that must be one of the project's.
    """
    from components.evaluate.trusted import trusted_rows
    from components.packages import locate
    from components.resolve.core import known

    config = load(project, overrides or ())
    if config.resolve.start is not None and not config.source.timed:
        raise ConfigError(
            f"{config.name}: resolve.start cuts rows into windows, but they carry no time; "
            "set source.columns.time, or `at` or `partition` of every file"
        )
    refuse_unknown(window, config)
    for root, requirement in config.source.roots:
        locate(root, requirement)
    known(config.bases)
    if config.evaluate.holdout is not None:
        trusted_rows(config.evaluate.holdout, config.task)
    return config


def refuse_unknown(window: str, config: ProjectConfig) -> None:
    """Raise ``UserError`` if a project has no such window."""
    from components.resolve.core import MOVING, known_windows, window_called

    if window not in MOVING:
        window_called(window, known_windows(config.resolve, datetime.now(UTC)), config.name)
