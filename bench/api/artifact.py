"""What a trained method leaves for the report's pictures. The report draws each by its type and knows no method.

Artifacts of one name from several runs share a figure.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = Tensor | NDArray[np.generic]  # a tensor as a method gives it, a numpy array as the report reads it


@dataclass(frozen=True)
class Lines:
    """Lines over a common abscissa, in one panel or several.

    With one line a panel, runs are laid over each other; with more, each run has panels of its own.
    Shape: x (K,), y (panels, lines, K). panels: what the ordinate of each is. logarithmic: whether each ordinate is.
    lines: the names of the lines. y_label: what all ordinates are, where panels are not named for it.
    limits: ends of the ordinate.
    emphasis: in each panel the line that is meant, drawn above the others. Shape: (panels,) int64.
    pictures: an image beside each panel. Shape: (panels, C, H, W).
    """

    kind: ClassVar[str] = "lines"
    name: str
    caption: str
    x_label: str
    x: Array
    y: Array
    panels: tuple[str, ...]
    lines: tuple[str, ...] = ()
    y_label: str = ""
    logarithmic: tuple[bool, ...] = ()
    limits: tuple[float, float] | None = None
    emphasis: Array | None = None
    pictures: Array | None = None


@dataclass(frozen=True)
class Images:
    """A grid of images, each rescaled to its own range. Shape: images (rows, columns, C, H, W)."""

    kind: ClassVar[str] = "images"
    name: str
    caption: str
    images: Array
    rows: tuple[str, ...]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeatMap:
    """A matrix as colours. Shape: values (rows, columns). label: what the colour stands for."""

    kind: ClassVar[str] = "heat-map"
    name: str
    caption: str
    label: str
    values: Array
    rows: tuple[str, ...]
    columns: tuple[str, ...]


Artifact = Lines | Images | HeatMap
