"""Is every value what its column is for? Held against a pandera schema of the project."""

from __future__ import annotations

from typing import Any

import numpy as np

from components.declared_columns import numbers_in
from components.tasks.columns import fields_of
from components.tasks.tabular_classification import TabularClassification
from components.tasks.task import Checks
from components.validate.config import ColumnRules, ValidateConfig
from components.validate.sample import Mask, Sample


def schema(sample: Sample, config: ValidateConfig) -> dict[str, Mask]:
    """Return the rows that fail the schema, by reason code."""
    import pandera.pandas as pa

    frame = sample.frame
    if frame.empty:
        return {}
    found = _of_records(sample, config)
    try:
        pandera_schema(sample, config).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        columns = cases["column"].astype(str).replace("text", sample.task.content)
        codes = cases["check"].where(cases["check"] != "not_nullable", "missing-" + columns)
        places = cases["index"].dropna().astype(int)
        for code, part in places.groupby(codes.loc[places.index]):
            found[str(code)] = np.isin(np.arange(len(frame)), part.to_numpy())
    return found


def _of_records(sample: Sample, config: ValidateConfig) -> dict[str, Mask]:
    """Return which rows fail the rules of a column inside of their records, by reason code."""
    task = sample.task
    if not isinstance(task, TabularClassification):
        return {}
    rows = sample.frame["text"].dropna()
    rows = rows[task.readable(rows)] if len(rows) else rows
    names = tuple(task.columns)
    found = {}
    for name, rules in config.columns.items():
        if name in names and name not in sample.metadata:
            values = rows.map(lambda row, name=name: fields_of(row, names)[name]).dropna()
            for code, good in _rules(name, rules).items():
                bad = values.index[~good(values).astype(bool)]
                found[code] = sample.frame.index.isin(bad)
    return found


def pandera_schema(sample: Sample, config: ValidateConfig) -> Any:
    """Return what task, source and section ``validate`` ask of rows, as a pandera schema."""
    import pandera.pandas as pa

    task, metadata = sample.task, sample.metadata

    def column(name: str, checks: Checks, nullable: bool = False) -> Any:
        called = task.content if name == "text" else name
        rules = config.columns.get(name)
        wanted = {**checks, **(_rules(called, rules) if rules else {})}
        return pa.Column(
            str,
            [pa.Check(good, error=code, ignore_na=True) for code, good in wanted.items()],
            nullable=nullable,
        )

    def further(name: str) -> Any:
        readable = {f"unreadable-{name}": lambda values: numbers_in(values).notna()}
        checks = readable if metadata[name].kind == "number" else {}
        return column(name, checks, nullable=not metadata[name].required)

    return pa.DataFrameSchema(
        {
            "id": column("id", {"duplicate-id": lambda ids: ~ids.duplicated(keep=False)}),
            "text": column("text", task.content_checks(config.max_characters)),
            "label": column("label", task.label_checks()),
            **{
                name: column(name, {}, nullable=True)
                for name in ("group", "time", "source")
                if name in config.columns
            },
            **{name: further(name) for name in metadata},
        }
    )


def _rules(name: str, rules: ColumnRules) -> Checks:
    """Return the rules of a column that concern single rows."""
    checks: Checks = {}
    if rules.min is not None or rules.max is not None:
        low = -np.inf if rules.min is None else rules.min
        high = np.inf if rules.max is None else rules.max
        checks[f"out-of-range-{name}"] = lambda values: numbers_in(values).between(low, high)
    if rules.allowed is not None:
        checks[f"not-allowed-{name}"] = lambda values: values.isin(rules.allowed)
    if rules.pattern is not None:
        checks[f"no-match-{name}"] = lambda values: values.str.fullmatch(rules.pattern)
    if rules.min_characters is not None:
        checks[f"too-short-{name}"] = lambda values: values.str.len() >= rules.min_characters
    if rules.max_characters is not None:
        checks[f"too-long-{name}"] = lambda values: values.str.len() <= rules.max_characters
    if rules.unique:
        checks[f"repeated-{name}"] = lambda values: ~values.duplicated(keep=False)
    return checks
