"""`npz:PATH`: a user's own arrays x and y, and x_test and y_test where the test split is theirs.

Layout of images: (N, H, W) is grey; of four axes, channels are the second or the last, whichever alone has 1
to 4 entries. Pixels: integers from 0 to 255 as they are; floats from 0 to 1 or from 0 to 255, one scale for
the whole file, rounded to the nearest of 256 levels. Labels: integers from 0, one per image.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.api.dataset import Source, Split
from bench.api.errors import DataError

Array = NDArray[Any]

KEYS = ("x", "y", "x_test", "y_test")
MAX_CHANNELS = 4


def read_npz(name: str, path: Path) -> Source:
    """The arrays of an npz file; classes are counted from the training labels.

    Raises: DataError.
    """
    arrays = _arrays(name, path)
    images = _pixels(name, {key: array for key, array in arrays.items() if key.startswith("x")})
    x = {key: _channels_first(f"{name}: {key}", array) for key, array in images.items()}
    y = {key: _labels(f"{name}: {key}", array) for key, array in arrays.items() if key.startswith("y")}
    n_classes = int(y["y"].max()) + 1
    test = Split(x["x_test"], y["y_test"]) if "x_test" in x else None
    return Source(n_classes, Split(x["x"], y["y"]), test)


def _arrays(name: str, path: Path) -> dict[str, Array]:
    """x and y, and both or neither of x_test and y_test; none of them empty."""
    try:
        with path.open("rb") as stream:
            # a pickle in the file could run code, so object arrays are refused
            file = np.load(stream, allow_pickle=False)
            held = list(file.keys()) if isinstance(file, np.lib.npyio.NpzFile) else []
            arrays: dict[str, Array] = {key: file[key] for key in KEYS if key in held}
    # NotImplementedError, for a compression that Python lacks, is a RuntimeError
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: not a readable npz file ({reason}); write it with numpy.savez") from error
    needed = KEYS if arrays.keys() - {"x", "y"} else KEYS[:2]
    for key in needed:
        if key not in arrays:
            raise DataError(
                f"{name}: no array {key} (arrays held: {', '.join(held) or 'none'}); "
                "write it with numpy.savez(PATH, x=images, y=labels)"
            )
        if arrays[key].size == 0:
            raise DataError(f"{name}: {key} is empty; give at least one image per class")
    return arrays


def _pixels(name: str, images: dict[str, Array]) -> dict[str, NDArray[np.uint8]]:
    floating = {x.dtype.kind == "f" for x in images.values()}
    if len(floating) > 1:
        raise DataError(f"{name}: of x and x_test one is floating, one is not; store both alike")
    for key, x in images.items():
        if x.dtype.kind not in "uif":
            raise DataError(f"{name}: {key} has type {x.dtype}; store pixels as uint8")
        if not np.isfinite(x).all():
            raise DataError(f"{name}: {key} holds NaN or infinite values; store finite pixels")
        if x.min() < 0 or x.max() > 255:
            raise DataError(
                f"{name}: {key} holds values from {x.min():g} to {x.max():g}; "
                "store pixels as uint8, or as floats from 0 to 1 or from 0 to 255"
            )
    # decided once for the file, so that a dim test split is not scaled otherwise than its train split
    unit_scale = floating == {True} and all(x.max() <= 1 for x in images.values())
    scale = 255 if unit_scale else 1
    return {key: np.rint(x * scale).astype(np.uint8) for key, x in images.items()}


def _channels_first(where: str, x: NDArray[np.uint8]) -> Tensor:
    """Shape: (N, H, W), (N, C, H, W) or (N, H, W, C) to (N, C, H, W)."""
    if x.ndim == 3:
        return torch.from_numpy(x).unsqueeze(1)
    if x.ndim != 4:
        raise DataError(f"{where} has shape {x.shape}; store (N, H, W), (N, C, H, W) or (N, H, W, C)")
    first, last = (x.shape[axis] <= MAX_CHANNELS for axis in (1, 3))
    if first == last:
        which = "both the second and the last axis" if first else "neither the second nor the last axis"
        raise DataError(
            f"{where} has shape {x.shape}: {which} could be 1 to {MAX_CHANNELS} channels; "
            "store (N, C, H, W) or (N, H, W, C) with H and W above that"
        )
    return torch.from_numpy(x if first else np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def _labels(where: str, y: Array) -> Tensor:
    if y.ndim != 1 or y.dtype.kind not in "ui":
        raise DataError(f"{where} has shape {y.shape} and type {y.dtype}; store one integer per image")
    return torch.from_numpy(y.astype(np.int64))
