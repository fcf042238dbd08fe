"""What sections are made of. A renderer turns blocks into Markdown, or into a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure as Drawing

from bench.report import image
from bench.report.style import Key, Look, columns


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph of our own words, in which Markdown's emphasis may be used."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value, as a list; emphasised names where they are headings of columns."""

    pairs: Sequence[tuple[str, str]]
    strong: bool = False


@dataclass(frozen=True)
class Code:
    """Text to be shown or copied as it is, folded away where that can be done."""

    title: str
    text: str


@dataclass(frozen=True)
class Table:
    """Headers and cells, ready to be read. words: the headers of columns that hold words, set to the left."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Board:
    """A table with a line for each row of results, of all data sets, which a page sorts and filters.

    lines: data set and key of each row. reach: of reverse mode, as measured, for each. look: of each key.
    values: what its cells sort by, the cells themselves where None.
    more: headers of columns that are shown on demand. better: which way a column is better, by header.
    """

    table: Table
    lines: Sequence[tuple[str, Key]]
    reach: Sequence[str]
    look: Mapping[Key, Look]
    values: Sequence[Sequence[float | None]]
    more: frozenset[str] = field(default_factory=frozenset)
    better: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cards:
    """Every run, to be opened: a table with a line each, and behind it what the run was asked to do and how it ended.

    lines: data set and key. look: of each key. about: facts that are told of a run, by their title; settings among them
    as mappings.
    Markdown leaves them to CSV files.
    """

    table: Table
    lines: Sequence[tuple[str, Key]]
    look: Mapping[Key, Look]
    about: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Data:
    """A table of unrounded numbers, as a file of its own: name.csv."""

    name: str
    frame: pd.DataFrame


@dataclass(frozen=True)
class Axis:
    """title: with its unit. log: logarithmic. whole: ticks at whole numbers. highest: where it ends at the latest.

    errors: of percentages, with their distance to 100 on a logarithmic scale, so that the best are told apart though
    some are far below.
    """

    title: str
    log: bool = False
    whole: bool = False
    highest: float | None = None
    errors: bool = False


@dataclass(frozen=True)
class Series:
    """What is drawn of one row, in its look. low, high: of a band (line) or bars (mean); equally long, or empty.

    kind: a `line` through points, or one in `steps`; `mean`s, large; `seeds`, small; the `front` of all rows.
    dashes: of the line, where they tell something else than the row, which `note` names.
    """

    row: Key
    kind: Literal["line", "steps", "mean", "seeds", "front"]
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dashes: str | None = None
    note: str = ""
    labelled: bool = False  # with its name beside its first point


@dataclass(frozen=True)
class Panel:
    """Axes and what is drawn between them. dataset: the one that is shown, if it is one."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    dataset: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure, as files of its own. name: without an ending. panels, look: its content, for a page to draw."""

    name: str
    caption: str
    drawing: Drawing
    panels: Sequence[Panel] = ()
    look: Mapping[Key, Look] = field(default_factory=dict)

    @cached_property
    def png(self) -> bytes:
        return image.png(self.drawing)

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """By ending, all that is made of it in the style of now."""
        made = {"svg": self.svg, "png": self.png}
        return made if columns() is None else made | {"pdf": image.pdf(self.drawing)}

    @cached_property
    def svg(self) -> bytes:
        return image.svg(self.drawing)


Block = Heading | Text | Facts | Code | Table | Board | Cards | Data | Picture
InPlace = Callable[[Block, Exception], Text]  # what stands in the place of a block that cannot be rendered


def raised(block: Block, error: Exception) -> Text:
    """Nothing does. Raises: the error."""
    raise error
