"""A figure as a light file: PNG with a palette, of at most 100 kB, SVG, or PDF; the same bytes for the same figure."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

MOST_BYTES = 100_000
COLOURS = 128
MOST_PIXELS = 1_200_000  # which seldom fit into that many bytes
RESOLUTIONS = (160, 130, 105, 85, 65, 50)  # dots per inch, from fine to coarse


def png(figure: Figure) -> bytes:
    """The finest picture that is light enough; the coarsest where none is."""
    size = figure.get_size_inches()
    finest = next((dpi for dpi in RESOLUTIONS if dpi**2 * size[0] * size[1] <= MOST_PIXELS), RESOLUTIONS[-1])
    left = [dpi for dpi in RESOLUTIONS if dpi <= finest]
    full = _drawn(figure, finest)
    while True:
        dpi = left.pop(0)
        # made smaller, and not drawn again, which takes ten times as long
        part = (
            full
            if dpi == finest
            else full.resize([round(n * dpi / finest) for n in full.size], Image.Resampling.LANCZOS)
        )
        light = _light(part)
        if len(light) <= MOST_BYTES or not left:
            return light
        # bytes grow about as the resolution does: pass by those that would be too heavy, but for the last
        left = [other for other in left if len(light) * other / dpi <= 1.1 * MOST_BYTES] or left[-1:]


def svg(figure: Figure) -> bytes:
    """Text as outlines, so that it looks the same everywhere."""
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "path"}), _drawing(figure):
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return file.getvalue()


def pdf(figure: Figure) -> bytes:
    """Vectors, for a paper."""
    file = io.BytesIO()
    with _drawing(figure):
        unnamed = {"CreationDate": None, "Creator": None, "Producer": None}
        FigureCanvasPdf(figure).print_pdf(file, metadata=unnamed)
    return file.getvalue()


@contextmanager
def _drawing(figure: Figure) -> Iterator[None]:
    """Around what draws a figure on a canvas of its own. `savefig` would draw it twice, once for the layout alone."""
    with warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes; nothing to trouble the user with
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
    figure.set_layout_engine("none")  # laid out once, whatever is made of it


def _drawn(figure: Figure, dpi: int) -> Image.Image:
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    with _drawing(figure):
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())
    return Image.fromarray(pixels).convert("RGB")


def _light(image: Image.Image) -> bytes:
    """Of a palette's colours; a colour that few marks have is not merged with its neighbours, as by median cut."""
    light = io.BytesIO()
    few = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(light, format="png")  # `optimize` takes seven times as long to save a tenth of the bytes
    return light.getvalue()
