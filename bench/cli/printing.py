"""How the command line prints: lines, tables, complaints."""

import sys
from collections.abc import Sequence

WIDE = 240
BAD_INPUT = 2


def say(text: str) -> None:
    print(text, flush=True)


def fail(text: str) -> int:
    """One line for bad input; its exit code."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
    return BAD_INPUT


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    # a pipe has no width: a reader wants whole lines there, not ones folded at 80 columns
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    console.print(drawn)
