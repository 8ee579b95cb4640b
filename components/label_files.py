"""JSON lines as annotation tools read and write them.

``lines`` is what doccano and Prodigy read: a text and what belongs to it in one flat
object. ``label-studio`` is a task with the champion's answer as a prediction, to be used with
``<Choices name="label" toName="text">`` or ``<Number name="label" toName="text">``.

What comes back is told by its form, whatever the tool: a line of doccano has ``label``, one
of Prodigy ``accept`` and ``answer``, one of Label Studio ``annotations``; a file may also be
one JSON list. The row's own id travels as ``row``, because tools give ids of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.errors import BadInput

Form = Literal["lines", "label-studio"]
MAX_SHOWN = 20
"""Problems of a file that are named."""


@dataclass(frozen=True)
class Asked:
    """A row that people are asked about.

    Attributes:
        row: its id in the source.
        window: that it is in.
        content: its text, or base64 of an image.
        kind: ``text`` or ``image``.
        answer: the champion's.
        confidence: of the champion, 0 to 1; None where it has none.
        bundle: digest of the champion.
    """

    row: str
    window: str
    content: str
    kind: str
    answer: str
    confidence: float | None
    bundle: str


@dataclass(frozen=True)
class Word:
    """What somebody said of a row."""

    row: str
    annotator: str
    label: str


def written(asked: Sequence[Asked], form: Form, numbers: bool) -> Iterator[str]:
    """Yield one line of JSON per row.

    Args:
        asked: the rows.
        form: for which tool.
        numbers: labels are numbers and no names.
    """
    for each in asked:
        about = {
            "row": each.row,
            "window": each.window,
            "answer": each.answer,
            "confidence": None if each.confidence is None else round(each.confidence, 4),
        }
        if form == "lines":
            line: dict[str, Any] = {each.kind: each.content, "label": [], **about}
        else:
            value = {"number": float(each.answer)} if numbers else {"choices": [each.answer]}
            guess = {
                "from_name": "label",
                "to_name": each.kind,
                "type": "number" if numbers else "choices",
                "value": value,
            }
            prediction: dict[str, Any] = {"model_version": each.bundle[:12], "result": [guess]}
            if each.confidence is not None:
                prediction["score"] = about["confidence"]
            line = {"data": {each.kind: each.content, **about}, "predictions": [prediction]}
        yield json.dumps(line, ensure_ascii=False)


def read(path: Path) -> tuple[list[Word], int]:
    """Read what an annotation tool wrote; return the words, and how many lines say nothing.

    Who annotated is told by the line, else by the name of the file, as doccano exports it.

    Raises:
        BadInput: it cannot be read, or a line is not what a tool writes; all are named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    words: list[Word] = []
    problems: list[str] = []
    silent = 0
    for place, line in _lines(text, problems):
        try:
            said = list(_words(line, path.stem))
        except ValueError as error:
            problems.append(f"{place}: {error}")
            continue
        words += said
        silent += not said
    if problems:
        shown = problems[:MAX_SHOWN]
        more = len(problems) - len(shown)
        listed = "\n".join(f"  {each}" for each in shown) + (f"\n  and {more} more" * bool(more))
        raise BadInput(f"{path} has lines that no annotation tool writes:\n{listed}")
    return words, silent


def _lines(text: str, problems: list[str]) -> Iterator[tuple[str, Any]]:
    if text.lstrip().startswith("["):
        try:
            for number, each in enumerate(json.loads(text), 1):
                yield f"item {number}", each
            return
        except (ValueError, RecursionError) as error:
            problems.append(f"the list is not JSON: {error}")
            return
    # Not splitlines(): a text may hold other ends of lines as they are, such as U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                problems.append(f"line {number}: is not JSON: {error}")


def _words(line: Any, default: str) -> Iterator[Word]:
    """Yield what is said in a line, nothing if it is not annotated; ``ValueError`` if unclear."""
    if not isinstance(line, dict):
        raise ValueError("is no JSON object")
    row = _row(line)
    if "annotations" in line:
        for annotation in _objects(line["annotations"], "annotations"):
            if not annotation.get("was_cancelled"):
                who = _name(annotation.get("completed_by"), default)
                yield from (Word(row, who, label) for label in _chosen(annotation))
        return
    who = default
    for key in ("annotator", "_annotator_id", "annotation_approver", "username", "user"):
        who = _name(line.get(key), who)
    if "accept" in line:
        labels = _labels(line["accept"] if line.get("answer") == "accept" else None)
    else:
        labels = _labels(line.get("label"))
    if len(labels) > 1:
        raise ValueError(f"has {len(labels)} labels, and a row takes one")
    yield from (Word(row, who, label) for label in labels)


def _row(line: dict[str, Any]) -> str:
    for place in (line, line.get("data"), line.get("meta"), line.get("metadata")):
        row = place.get("row") if isinstance(place, dict) else None
        if isinstance(row, str | int) and not isinstance(row, bool) and row != "":
            return str(row)
    raise ValueError("has no `row`, which says what it is about; export the rows again")


def _labels(said: Any) -> list[str]:
    """Return one label or several as texts; none of nothing, ``ValueError`` of what is no label."""
    several = said if isinstance(said, list) else [] if said in (None, "") else [said]
    for label in several:
        if not isinstance(label, str | int | float) or isinstance(label, bool) or label == "":
            raise ValueError(f"has the label {json.dumps(label)[:40]}: it takes a name or a number")
    return [str(label) for label in several]


def _objects(said: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(said, list) or not all(isinstance(each, dict) for each in said):
        raise ValueError(f"`{what}` is no list of objects")
    return said


def _name(who: Any, default: str) -> str:
    """Return who annotated, of what tools call so: a name, a number, or an object about it."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("username") or who.get("id")
    return default if who in (None, "") else str(who)


def _chosen(annotation: dict[str, Any]) -> list[str]:
    found = []
    for result in _objects(annotation.get("result", []), "result"):
        value = result.get("value")
        value = value if isinstance(value, dict) else {}
        if result.get("type") == "choices":
            found += _labels(value.get("choices"))
        elif result.get("type") in ("number", "rating"):
            found += _labels(value.get("number", value.get("rating")))
    if len(found) > 1:
        raise ValueError(f"has {len(found)} labels by one annotator, and a row takes one")
    return found
