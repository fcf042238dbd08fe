"""Blocks as a page of Markdown with its files: tables/*.csv, figures/*.png, *.svg, and *.pdf for a paper.

What is foreign is escaped.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from bench.record.files import atomic_write
from bench.report.blocks import Block, Board, Cards, Code, Data, Facts, Heading, InPlace, Picture, Table, Text
from bench.report.numbers import csv
from bench.report.summary import by_dataset
from bench.report.text import file_name, printable
from bench.report.text import markdown as escape

OURS = ("tables/*.csv", "figures/*.png", "figures/*.svg", "figures/*.pdf")


def write(blocks: Iterable[Block], out: Path, *, title: str, in_place: InPlace) -> Path:
    """Write the page and its files under `out`; return the path of the page.

    Raises: StoreError where `out` cannot be written.
    """
    parts = [f"# {escape(title)}"]
    kept: set[Path] = set()
    for block in blocks:
        try:
            told, files = _rendered(block)
        except Exception as error:  # whatever a record made of this block, the others are shown
            told, files = [in_place(block, error).text], {}
        parts += told
        kept |= {_put(out / name, data) for name, data in files.items()}
    page = out / "report.md"
    # after its files, so that it never shows what is not there
    atomic_write(page, ("\n\n".join(parts) + "\n").encode(errors="replace"))
    for stale in {path for pattern in OURS for path in out.glob(pattern)} - kept:
        stale.unlink()  # of an earlier report, it would pass for a part of this one
    return page


def _rendered(block: Block) -> tuple[list[str], dict[str, bytes]]:
    """Its parts of the page, and its files by their names."""
    match block:
        case Heading(text, level):
            return [f"{'#' * level} {escape(text)}"], {}
        case Text(text):
            return [text], {}
        case Facts(pairs, strong):
            return ["\n".join(_fact(name, value, strong=strong) for name, value in pairs)], {}
        case Code(name, text):
            return [f"{escape(name)}:\n\n{_fenced(text)}"], {}
        case Table():
            return [_table(block)], {}
        case Board():
            by_set = by_dataset(block)
            return [part for dataset, table in by_set for part in (f"### {escape(dataset)}", _table(table))], {}
        case Cards():
            return [], {}  # to be opened on a page; their numbers are in runs.csv
        case Data(name, frame):
            return [], {f"tables/{file_name(name)}.csv": csv(frame)}
        case Picture(name, caption):
            stem = file_name(name)
            files = {f"figures/{stem}.{ending}": data for ending, data in block.files.items()}
            return [f"![{escape(caption)}](figures/{stem}.png)\n\n*{escape(caption)}*"], files


def _put(path: Path, data: bytes) -> Path:
    atomic_write(path, data)
    return path


def _fact(name: str, value: str, *, strong: bool) -> str:
    return f"- **{escape(name)}**: {value}." if strong else f"- {escape(name)}: {escape(value)}"


def _fenced(text: str) -> str:
    """Between fences longer than any in it."""
    fence = "`" * (1 + max([2, *(len(run) for run in re.findall("`+", text))]))
    return f"{fence}text\n{printable(text)}\n{fence}"


def _table(table: Table) -> str:
    rule = [":--" if header in table.words else "--:" for header in table.headers]
    lines = [[escape(h) for h in table.headers], rule, *([escape(value) for value in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
