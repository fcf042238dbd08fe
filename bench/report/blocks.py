"""What sections are made of. A renderer turns blocks into Markdown, or into whatever is wanted next."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure as Drawing


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
class Table:
    """Headers and cells, ready to be read. words: the headers of columns that hold words, set to the left."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Data:
    """A table of unrounded numbers, as a file of its own: name.csv."""

    name: str
    frame: pd.DataFrame


@dataclass(frozen=True)
class Picture:
    """A figure, as a file of its own. name: without an ending."""

    name: str
    caption: str
    drawing: Drawing


Block = Heading | Text | Facts | Table | Data | Picture
