"""A figure as a light file: PNG with a palette, of at most 100 kB, or SVG; the same bytes for the same figure."""

import io
import warnings
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

MOST_BYTES = 100_000
COLOURS = 96
MOST_PIXELS = 2_000_000  # which seldom fit into that many bytes
RESOLUTIONS = (160, 130, 105, 85, 65, 50)  # dots per inch, from fine to coarse


def png(figure: Figure) -> bytes:
    """The finest picture that is light enough; the coarsest where none is."""
    width, height = figure.get_size_inches()
    finest = next((dpi for dpi in RESOLUTIONS if dpi**2 * width * height <= MOST_PIXELS), RESOLUTIONS[-1])
    left = [dpi for dpi in RESOLUTIONS if dpi <= finest]
    while True:
        dpi = left.pop(0)
        drawn = _drawn(figure, dpi)
        if len(drawn) <= MOST_BYTES or not left:
            return drawn
        # bytes grow about as the resolution does: pass by those that would be too heavy, but for the last
        left = [other for other in left if len(drawn) * other / dpi <= 1.1 * MOST_BYTES] or left[-1:]


def svg(figure: Figure) -> bytes:
    """Text as outlines, so that it looks the same everywhere."""
    with matplotlib.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "path"}):
        return _saved(figure, format="svg", metadata={"Date": None, "Creator": None}).getvalue()


def _saved(figure: Figure, **how: Any) -> io.BytesIO:
    full = io.BytesIO()
    with warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes; nothing to trouble the user with
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(full, **how)
    figure.set_layout_engine("none")  # laid out once, whatever is made of it
    full.seek(0)
    return full


def _drawn(figure: Figure, dpi: int) -> bytes:
    full = _saved(figure, format="png", dpi=dpi, metadata={"Software": None})
    with Image.open(full) as image:
        palette = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    light = io.BytesIO()
    palette.save(light, format="png", optimize=True)
    return light.getvalue()
