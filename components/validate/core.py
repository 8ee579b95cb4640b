"""Check the rows of a snapshot; keep the good ones, quarantine the others with reasons."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pydantic import Field

from components.declared_columns import numbers_in
from components.settings import Section
from components.sources.rows import Metadata, declared_metadata, fingerprint
from components.split import content_digest
from components.tasks import TaskConfig
from components.tasks.task import Checks

ROWS = "rows.parquet"
EXAMPLES = 5
"""Values that a message names."""
EXAMPLE_CHARACTERS = 40


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
    """Of a text: as long as the server accepts."""


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
    """Why there is nothing to train on, without these words; empty when there is."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        if self.refusal:
            return f"nothing to train on: {self.refusal}"
        return f"{self.rows:,} good rows, {self.quarantined} quarantined"

    def refusal_with(self, quarantine: str) -> str:
        """Return the refusal and where the quarantined rows lie, if there are some."""
        if not self.refusal or not self.quarantined:
            return self.refusal
        return f"{self.refusal}; all quarantined rows: {quarantine} (Parquet)"


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
        snapshot: folder with ``rows.parquet``, whose schema says what further columns are.
        window: name of the current window, which must suffice to train on.
        folder: gets ``rows.parquet`` with the good rows, numbers of further columns as such.
        quarantine: file that gets the others, in Parquet, with a column ``reasons``.
        task: says which contents and labels are good.
        config: the section ``validate``.
    """
    frame = pd.read_parquet(snapshot / ROWS)
    metadata = declared_metadata(snapshot / ROWS)
    reasons = _reasons(frame, metadata, task, config)
    bad = reasons != ""
    good = frame[~bad].reset_index(drop=True)
    for name, column in metadata.items():
        if column.kind == "number":
            good[name] = numbers_in(good[name])
    folder.mkdir(parents=True, exist_ok=True)
    good.to_parquet(folder / ROWS, index=False)
    quarantine.parent.mkdir(parents=True, exist_ok=True)
    frame[bad].assign(reasons=reasons[bad]).to_parquet(quarantine, index=False)
    refusal = _refusal(good[good["window"] == window], window, task, config)
    inside = frame["window"] == window
    if refusal and (bad & inside).any():
        refusal += f"; {_quarantined(frame[inside], reasons[inside], task)}"
    return ValidateReport(
        digest=fingerprint(good, list(good)),
        window=window,
        rows_in=len(frame),
        rows=len(good),
        quarantined=int(bad.sum()),
        reasons=_counts(reasons[bad]),
        trainable=not refusal,
        refusal=refusal,
    )


def _reasons(
    frame: pd.DataFrame, metadata: Metadata, task: TaskConfig, config: ValidateConfig
) -> pd.Series[str]:
    """Return the reason codes of each row, joined by commas; empty for a good row."""
    found: dict[int, list[str]] = {}
    for code, rows in _schema_failures(frame, metadata, task, config).items():
        for row in rows:
            found.setdefault(row, []).append(code)
    if task.exclusive:
        contents = [content_digest(content or "") for content in frame["text"]]
        known = frame["label"].where(task.known(frame["label"]))
        labels = known.groupby(pd.Series(contents, index=frame.index)).transform("nunique")
        for row in frame.index[(labels > 1) & frame["text"].notna()]:
            found.setdefault(row, []).append("conflicting-labels")
    return pd.Series(
        [",".join(sorted(found.get(row, []))) for row in frame.index], index=frame.index, dtype=str
    )


def _schema_failures(
    frame: pd.DataFrame, metadata: Metadata, task: TaskConfig, config: ValidateConfig
) -> dict[str, list[int]]:
    """Return the rows that fail each check of the schema, by reason code."""
    import pandera.pandas as pa

    def column(checks: Checks, nullable: bool = False) -> pa.Column:
        wanted = [pa.Check(good, error=code, ignore_na=True) for code, good in checks.items()]
        return pa.Column(str, wanted, nullable=nullable)

    def further(name: str) -> pa.Column:
        readable = {f"unreadable-{name}": lambda values: numbers_in(values).notna()}
        checks = readable if metadata[name].kind == "number" else {}
        return column(checks, nullable=not metadata[name].required)

    schema = pa.DataFrameSchema(
        {
            "id": column({"duplicate-id": lambda ids: ~ids.duplicated(keep=False)}),
            "text": column(task.content_checks(config.max_characters)),
            "label": column(task.label_checks()),
            **{name: further(name) for name in metadata},
        }
    )
    if frame.empty:
        return {}
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        columns = cases["column"].astype(str).replace("text", task.content)
        codes = cases["check"].where(cases["check"] != "not_nullable", "missing-" + columns)
        rows = cases["index"].dropna().astype(int)
        return {str(code): sorted(set(part)) for code, part in rows.groupby(codes.loc[rows.index])}
    return {}


def _counts(reasons: pd.Series[str]) -> dict[str, int]:
    """Return how many rows failed each check, the commonest first."""
    return {
        str(code): int(count)
        for code, count in reasons.str.split(",").explode().value_counts().items()
    }


def _quarantined(rows: pd.DataFrame, reasons: pd.Series[str], task: TaskConfig) -> str:
    """Say how many rows of a window are bad, and why, with labels that are no good."""
    bad = reasons[reasons != ""]
    found = [f"{count:,} {code}" for code, count in _counts(bad).items()]
    said = f"{len(bad):,} of its {len(rows):,} rows are in quarantine: {', '.join(found)}"
    labels = rows["label"]
    wrong = labels[labels.notna() & ~task.known(labels)]
    if wrong.empty:
        return said
    said += f"; labels such as {examples(wrong)} are none of the task's"
    return f"{said}, which are {', '.join(task.label_names)}" if task.label_names else said


def examples(values: pd.Series[str]) -> str:
    """Return the commonest of some values, quoted and, if they are long, cut."""
    # Sorted by value before, so that equally common ones come in a fixed order.
    counts = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    named = ", ".join(
        repr(value if len(value) <= EXAMPLE_CHARACTERS else f"{value[: EXAMPLE_CHARACTERS - 1]}…")
        for value in counts.index[:EXAMPLES]
    )
    return f"{named}, …" if len(counts) > EXAMPLES else named


def _refusal(current: pd.DataFrame, window: str, task: TaskConfig, config: ValidateConfig) -> str:
    if len(current) == 0:
        return f"window {window} has no usable rows"
    if len(current) < config.min_rows:
        return (
            f"window {window} has {len(current)} usable rows, "
            f"validate.min_rows asks for {config.min_rows}"
        )
    if lacking := task.lacking(current["label"], config.min_rows_per_class):
        return f"window {window} {lacking}"
    groups = current["group"].nunique()
    if groups < config.min_groups:
        return (
            f"the rows of window {window} form {groups} groups, "
            f"validate.min_groups asks for {config.min_groups}"
        )
    return ""
