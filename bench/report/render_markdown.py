"""Blocks as a page of Markdown with its files: tables/*.csv, figures/*.png, *.svg, and *.pdf for a paper.

What is foreign is escaped.
"""

import re
from collections.abc import Iterable

from bench.report.blocks import Block, Board, Cards, Code, Data, Facts, Heading, InPlace, Picture, Table, Text
from bench.report.numbers import csv
from bench.report.summary import by_dataset
from bench.report.text import file_name, printable
from bench.report.text import markdown as escape

PAGE = "report.md"


def rendered(blocks: Iterable[Block], *, title: str, in_place: InPlace) -> dict[str, bytes]:
    """The files of the report by their names, the page after those that it shows."""
    parts = [f"# {escape(title)}"]
    files: dict[str, bytes] = {}
    for block in blocks:
        try:
            told, of_block = _rendered(block)
        except Exception as error:  # whatever a record made of this block, the others are shown
            told, of_block = [in_place(block, error).text], {}
        parts += told
        files |= of_block
    return {**files, PAGE: ("\n\n".join(parts) + "\n").encode(errors="replace")}


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
