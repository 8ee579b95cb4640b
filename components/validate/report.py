"""The page of a validation: what was left out, what is odd, and what the columns hold."""

from __future__ import annotations

from components.page import Said, page, paragraph, section, table, verdict
from components.validate.core import ValidateReport
from components.validate.summary import ColumnSummary

_MOODS = {"error": "bad"}


def to_html(report: ValidateReport) -> str:
    """Return the report as a page: the worst first."""
    odd = bool(report.warnings or report.findings or report.quarantined)
    mood = "bad" if report.refusal else "open" if odd else "good"
    parts = [verdict(report.headline, mood)]
    if report.findings:
        lines = [
            (Said(each.severity, _MOODS.get(each.severity, "open")), each.code, each.reason)
            for each in report.findings
        ]
        parts.append(section("The window", table(("", "code", "what was found"), lines)))
    share = (
        f"{report.rows_in:,} rows came, {report.rows:,} are good and {report.quarantined:,} in "
        "quarantine"
    )
    if report.readmitted:
        share += f"; {report.readmitted:,} of the good ones were taken in again by a person"
    parts.append(section("Rows", paragraph(f"{share}.")))
    if report.reasons:
        parts.append(table(("in quarantine for", "rows"), list(report.reasons.items())))
    if report.warnings:
        odd_rows = [(each.code, each.rows, ", ".join(each.ids)) for each in report.warnings]
        parts.append(table(("kept, and odd", "rows", "such as"), odd_rows))
    parts.append(section(f"What window {report.window} holds"))
    parts += [_column(each) for each in report.columns]
    return page("Data", *parts)


def _column(column: ColumnSummary) -> str:
    parts = [
        paragraph(
            f"{column.name}: {column.distinct:,} different values, "
            f"{column.missing:,} of {column.rows:,} missing"
        )
    ]
    if column.quantiles:
        header = (column.of, "smallest", "quarter", "half", "three quarters", "largest")
        parts.append(table(header, [("", *column.quantiles)]))
    if column.commonest:
        there = max(1, column.rows - column.missing)
        lines = [(name, rows, rows / there) for name, rows in column.commonest.items()]
        parts.append(table(("value", "rows", "share"), lines))
    return "".join(parts)
