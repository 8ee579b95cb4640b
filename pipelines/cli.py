"""The command ``tokiwa``. Each command parses, calls one function, and shows the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from typing import Annotated

import typer

from components.errors import TokiwaError
from pipelines import runners
from pipelines.commands import (
    answering,
    drafting,
    keeping,
    labelling,
    looking,
    promoting,
    replaying,
    rolling,
    submitting,
    training,
)
from pipelines.console import err

app = typer.Typer(
    name="tokiwa",
    help="Keeps fine-tuned models fresh on Kubeflow Pipelines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "A project": (drafting.init, drafting.check, drafting.schema),
    "Keep it fresh": (
        training.run,
        training.monitor,
        replaying.replay,
        training.tune,
        training.evaluate,
        training.online,
        training.adopt,
    ),
    "See what happened": (looking.status, looking.history, looking.why),
    "Decide": (
        promoting.candidates,
        promoting.promote,
        promoting.sign,
        promoting.reject,
        rolling.rollout,
        rolling.rollback,
        promoting.freeze,
        promoting.thaw,
    ),
    "Keep data in order": (keeping.draft_schema, keeping.forget),
    "Answer": (answering.serve, answering.predict, rolling.score),
    "On Kubeflow": (submitting.compile, submitting.submit, submitting.apply, submitting.runs),
}
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)

label = typer.Typer(
    name="label",
    help="Have rows labelled by people, and take their labels in.",
    no_args_is_help=True,
)
label.command()(labelling.export)
label.command(name="import")(labelling.import_labels)
app.add_typer(label, rich_help_panel="Labels")

quarantine = typer.Typer(
    name="quarantine",
    help="See the rows that runs left out, and take them in again.",
    no_args_is_help=True,
)
quarantine.command(name="list")(keeping.list_rows)
quarantine.command()(keeping.show)
quarantine.command()(keeping.readmit)
app.add_typer(quarantine, rich_help_panel="Keep data in order")


_GOES_ON = "what had ended is kept: run it again, and it goes on from there"
_MAY_BE_DONE = "tokiwa history PROJECT says whether it was done before; if not, run it again"
_NOTHING_KEPT = "nothing was left half-written, run it again"
_KEPT = {
    **dict.fromkeys(("run", "monitor", "replay", "tune", "score", "online"), _GOES_ON),
    **dict.fromkeys(("promote", "rollback", "adopt"), _MAY_BE_DONE),
    "rollout": "a rollout that began goes on: tokiwa rollout PROJECT shows it, --stop ends it",
    "forget": "run it again: what it had begun to forget is forgotten to the end then",
    "submit": "a run that was started goes on at Kubeflow: tokiwa runs PROJECT",
    "serve": "run it again",
}
"""What remains of a command that was stopped, and how to go on."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tokiwa {version('tokiwa')}")
        raise typer.Exit


@app.callback()
def about(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Keeps fine-tuned models fresh on Kubeflow Pipelines."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 2 the user's mistakes, 1 the world's."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = next((word for word in words if not word.startswith("-")), "")
    # The server ends by itself, with what it was asked still answered.
    stopping = nullcontext() if command == "serve" else runners.interruptible()
    try:
        with stopping:
            app(args=words, standalone_mode=True)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except TokiwaError as error:
        err.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return error.exit_code
    except (runners.Interrupted, KeyboardInterrupt):
        print(f"stopped; {_KEPT.get(command, _NOTHING_KEPT)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def entry() -> None:
    """Entry point of the command."""
    sys.exit(main())
