"""What a run of ``score`` begins with, and what it may replace."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from components.errors import BadInput
from components.ledger import Entry
from components.settings import Section

PLAN = "plan.json"


class Plan(Section):
    """What a run began with; a run that carries on keeps to it."""

    schema_version: int = 1
    input_sha256: str
    column: str
    bundle: str
    version: str
    generation: int

    @property
    def metadata(self) -> dict[str, str]:
        """What the output says of itself, in its Parquet metadata."""
        return {
            "tokiwa.version": self.version,
            "tokiwa.generation": str(self.generation),
            "tokiwa.bundle": self.bundle,
            "tokiwa.input_sha256": self.input_sha256,
            "tokiwa.column": self.column,
        }


def require_writable(source: str, target: str) -> None:
    """Refuse an output that cannot be written, or that is the input itself.

    Args:
        source: a path or an address.
        target: likewise.

    Raises:
        BadInput: it is a folder, in no folder, or the input, be it through a link.
    """
    path, read = Path(target), Path(source)
    same = source == target or (path.exists() and read.exists() and path.samefile(read))
    if same:
        raise BadInput(f"the output {target} is the input itself; choose another output")
    if target.startswith("s3://"):
        return
    if path.is_dir() or not path.absolute().parent.is_dir():
        what = "is a folder" if path.is_dir() else "is in a folder that is not there"
        raise BadInput(f"the output {target} {what}")


def begun(parts: Path, input_file: Path, champion: Entry, column: str) -> tuple[Plan, bool]:
    """Return the plan of an unfinished run of the same input and column, or a new one.

    Args:
        parts: folder of unfinished work, which need not be there.
        input_file: what is to be answered.
        champion: who answers in a new run.
        column: which column.

    Returns:
        The plan, and whether it is that of an unfinished run.
    """
    with input_file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        plan = Plan.from_json((parts / PLAN).read_text())
        if (plan.input_sha256, plan.column) == (digest, column):
            return plan, True
    except (OSError, ValueError):
        pass
    plan = Plan(
        input_sha256=digest,
        column=column,
        bundle=champion.bundle,
        version=champion.version or champion.bundle[:12],
        generation=champion.number,
    )
    return plan, False


def begin(parts: Path, plan: Plan) -> None:
    """Make an empty folder for the parts of a run; what it held is deleted."""
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    whole(parts / PLAN, lambda path: path.write_text(plan.to_json()))


def require_no_loss(parts: Path, output_file: Path, plan: Plan, *, resumes: bool) -> bool:
    """Refuse to replace what is not this run's own work.

    Args:
        parts: folder of unfinished work.
        output_file: what is to be written.
        plan: of this run.
        resumes: whether the parts are of this plan.

    Returns:
        Whether the output is there already, of this plan.

    Raises:
        BadInput: the output, or unfinished work, is of another input, column or version.
    """
    held = [each.name for each in parts.iterdir()] if parts.is_dir() else []
    if not resumes and any(name != PLAN and not name.startswith(".") for name in held):
        raise BadInput(
            f"{parts} holds unfinished work on another input or column; finish that first, "
            "choose another output, or throw the work away with --force"
        )
    if not output_file.exists():
        return False
    if not _is_of(output_file, plan):
        raise BadInput(
            f"{output_file} is there already, and is not what version {plan.version} answers to "
            "this input; choose another output, or replace it with --force"
        )
    return not resumes


def _is_of(output_file: Path, plan: Plan) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = pq.read_schema(output_file).metadata or {}
    except (pa.ArrowException, OSError):
        return False
    # Not the generation: a champion that was rolled back to answers as it did.
    told = ("tokiwa.input_sha256", "tokiwa.column", "tokiwa.bundle")
    return all(about.get(name.encode()) == plan.metadata[name].encode() for name in told)


def whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let a file take its name only when it is written.

    Args:
        path: of the file.
        write: writes it, to the path that it is given.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
