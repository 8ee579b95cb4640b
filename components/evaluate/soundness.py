"""What a challenger must be before its answers count: data alone, and the same to everybody.

Test rows are rows that passed ``validate``. Production is asked other things too, so a
challenger is asked some contents at the edges of what there can be; and the same row must
get the same answer again, whatever else is in the batch.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from components.evaluate.examinee import Examinee
from components.mlmodel import LOADER

_ALONE = 8
"""Rows that are asked once more, each by itself."""
_TOLERANCE = 0.01
"""Answers may differ by so much of their range between batches, which round differently."""
_CODE = (".py", ".pyc", ".so", ".dll", ".dylib", ".sh")
_PICKLES = (".pkl", ".pickle", ".joblib")


def code_in(folder: Path) -> str:
    """Return what in a bundle could run as code, for people; empty if nothing can.

    A bundle is data. Neither this step nor the server would run any of it, but bundles go
    to MLflow, too, and from there to people who may.
    """
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in _CODE:
            return f"{name} is code"
        if _is_pickle(path):
            return f"{name} is pickle"
        if name == "MLmodel" and _loader(path) != LOADER:
            return f"{name} names a loader that is not Tokiwa's"
    return ""


def _is_pickle(path: Path) -> bool:
    """Tell of a pickle (PEP 307 and later), also in the archive that torch wraps it in."""
    if path.suffix.lower() in _PICKLES:
        return True
    if path.suffix == ".safetensors":  # begins with a number, which may look like anything
        return False
    with path.open("rb") as file:
        head = file.read(2)
    if len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return True
    if head != b"PK" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith(".pkl") for name in archive.namelist())


def _loader(path: Path) -> str:
    try:
        flavors = yaml.safe_load(path.read_text(encoding="utf-8"))["flavors"]
        (name,) = flavors
        own = flavors[name]
        return str(own["loader_module"]) if "code" not in own else ""
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return ""


def fault_of(examinee: Examinee, contents: list[str], answers: NDArray[np.float64]) -> str:
    """Return what is wrong with how a model answers, for people; empty if nothing is.

    Args:
        examinee: that is asked.
        contents: that it answered in batches.
        answers: what it said then ``[n, k]``.

    Raises:
        Exception: of whatever kind, where the model cannot answer.
    """
    edges = examinee.model.edge_contents()
    for content in edges:
        if not np.isfinite(examinee.answers([content])).all():
            return f"gives answers that are not finite numbers to {_shown(content)}"
    for place in np.linspace(0, len(contents) - 1, min(_ALONE, len(contents))).astype(int):
        alone = examinee.answers([contents[place]])[0]
        gap = np.abs(alone - answers[place]).max() / examinee.model.answer_range
        if not gap <= _TOLERANCE:
            return (
                f"answers the same row otherwise another time, or in other company, by {gap:.3f} "
                "of the range of answers"
            )
    return ""


def _shown(content: str) -> str:
    return repr(content) if len(content) < 40 else f"one of {len(content):,} characters"
