"""One look for all figures: a theme that leaks into nobody's matplotlib, and a fixed look per method.

The theme is for a screen, or for a paper: as wide as its columns, in the type and size of its text, thin of line, and
as PDF, too. Colours and markers are the same in both.

A colour per family, a marker per method, the same in every figure of every report: they follow from what is installed,
not from what was run. Families' colours are declared beside the rules, in families.csv. The suite's first ones are
those of Okabe and Ito (2008), without their yellow, which is too faint on white; a test holds all of them apart for
readers with each kind of colour-vision deficiency.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import matplotlib
import matplotlib.style
import pandas as pd

from bench.api.errors import ConfigError, unknown
from bench.catalog.catalog import Catalog, installed, reference
from bench.report.text import figure as figure_text

BLACK = "#000000"
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # of what is no method
OWN, OWN_COLOUR = "own", "#8B2BE2"  # methods of which no card is within reach, and families without a colour
MARKERS = "osD^vPX<>*phd8"
FILLS = ("full", "none", "left", "top", "right", "bottom")
DASHES = ["-", "--", ":", "-."]
THEME = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same picture
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "figure.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.4",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.8,
    "xtick.color": "0.2",
    "ytick.color": "0.2",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "savefig.dpi": 160,
}

PAPER = {
    # both come with matplotlib; the second has what the first lacks
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "figure.labelsize": 8,
    "axes.linewidth": 0.5,
    "grid.linewidth": 0.4,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 0.9,
    "lines.markersize": 4.5,
    # whole TrueType fonts, which publishers take
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}


@dataclass(frozen=True)
class Style:
    """What figures are made for. columns: the widths, in inches, of one and of two columns of a paper."""

    theme: Mapping[str, Any]
    columns: tuple[float, float] | None = None


SCREEN = "screen"
STYLES = {SCREEN: Style(THEME), "paper": Style(THEME | PAPER, columns=(3.25, 6.75))}
_style: ContextVar[Style] = ContextVar("style", default=STYLES[SCREEN])
_catalog: ContextVar[Catalog | None] = ContextVar("catalog", default=None)

Key = tuple[str, str, str]


class Look(NamedTuple):
    """How one (method, net, variant) appears in every figure."""

    label: str
    colour: str
    marker: str
    dashes: str
    fill: str = "full"

    @property
    def name(self) -> str:
        """The label without the count of runs that `rows.counted` may set below it."""
        return self.label.rpartition("\n")[0] if self.label.endswith("runs ok") else self.label

    @property
    def line(self) -> dict[str, Any]:
        """What a line of this row is drawn with."""
        return {"color": self.colour, "linestyle": self.dashes, **self.point}

    @property
    def point(self) -> dict[str, Any]:
        """What its marks are drawn with, besides their colour."""
        return {"marker": self.marker, "fillstyle": self.fill, "markerfacecoloralt": "white"}


def close() -> dict[str, Any]:
    """For texts of several lines on a paper, whose font leaves much room between them."""
    return {} if columns() is None else {"linespacing": 1.05}


def scaled(points: float) -> float:
    """The width of a line, or the size of a mark, that is so large on a screen."""
    return points * float(matplotlib.rcParams["lines.markersize"]) / 6


@contextmanager
def theme(name: str = SCREEN) -> Iterator[None]:
    """Matplotlib's defaults plus ours, whatever the user's own settings are; undone at the end.

    Raises: ConfigError where there is no style of this name.
    """
    if name not in STYLES:
        raise ConfigError(unknown("style", name, STYLES))
    before = _style.set(STYLES[name])
    try:
        with matplotlib.style.context(["default", dict(STYLES[name].theme)]):
            yield
    finally:
        _style.reset(before)


def columns() -> tuple[float, float] | None:
    """The widths of one and of two columns of the paper that figures are made for now; None for a screen."""
    return _style.get().columns


@contextmanager
def known(catalog: Catalog | None) -> Iterator[None]:
    """Meanwhile families are those that the cards of these methods name, plugins included."""
    before = _catalog.set(catalog)
    try:
        yield
    finally:
        _catalog.reset(before)


def family(method: str) -> str:
    """As the method's card names it; OWN where no card is within reach."""
    methods = (_catalog.get() or installed()).methods
    return str(methods[method].card.get("family") or OWN) if method in methods else OWN


def looks(runs: pd.DataFrame) -> dict[Key, Look]:
    """Each (method, net, variant) with its look; the reference comes first.

    Colour tells the family, the marker the method; fill and dashes tell its nets and variants apart.
    """
    columns = ["method", "net", "variant"]
    keys: list[Key] = [(str(m), str(n), str(v)) for m, n, v in runs[columns].drop_duplicates().to_numpy()]
    keys.sort(key=lambda key: (key[0] != reference(), key))
    nets: dict[str, set[str]] = {method: set() for method, _, _ in keys}
    for method, net, _ in keys:
        nets[method].add(net)
    markers, turn, result = _markers(nets), dict.fromkeys(nets, 0), {}
    for key in keys:
        method, net, variant = key
        label = " ".join([method, *([f"({net})"] if len(nets[method]) > 1 else []), variant])
        k = turn[method]
        turn[method] += 1
        colour = _places()[method].colour if method in _places() else OWN_COLOUR
        fill = FILLS[k % len(FILLS)]
        result[key] = Look(figure_text(label), colour, markers[method], DASHES[k % len(DASHES)], fill)
    return result


def _markers(methods: dict[str, set[str]]) -> dict[str, str]:
    """The markers of methods: those of installed ones are fixed, the others follow in their order."""
    places = _places()
    strangers = sorted(methods.keys() - places.keys())
    at = {method: places[method].marker if method in places else strangers.index(method) for method in methods}
    return {method: MARKERS[k % len(MARKERS)] for method, k in at.items()}


class _Place(NamedTuple):
    """Of an installed method: its family, that one's colour, and the place of its marker."""

    family: str
    colour: str
    marker: int


@cache
def _places() -> dict[str, _Place]:
    """Families begin at different markers, in which their methods follow each other."""
    found: dict[str, _Place] = {}
    for name, entry in sorted(installed().methods.items()):
        of, colours = str(entry.card.get("family") or OWN), entry.colours
        start = 3 * list(colours).index(of) if of in colours else 0
        before = sum(place.family == of for place in found.values())
        found[name] = _Place(of, colours.get(of, OWN_COLOUR), start + before)
    return found
