"""What commands print into a pipe is torn nowhere, and on a terminal it fits."""

from __future__ import annotations

import pytest

from pipelines import console, progress
from pipelines.commands import printing
from pipelines.progress import working

LONG = "word " * 60 + "end"


@pytest.fixture
def piped(monkeypatch):
    """Standard output and standard error as a command finds them whose output is piped."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(console, "out", console.open_console())
    monkeypatch.setattr(printing, "err", console.open_console(stderr=True))


def test_a_table_that_is_piped_has_a_line_for_each_row(piped, capsys):
    rows = [{"run": "1", "reason": LONG, "at": None}, {"run": "22", "reason": "short", "at": None}]
    printing.print_table(("run", "at", "reason"), rows)
    assert capsys.readouterr().out.splitlines() == [
        "run  at  reason",
        f"1    –   {LONG}",
        "22   –   short",
    ]


def test_a_table_fits_the_columns_that_the_environment_names(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(console, "out", console.open_console())
    printing.print_table(("run", "reason"), [{"run": "1", "reason": LONG}])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 40


def test_a_warning_is_one_line_on_standard_error(piped, capsys):
    printing.print_warning(f"[/b] {LONG}")
    assert capsys.readouterr() == ("", f"warning: [/b] {LONG}\n")


def test_what_takes_long_says_so_in_a_pipe_and_what_is_short_or_quiet_does_not(
    piped, capsys, monkeypatch
):
    with working("loading a model"):
        pass
    monkeypatch.setattr(progress, "SILENT_S", 0.0)
    with working("loading a model", quiet=True):
        pass
    assert capsys.readouterr() == ("", "")
    said = ""
    with working("loading [/b] a model"):
        while not said:
            said = capsys.readouterr().err
    assert said == "  loading [/b] a model …\n"


def test_what_goes_on_is_drawn_on_a_terminal(capsys, monkeypatch):
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "100", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with working("loading [/b] a model") as tell:
        tell(3, 9, "rows")
    assert "rows 3/9" in capsys.readouterr().err
