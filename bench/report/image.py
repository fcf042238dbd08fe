"""A figure as a light file: PNG with a palette, of at most 100 kB, the same bytes for the same figure."""

import io
import warnings

from matplotlib.figure import Figure
from PIL import Image

MOST_BYTES = 100_000
COLOURS = 96
RESOLUTIONS = (160, 130, 105, 85, 65, 50)  # dots per inch, from fine to coarse


def png(figure: Figure) -> bytes:
    """The finest picture that is light enough; the coarsest where none is."""
    for dpi in RESOLUTIONS:
        drawn = _drawn(figure, dpi)
        if len(drawn) <= MOST_BYTES:
            break
    return drawn


def _drawn(figure: Figure, dpi: int) -> bytes:
    full = io.BytesIO()
    with warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes; nothing to trouble the user with
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(full, format="png", dpi=dpi, metadata={"Software": None})
    full.seek(0)
    with Image.open(full) as image:
        palette = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    light = io.BytesIO()
    palette.save(light, format="png", optimize=True)
    return light.getvalue()
