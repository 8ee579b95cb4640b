"""Where commands print: a terminal with its width and colours, or lines that nothing tears."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.table import Table

_UNBOUND_COLUMNS = 100_000


def open_console(*, stderr: bool = False) -> Console:
    """Return standard output, or standard error, to print to.

    What is piped into a file or a program is as wide as its longest line, unless the
    environment says ``COLUMNS``, and has no colours.
    """
    stream = sys.stderr if stderr else sys.stdout
    is_bound = stream.isatty() or "COLUMNS" in os.environ
    width = None if is_bound else _UNBOUND_COLUMNS
    return Console(stderr=stderr, highlight=False, emoji=False, width=width)


out, err = open_console(), open_console(stderr=True)


def plain_table(*columns: str) -> Table:
    """Return an empty table as all commands draw theirs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show_table(table: Table) -> None:
    """Print a table; its lines end with their last word, not with spaces."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())
