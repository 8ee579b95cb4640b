"""Check the rows of a snapshot; keep the good ones, quarantine the others with reasons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from components.settings import Section
from components.sources.rows import COLUMNS, fingerprint
from components.split import content_digest
from components.tasks import TaskConfig

ROWS = "rows.parquet"


class ValidateConfig(Section):
    """Section ``validate``."""

    min_rows: int = Field(default=50, ge=10)
    """Fewer good rows in the current window are nothing to train on."""
    min_groups: int = Field(default=30, ge=10)
    """Fewer groups in the current window cannot be split three ways; a row without a
    declared group is one by itself."""
    min_rows_per_class: int = Field(default=5, ge=1)
    """A class with fewer rows in the current window counts as absent."""
    max_characters: int = Field(default=20_000, ge=1)
    """As long as the server accepts."""


class ValidateReport(Section):
    """What was kept and what was not: ``rows_in = rows + quarantined``."""

    schema_version: int = 1
    digest: str
    window: str
    rows_in: int
    rows: int
    quarantined: int
    reasons: dict[str, int]
    """Failed checks by reason code; a row may fail several."""
    trainable: bool
    refusal: str
    """Why there is nothing to train on; empty when there is."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        return self.refusal or f"{self.rows:,} good rows, {self.quarantined} quarantined"


def validate(
    snapshot: Path,
    window: str,
    folder: Path,
    quarantine: Path,
    task: TaskConfig,
    config: ValidateConfig,
) -> ValidateReport:
    """Split a snapshot into good rows and quarantined ones.

    Args:
        snapshot: folder with ``rows.parquet``.
        window: name of the current window, which must suffice to train on.
        folder: gets ``rows.parquet`` with the good rows.
        quarantine: file that gets the others, in Parquet, with a column ``reasons``.
        task: says which labels there are.
        config: the section ``validate``.
    """
    frame = pd.read_parquet(snapshot / ROWS)
    reasons = _reasons(frame, task, config)
    bad = reasons != ""
    good = frame[~bad].reset_index(drop=True)
    folder.mkdir(parents=True, exist_ok=True)
    good.to_parquet(folder / ROWS, index=False)
    quarantine.parent.mkdir(parents=True, exist_ok=True)
    frame[bad].assign(reasons=reasons[bad]).to_parquet(quarantine, index=False)
    refusal = _refusal(good[good["window"] == window], window, config)
    return ValidateReport(
        digest=fingerprint(good, (*COLUMNS, "window")),
        window=window,
        rows_in=len(frame),
        rows=len(good),
        quarantined=int(bad.sum()),
        reasons=reasons[bad].str.split(",").explode().value_counts().to_dict(),
        trainable=not refusal,
        refusal=refusal,
    )


def _reasons(frame: pd.DataFrame, task: TaskConfig, config: ValidateConfig) -> pd.Series[str]:
    """Return the reason codes of each row, joined by commas; empty for a good row."""
    found: dict[int, list[str]] = {}
    for code, rows in _schema_failures(frame, task, config).items():
        for row in rows:
            found.setdefault(row, []).append(code)
    content = pd.Series([content_digest(text or "") for text in frame["text"]], index=frame.index)
    known = frame["label"].where(frame["label"].isin(task.labels))
    labels_per_text = known.groupby(content).transform("nunique")
    for row in frame.index[(labels_per_text > 1) & frame["text"].notna()]:
        found.setdefault(row, []).append("conflicting-labels")
    return pd.Series(
        [",".join(sorted(found.get(row, []))) for row in frame.index], index=frame.index, dtype=str
    )


def _schema_failures(
    frame: pd.DataFrame, task: TaskConfig, config: ValidateConfig
) -> dict[str, list[int]]:
    """Return the rows that fail each check of the schema, by reason code."""
    import pandera.pandas as pa

    def check(code: str, passes: Callable[[Any], Any]) -> pa.Check:
        return pa.Check(passes, error=code, ignore_na=True)

    schema = pa.DataFrameSchema(
        {
            "id": pa.Column(str, check("duplicate-id", lambda ids: ~ids.duplicated(keep=False))),
            "text": pa.Column(
                str,
                [
                    check("empty-text", lambda texts: texts.str.strip() != ""),
                    check("text-too-long", lambda texts: texts.str.len() <= config.max_characters),
                    check("no-letter-or-digit", lambda texts: texts.str.contains(r"\w")),
                ],
                nullable=False,
            ),
            "label": pa.Column(
                str, check("unknown-label", lambda labels: labels.isin(task.labels)), nullable=False
            ),
        }
    )
    if frame.empty:
        return {}
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        codes = cases["check"].where(
            cases["check"] != "not_nullable", "missing-" + cases["column"].astype(str)
        )
        rows = cases["index"].dropna().astype(int)
        return {str(code): sorted(set(part)) for code, part in rows.groupby(codes.loc[rows.index])}
    return {}


def _refusal(current: pd.DataFrame, window: str, config: ValidateConfig) -> str:
    if len(current) == 0:
        return f"nothing to train on: window {window} has no usable rows"
    if len(current) < config.min_rows:
        return (
            f"nothing to train on: window {window} has {len(current)} usable rows, "
            f"validate.min_rows asks for {config.min_rows}"
        )
    counts = current["label"].value_counts()
    present = counts[counts >= config.min_rows_per_class]
    if len(present) < 2:
        return (
            f"nothing to train on: window {window} has a single class "
            f"({', '.join(f'{label}: {count}' for label, count in counts.items())})"
        )
    groups = current["group"].nunique()
    if groups < config.min_groups:
        return (
            f"nothing to train on: the rows of window {window} form {groups} groups, "
            f"validate.min_groups asks for {config.min_groups}"
        )
    return ""
