"""`imagefolder:PATH`: a user's own image files, one folder per class.

PATH holds the class folders, or train/ and optionally val/ and test/ that hold them; a val/ folder is used as
it is, whatever fraction is asked for. Images are grey where every file is, else RGB.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.api.dataset import Source, Split
from bench.api.errors import DataError
from bench.data.files import torchvision_datasets

Pixels = NDArray[np.uint8]


def read_imagefolder(name: str, root: Path) -> Source:
    """All images, classes in the order of their folders' names.

    Raises: DataError.
    """
    folders = {part: root / part for part in ("train", "val", "test") if (root / part).is_dir()}
    if "train" not in folders:
        folders = {"train": root}
    listings = {part: _listing(name, folder) for part, folder in folders.items()}
    classes = listings["train"].classes
    for part, listing in listings.items():
        # torchvision numbers the classes of each folder anew: a missing one would shift the labels
        if odd := sorted(set(classes) ^ set(listing.classes)):
            raise DataError(f"{name}: class folder {odd[0]} is not in both train/ and {part}/; add it")
    paths = [path for listing in listings.values() for path, _ in listing.samples]
    images = _same_size(name, {path: _open(name, path) for path in paths})
    grey = all(image.ndim == 2 for image in images.values())
    splits = {}
    for part, listing in listings.items():
        x = np.stack([_channels_first(images[path], grey) for path, _ in listing.samples])
        y = torch.tensor([label for _, label in listing.samples])
        splits[part] = Split(torch.from_numpy(x), y)
    return Source(len(classes), splits["train"], splits.get("test"), splits.get("val"))


def _listing(name: str, folder: Path) -> Any:
    datasets = torchvision_datasets(name)
    try:
        return datasets.ImageFolder(folder)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: {reason}; put each class's images in a folder of its own") from error


def _open(name: str, path: str) -> Pixels:
    """Shape: (H, W) where the file is grey, else (H, W, 3)."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode = image.mode
            pixels = np.asarray(image.convert("L" if mode in ("1", "L") else "RGB"))
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: cannot read image {path} ({reason}); mend or remove it") from error
    if mode.startswith(("I", "F")):
        # Pillow clips these to 8 bits, which blots the picture out
        raise DataError(f"{name}: image {path} has more than 8 bits per channel; store 8")
    return pixels


def _same_size(name: str, images: dict[str, Pixels]) -> dict[str, Pixels]:
    first, *others = images
    for path in others:
        if images[path].shape[:2] != images[first].shape[:2]:
            (h, w), (h0, w0) = images[path].shape[:2], images[first].shape[:2]
            raise DataError(f"{name}: image {path} is {w}x{h} pixels, but {first} is {w0}x{h0}; resize all to one size")
    return images


def _channels_first(image: Pixels, grey: bool) -> Pixels:
    if grey:
        return image[None]
    return np.repeat(image[None], 3, axis=0) if image.ndim == 2 else image.transpose(2, 0, 1)
