"""Keep an exam, so that the same verdict can be reached again without any model.

::

    predictions.parquet    a row per row, with what every model said, and how long it took
    perturbed.parquet      whether answers stayed when contents were changed
    exam.json              what the columns mean, sizes, and why a challenger gave no answers
    exam.safetensors       embeddings and features of the test rows, to find slices with
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from components.decision_rule import DecisionRule
from components.evaluate.exam import Exam, Perturbed
from components.settings import canonical_json

PREDICTIONS, PERTURBED = "predictions.parquet", "perturbed.parquet"
FACTS, ARRAYS = "exam.json", "exam.safetensors"
_PLAIN = (
    "kind",
    "content",
    "metric",
    "size_bytes",
    "memory_bytes",
    "opponents",
    "broken",
    "left_out",
)


def write(exam: Exam, folder: Path) -> None:
    """Write an exam into a folder.

    In ``predictions.parquet``, ``answer_MODEL`` is the decision in the form of a row's label,
    ``abstained_MODEL`` whether the row is left to a person all the same, ``output_NAME`` an
    answer of the challenger and ``MODEL_output_NAME`` one of another model, ``error_MODEL``
    how wrong it is, and ``ms_MODEL`` the time of the row's ``batch`` by its rows.
    """
    from safetensors.numpy import save_file

    columns: dict[str, Any] = {"batch": exam.batch}
    for who, answers in exam.answers.items():
        columns[f"answer_{who}"] = [_as_label(said, exam) for said in exam.decided[who]]
        for name, values in zip(exam.labels, answers.T, strict=True):
            columns[f"{_prefix(who)}{name}"] = values
        if who in exam.abstained:
            columns[f"abstained_{who}"] = exam.abstained[who]
        columns[f"error_{who}"] = exam.errors[who]
        if who in exam.milliseconds:
            columns[f"ms_{who}"] = exam.milliseconds[who]
    folder.mkdir(parents=True, exist_ok=True)
    exam.rows.assign(**columns).to_parquet(folder / PREDICTIONS, index=False)
    kept = [
        pd.DataFrame({"perturbation": name, "group": each.groups, **each.kept})
        for name, each in exam.perturbed.items()
    ]
    if kept:
        pd.concat(kept, ignore_index=True).to_parquet(folder / PERTURBED, index=False)
    facts = {name: getattr(exam, name) for name in _PLAIN}
    facts |= {
        "labels": list(exam.labels),
        "models": list(exam.answers),
        "columns": list(exam.rows.columns),
        "perturbations": list(exam.perturbed),
        "features": list(exam.features),
        "rules": {who: rule.model_dump(mode="json") for who, rule in exam.rules.items()},
    }
    (folder / FACTS).write_text(canonical_json(facts), encoding="utf-8")
    arrays: dict[str, NDArray[Any]]
    arrays = {f"feature {place}": each for place, each in enumerate(exam.features.values())}
    if exam.vectors is not None:
        arrays["vectors"] = exam.vectors
    save_file(arrays, folder / ARRAYS)


def read(folder: Path) -> Exam:
    """Return the exam that was written into a folder."""
    from safetensors.numpy import load_file

    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    table, arrays = pd.read_parquet(folder / PREDICTIONS), load_file(folder / ARRAYS)
    labels, models = tuple(facts["labels"]), facts["models"]
    answers = {
        who: table[[f"{_prefix(who)}{name}" for name in labels]].to_numpy(np.float64)
        for who in models
    }
    place = {name: number for number, name in enumerate(labels)}
    targets: NDArray[Any]
    if facts["kind"] == "regression":
        targets = table["label"].astype(np.float64).to_numpy()
        decided: dict[str, NDArray[Any]] = {who: each[:, 0] for who, each in answers.items()}
    else:
        targets = table["label"].map(place).to_numpy(np.int64)
        decided = {
            who: table[f"answer_{who}"].map(place).fillna(-1).to_numpy(np.int64) for who in models
        }
    return Exam(
        **{name: facts[name] for name in _PLAIN},
        labels=labels,
        rows=table[facts["columns"]],
        targets=targets,
        answers=answers,
        decided=decided,
        errors={who: table[f"error_{who}"].to_numpy(np.float64) for who in models},
        milliseconds={
            who: table[f"ms_{who}"].to_numpy(np.float64) for who in models if f"ms_{who}" in table
        },
        batch=table["batch"].to_numpy(np.int64),
        abstained={
            who: table[f"abstained_{who}"].to_numpy(bool)
            for who in models
            if f"abstained_{who}" in table
        },
        rules={who: DecisionRule.model_validate(rule) for who, rule in facts["rules"].items()},
        perturbed=_perturbed(folder, facts["perturbations"], models),
        features={
            name: arrays[f"feature {number}"] for number, name in enumerate(facts["features"])
        },
        vectors=arrays.get("vectors"),
    )


def _prefix(model: str) -> str:
    return "output_" if model == "challenger" else f"{model}_output_"


def _as_label(said: Any, exam: Exam) -> str | None:
    if exam.kind == "regression":
        return None if np.isnan(said) else f"{said:g}"
    return exam.labels[said] if said >= 0 else None


def _perturbed(folder: Path, names: list[str], models: list[str]) -> dict[str, Perturbed]:
    if not names:
        return {}
    table = pd.read_parquet(folder / PERTURBED)
    parts = {name: table[table["perturbation"] == name] for name in names}
    return {
        name: Perturbed(
            part["group"].to_numpy(object),
            {who: part[who].to_numpy(bool) for who in models if who in part},
        )
        for name, part in parts.items()
    }
