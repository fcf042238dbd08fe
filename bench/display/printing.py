"""How the command line prints: lines, tables, complaints."""

import os
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta

WIDE = 240
LINE = 300  # characters of a complaint
BAD_INPUT = 2
ELSEWHERE = "a wider terminal or a pipe shows"
IN_REPORT = "`bench report` shows"


def say(text: str) -> None:
    print(printable(text), flush=True)


def printable(text: str) -> str:
    """The text without terminal codes and invisible characters, which are written as escapes; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """The same, without line breaks."""
    return printable(text).replace("\n", r"\n")


def note(text: str) -> None:
    """Prose, folded at words to the width that there is."""
    from bench.display.fitting import fold

    say(fold(text, room()))


def fail(text: str) -> int:
    """One line for bad input; its exit code. A longer one loses its middle: the end names the mend."""
    line = one_line(f"bench: {text}")
    if len(line) > LINE:
        line = f"{line[: LINE - 105]} ... {line[-100:]}"
    print(line, file=sys.stderr, flush=True)
    return BAD_INPUT


def left_and_end(seconds: float) -> tuple[str, str]:
    """So many seconds in words, and what the clock says at their end, with the day where that is a day or more off."""
    left = timedelta(seconds=round(seconds))
    return str(left), f"{datetime.now() + left:{'%a %H:%M' if left.days else '%H:%M'}}"


def room() -> int:
    """Characters in a line. A pipe has no width unless COLUMNS says so: a reader wants whole lines there."""
    asked = os.environ.get("COLUMNS", "")
    if not sys.stdout.isatty() and not (asked.isdecimal() and int(asked) > 0):
        return WIDE
    return shutil.get_terminal_size().columns


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    least: Sequence[str] = (),
    elsewhere: str = ELSEWHERE,
) -> None:
    """A table no wider than the terminal. least: headers to be left out first; elsewhere: what shows those left out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from bench.display.fitting import fit

    width = room()
    rows = [[one_line(cell) for cell in row] for row in rows]
    fitted = fit([one_line(name) for name in columns], rows, width, least)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for header in fitted.headers:
        drawn.add_column(Text(header), overflow="fold")
    for row in fitted.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(width=width).print(drawn)
    if fitted.alike:
        note(f"in every row: {'; '.join(fitted.alike)}")
    if fitted.left_out:
        note(f"no room for {'; '.join(fitted.left_out)}: {elsewhere} them")
