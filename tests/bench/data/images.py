"""Folders of images to be read."""

from pathlib import Path

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)


def save_images(root: Path, per_class: int = 10, mode: str = "L", size: tuple[int, int] = (5, 6)) -> Path:
    """Two classes, told apart by their brightness: cats below 128, dogs from 128."""
    for low, folder in ((0, "cats"), (128, "dogs")):
        (root / folder).mkdir(parents=True)
        for i in range(per_class):
            pixels = RNG.integers(low, low + 128, (size[1], size[0]), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / folder / f"{i}.png")
    return root
