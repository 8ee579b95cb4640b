from __future__ import annotations

from components.decline.core import DeclineReport, decline


def test_carries_the_reason_as_it_is():
    reason = "window 2026-01-05 has a single class (x: 12)"
    report = decline(reason)
    assert report.headline == report.reason == reason
    assert DeclineReport.from_json(report.to_json()) == report
