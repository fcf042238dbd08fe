"""Tables as wide as a terminal: cells fold at words, numbers stay whole, what has no room is left out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2  # between columns
LONGEST = 28  # characters of a word that is kept whole, as names of methods are
NUMBER = re.compile(r"[^A-Za-z]*\d[^A-Za-z]*(e[+-]?\d+)?")
PIECES = re.compile(r"\S+(?: ± \S+)?")


@dataclass(frozen=True)
class Fitted:
    """What there is room for, its cells folded by line feeds.

    alike: columns that say the same in every row, as 'header cell'; left_out: headers of columns without room.
    """

    headers: list[str]
    rows: list[list[str]]
    alike: list[str]
    left_out: list[str]


def fit(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int, least: Sequence[str] = ()) -> Fitted:
    """The table within a width. Where it is too wide, columns alike in all rows become a line; then some are left out.

    least: headers in the order in which they are left out; then those to the right, but never the first column.
    """
    columns = {header: [row[k] for row in rows] for k, header in enumerate(headers)}
    alike: list[str] = []
    left_out: list[str] = []
    names = list(columns)
    if len(rows) > 1:
        for name in names:
            cells = columns[name]
            if _needed(columns) > width and len(set(cells)) == 1 and _is_word(cells[0]):
                alike.append(f"{name} {columns.pop(name)[0]}")
    order = [name for name in least if name in columns] + [name for name in reversed(names) if name not in least]
    for name in order:
        if _needed(columns) <= width:
            break
        if name in columns and len(columns) > 1 and name != next(iter(columns)):
            del columns[name]
            left_out.append(name)
    widths = _widths(columns, width)
    folded = {name: [fold(cell, of) for cell in columns[name]] for name, of in zip(columns, widths, strict=True)}
    heads = [fold(name, of) for name, of in zip(columns, widths, strict=True)]
    lines = [list(row) for row in zip(*folded.values(), strict=True)]
    return Fitted(heads, lines, alike, [name for name in names if name in left_out])


def fold(text: str, width: int) -> str:
    """The text in lines of that width: cut between words, a longer word where it must, a number never."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in PIECES.findall(paragraph):
            if line and len(line) + 1 + len(word) <= width:
                line += f" {word}"
                continue
            if line:
                lines.append(line)
            while len(word) > width and not _is_number(word):
                lines.append(word[:width])
                word = word[width:]
            line = word
        lines.append(line)
    return "\n".join(lines)


def _needed(columns: dict[str, list[str]]) -> int:
    return sum(_least(name, cells) for name, cells in columns.items()) + GAP * (len(columns) - 1)


def _least(header: str, cells: Sequence[str]) -> int:
    """The width below which a number or a name would be cut."""
    pieces = [piece for text in (header, *cells) for piece in PIECES.findall(text)]
    return max((len(p) if _is_number(p) else min(len(p), LONGEST) for p in pieces), default=1)


def _widths(columns: dict[str, list[str]], width: int) -> list[int]:
    """At least what each needs; what is to spare goes first to the cells that lack most, then to the headers."""
    widths = [_least(name, cells) for name, cells in columns.items()]
    cells = [[line for cell in of for line in cell.split("\n")] for of in columns.values()]
    for texts in (cells, [[*of, name] for name, of in zip(columns, cells, strict=True)]):
        wanted = [max([have, *map(len, of)]) for have, of in zip(widths, texts, strict=True)]
        _grow(widths, wanted, width - GAP * (len(widths) - 1))
    spare = width - sum(widths) - GAP * (len(widths) - 1)
    if widths and spare < 0:  # a terminal too narrow for anything: the words of the widest column are cut
        k = max(range(len(widths)), key=widths.__getitem__)
        widths[k] = max(8, widths[k] + spare)
    return widths


def _grow(widths: list[int], wanted: Sequence[int], room: int) -> None:
    """Those that can have all that they want have it; else the one that lacks most grows by one."""
    while sum(widths) < room and (
        short := [(w - h, k) for k, (w, h) in enumerate(zip(wanted, widths, strict=True)) if w > h]
    ):
        spare = room - sum(widths)
        lack, k = min(short)
        if lack <= spare / len(short):
            widths[k] += lack
        else:
            widths[max(short)[1]] += 1


def _is_number(piece: str) -> bool:
    return NUMBER.fullmatch(piece) is not None


def _is_word(cell: str) -> bool:
    return bool(cell) and cell != "-" and not _is_number(cell)
