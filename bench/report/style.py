"""One look for all figures: a theme that leaks into nobody's matplotlib, and a fixed look per method.

Colours are those of Okabe and Ito (2008), which readers with colour-vision deficiencies can tell apart; their
yellow is left out, for it is too faint on white. Backprop is always black.
"""

from collections import Counter
from contextlib import AbstractContextManager
from typing import NamedTuple

import matplotlib.style
import pandas as pd

from bench.report.text import figure as figure_text
from bench.stats import REFERENCE

BLACK = "#000000"
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = "osD^vPX<>*"
DASHES = ["-", "--", ":", "-."]
THEME = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same picture
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
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

Key = tuple[str, str, str]


class Look(NamedTuple):
    """How one (method, net, variant) appears in every figure."""

    label: str
    colour: str
    marker: str
    dashes: str


def theme() -> AbstractContextManager[None]:
    """Matplotlib's defaults plus ours, whatever the user's own settings are; undone at the end."""
    return matplotlib.style.context(["default", THEME])


def looks(runs: pd.DataFrame) -> dict[Key, Look]:
    """Each (method, net, variant) with its look; backprop comes first.

    Colour tells the method; marker and dashes tell apart what shares a colour: its nets and variants, and
    other methods where there are more than colours.
    """
    columns = ["method", "net", "variant"]
    keys: list[Key] = [(str(m), str(n), str(v)) for m, n, v in runs[columns].drop_duplicates().to_numpy()]
    keys.sort(key=lambda key: (key[0] != REFERENCE, key))
    nets: dict[str, set[str]] = {method: set() for method, _, _ in keys}
    for method, net, _ in keys:
        nets[method].add(net)
    others = sorted(nets.keys() - {REFERENCE})
    colours = {method: PALETTE[i % len(PALETTE)] for i, method in enumerate(others)} | {REFERENCE: BLACK}

    used: Counter[str] = Counter()
    result = {}
    for key in keys:
        method, net, variant = key
        label = " ".join([method, *([f"({net})"] if len(nets[method]) > 1 else []), variant])
        turn = used[colours[method]]
        used[colours[method]] += 1
        result[key] = Look(
            figure_text(label), colours[method], MARKERS[turn % len(MARKERS)], DASHES[turn % len(DASHES)]
        )
    return result
