"""Check the rows of a snapshot; keep the good ones, quarantine the others with reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from components.declared_columns import numbers_in
from components.quarantine import REASONS, UNREAD, Readmitted, keys_of
from components.settings import Section
from components.sources.rows import declared_metadata, fingerprint
from components.tasks import TaskConfig
from components.validate.checks import CHECKS, WINDOW_CHECKS
from components.validate.config import CheckName, ValidateConfig
from components.validate.sample import Finding, Mask, Sample
from components.validate.summary import ColumnSummary, summary_of

__all__ = ["ValidateConfig", "ValidateReport", "examples", "validate"]

ROWS = "rows.parquet"
UNREADABLE = "unreadable.parquet"
EXAMPLES = 5
"""Values, and rows, that a message names."""
EXAMPLE_CHARACTERS = 40


class Warned(Section):
    """Rows that are odd and were kept."""

    check: CheckName
    code: str
    rows: int
    ids: list[str]
    """Of the first few."""


class ValidateReport(Section):
    """What was kept and what was not: ``rows_in = rows + quarantined``.

    What the source could not read counts as a row, and is in quarantine.
    """

    schema_version: int = 2
    digest: str
    window: str
    rows_in: int
    rows: int
    quarantined: int
    reasons: dict[str, int]
    """Failed checks by reason code; a row may fail several."""
    readmitted: int = 0
    """Rows that a person took in again, and that are good now."""
    warnings: list[Warned] = Field(default=[])
    findings: list[Finding] = Field(default=[])
    """What is odd about the window as a whole; an error among them ends the run."""
    columns: list[ColumnSummary] = Field(default=[])
    """Of the good rows of the current window."""
    trainable: bool
    refusal: str
    """Why there is nothing to train on, without these words; empty when there is."""

    @property
    def headline(self) -> str:
        """The one thing to see."""
        if self.refusal:
            return f"nothing to train on: {self.refusal}"
        said = f"{self.rows:,} good rows, {self.quarantined} quarantined"
        codes = [each.code for each in self.warnings] + [each.code for each in self.findings]
        return f"{said}; look at {', '.join(codes)}" if codes else said

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
    *,
    window_end: str = "",
    horizon: str = "",
    served: Sequence[str] = (),
    readmitted: Mapping[str, Readmitted] | None = None,
    keep: Callable[[pd.DataFrame], None] = lambda rows: None,
) -> ValidateReport:
    """Split a snapshot into good rows and quarantined ones.

    Args:
        snapshot: folder with ``rows.parquet``, whose schema says what further columns are, and
            perhaps ``unreadable.parquet`` with what could not be read.
        window: name of the current window, which must suffice to train on.
        folder: gets ``rows.parquet`` with the good rows, numbers of further columns as such.
        quarantine: file that gets the others as they came, in Parquet, with a column ``reasons``.
        task: says which contents and labels are good.
        config: the section ``validate``.
        window_end: end of the current window, ISO 8601; empty if it has none.
        horizon: the present, if some row says that it is of later.
        served: different contents that the server was asked in the current window.
        readmitted: rows that people took in again, by key.
        keep: takes the quarantined rows, besides.
    """
    given = pd.read_parquet(snapshot / ROWS)
    frame, repaired, waived = _put_right(given, readmitted or {})
    metadata = declared_metadata(snapshot / ROWS)
    sample = Sample(frame, window, task, metadata, window_end, horizon, served)
    reasons, warnings = _judged(sample, config, waived)
    bad = reasons != ""
    kept = sample.where(~bad)
    good = kept.frame.copy()
    for name, column in metadata.items():
        if column.kind == "number":
            good[name] = numbers_in(good[name])
    folder.mkdir(parents=True, exist_ok=True)
    good.to_parquet(folder / ROWS, index=False)
    quarantine.parent.mkdir(parents=True, exist_ok=True)
    unreadable = _unreadable(snapshot / UNREADABLE)
    left_out = given[bad].assign(**{REASONS: reasons[bad]})
    if len(unreadable):
        left_out = pd.concat([left_out, unreadable], ignore_index=True)
    left_out.to_parquet(quarantine, index=False)
    keep(left_out)
    findings = _findings(kept, config)
    refusal = "; ".join(each.reason for each in findings if each.severity == "error")
    inside = (frame["window"] == window).to_numpy()
    if refusal and (bad & inside).any():
        refusal += f"; {_quarantined(frame[inside], reasons[inside], task)}"
    return ValidateReport(
        digest=fingerprint(good, list(good)),
        window=window,
        rows_in=len(frame) + len(unreadable),
        rows=len(good),
        quarantined=len(left_out),
        reasons=_counts(left_out[REASONS]),
        readmitted=int((repaired & ~bad).sum()),
        warnings=warnings,
        findings=findings,
        columns=summary_of(kept.current, metadata, task),
        trainable=not refusal,
        refusal=refusal,
    )


def _unreadable(path: Path) -> pd.DataFrame:
    """Return what a source could not read as rows of a quarantine, told by its place."""
    if not path.is_file():
        return pd.DataFrame()
    rows = pd.read_parquet(path).astype(object)
    place = [f"{table}#{row}" for table, row in zip(rows["table"], rows["row"], strict=True)]
    return rows[[REASONS, "window"]].assign(id=place, text=rows["raw"], source=UNREAD)


def _put_right(
    given: pd.DataFrame, readmitted: Mapping[str, Readmitted]
) -> tuple[pd.DataFrame, Mask, list[tuple[int, str]]]:
    """Return rows with what people put right, which they are, and what is waived by place."""
    frame, touched = given.copy(), np.zeros(len(given), dtype=bool)
    waived: list[tuple[int, str]] = []
    if not readmitted:
        return frame, touched, waived
    for place, key in enumerate(keys_of(given)):
        if key not in readmitted:
            continue
        touched[place] = True
        waived += [(place, code) for code in readmitted[key].waived]
        for name, value in readmitted[key].changes.items():
            if name in frame:
                frame.iat[place, frame.columns.get_loc(name)] = value
    return frame, touched, waived


def _judged(
    sample: Sample, config: ValidateConfig, waived: list[tuple[int, str]]
) -> tuple[pd.Series[str], list[Warned]]:
    """Return the reason codes of each row, joined by commas, and what is merely odd."""
    found: list[list[str]] = [[] for _ in range(len(sample.frame))]
    warnings = []
    for name, check in CHECKS.items():
        severity = config.severity_of(name)
        if severity == "off":
            continue
        for code, failed in check(sample, config).items():
            rows = failed.copy()
            rows[[place for place, each in waived if each == code]] = False
            if severity == "error":
                for row in np.flatnonzero(rows):
                    found[row].append(code)
            elif rows.any():
                ids = sample.frame["id"][rows].head(EXAMPLES).fillna("").astype(str).tolist()
                warnings.append(Warned(check=name, code=code, rows=int(rows.sum()), ids=ids))
    reasons = [",".join(sorted(codes)) for codes in found]
    return pd.Series(reasons, index=sample.frame.index, dtype=str), warnings


def _findings(kept: Sample, config: ValidateConfig) -> list[Finding]:
    """Return what is odd about the current window, as its good rows show it."""
    found = []
    for name, check in WINDOW_CHECKS.items():
        severity = config.severity_of(name)
        if severity != "off":
            found += [
                Finding(check=name, code=code, severity=severity, reason=reason)
                for code, reason in check(kept, config).items()
            ]
    return found


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
