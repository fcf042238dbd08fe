"""What the script of the page draws, as JSON can say it: axes, numbers, dashes, markers."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from matplotlib.markers import MarkerStyle
from matplotlib.transforms import Affine2D

from bench.report.blocks import Axis
from bench.report.text import one_line

DIGITS = 5  # of the numbers that are drawn


def axis(of: Axis) -> dict[str, Any]:
    return {
        "title": one_line(of.title),
        "log": of.log,
        "whole": of.whole,
        "highest": of.highest,
        "errors": of.errors,
    }


def numbers(values: Sequence[float]) -> list[float | None]:
    return [rounded(value, DIGITS) if math.isfinite(value) else None for value in map(float, values)]


def rounded(value: float, digits: int) -> float | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def dash(dashes: str) -> str:
    """matplotlib's dashes as SVG's."""
    return {"-": "", "--": "6 3", ":": "2 2", "-.": "7 2 2 2"}.get(dashes, "")


@cache
def polygon(marker: str, fill: Any) -> list[list[float]]:
    """What matplotlib draws for a marker, or fills of it, within a square of side 1 about the origin, y downwards."""
    if fill == "none":
        return []
    style = MarkerStyle(marker, fillstyle=fill)
    transform = style.get_transform() + Affine2D().scale(100)  # so that curves are cut into enough pieces
    points = np.asarray(style.get_path().transformed(transform).to_polygons(closed_only=True)[0], dtype=float)
    return [[round(x / 100, 3), round(-y / 100, 3)] for x, y in points.tolist()]
