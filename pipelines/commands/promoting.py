"""Commands by which a person decides: candidates, promote, sign, reject, freeze, thaw."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands.options import AsJson, Overrides, Project, Reason, Version
from pipelines.commands.printing import out, print_json, print_table, to_the_second
from pipelines.progress import working
from pipelines.project_file import load


def candidates(project: Project, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """List the challengers that reached a verdict, and what became of each."""
    config = load(project, overrides or ())
    with working("reading the candidates", quiet=as_json):
        from pipelines.history import standings

        found = standings(config)
    rows = [
        {
            "version": each.candidate.version,
            "state": each.state,
            "run": each.candidate.run,
            "at": to_the_second(each.candidate.at),
            "detail": each.detail,
        }
        for each in found
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print(f"{config.name} has no candidates yet", markup=False)
    print_table(("version", "state", "run", "at", "detail"), rows)


def promote(
    project: Project,
    version: Version,
    reason: Reason,
    force: Annotated[
        bool, typer.Option("--force", help="Promote in spite of the gate's verdict.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Make a challenger champion, as a person decides."""
    config = load(project, overrides or ())
    with working(f"proving version {version} in the server's code", quiet=as_json):
        from pipelines.promotion import promote as promote_version

        report = promote_version(config, project, version, reason, force)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    out.print(f"version {version} is the champion, generation {report.number}")


def sign(
    project: Project, version: Version, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Sign a version with the private key of register.signing_key_env."""
    config = load(project, overrides or ())
    with working(f"signing version {version}", quiet=as_json):
        from pipelines.promotion import sign as sign_version

        digest, key = sign_version(config, version)
    if as_json:
        print_json({"version": version, "bundle": digest, "key": key})
        return
    out.print(f"version {version} is signed by {key}", markup=False)


def reject(
    project: Project,
    version: Version,
    reason: Reason,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Turn a challenger down that waits for approval."""
    config = load(project, overrides or ())
    with working(f"turning version {version} down", quiet=as_json):
        from pipelines.promotion import reject as reject_version

        said = reject_version(config, version, reason)
    if as_json:
        print_json(said.model_dump(mode="json"))
        return
    out.print(f"version {version} is turned down by {said.by}: {said.reason}", markup=False)


def freeze(
    project: Project,
    reason: Reason,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Stop all retrains and promotions of a project."""
    _set_frozen(project, reason, overrides, as_json, frozen=True)


def thaw(
    project: Project,
    reason: Reason,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Allow retrains and promotions again."""
    _set_frozen(project, reason, overrides, as_json, frozen=False)


def _set_frozen(
    project: str, reason: str, overrides: list[str] | None, as_json: bool, *, frozen: bool
) -> None:
    config = load(project, overrides or ())
    with working("writing it down", quiet=as_json):
        from pipelines.promotion import set_frozen

        held, is_new = set_frozen(config, reason, frozen=frozen)
    if as_json:
        print_json(held.model_dump(mode="json"))
        return
    already = "" if is_new else "already, and nothing was changed: "
    out.print(f"{config.name} is {already}{held.words}", markup=False, soft_wrap=True)
