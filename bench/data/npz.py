"""`npz:PATH`: a user's own arrays x and y, and x_val, y_val, x_test, y_test where these splits are theirs.

Layout of images: (N, H, W) is grey; of four axes, channels are the second or the last, whichever alone has 1
to 4 entries. Pixels of all splits are on one scale: whole numbers from 0 to 255 as they are, or fractions from 0 to 1,
rounded to the nearest of 256 levels. Labels: integers from 0, one per image. What could be read in two ways is refused.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.api.dataset import Source, Split
from bench.api.errors import DataError
from bench.data.check import check_memory

Array = NDArray[Any]

SPLITS = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}
KEYS = tuple(key for pair in SPLITS.values() for key in pair)
MAX_CHANNELS = 4
SEEN, FEW = 1_000_000, 64  # values looked at; levels below which rounding to 256 would cost much
DARK = 4  # times by which the brightest pixels of two splits may differ; more is another scale


def read_npz(name: str, path: Path) -> Source:
    """The arrays of an npz file; classes are counted from the training labels.

    Raises: DataError.
    """
    arrays = _arrays(name, path)
    images = _pixels(name, {key: array for key, array in arrays.items() if key.startswith("x")})
    x = {key: _channels_first(f"{name}: {key}", array) for key, array in images.items()}
    y = {key: _labels(f"{name}: {key}", array) for key, array in arrays.items() if key.startswith("y")}
    splits = {part: Split(x[of_x], y[of_y]) for part, (of_x, of_y) in SPLITS.items() if of_x in x}
    return Source(int(y["y"].max()) + 1, splits["train"], splits.get("test"), splits.get("val"))


def _arrays(name: str, path: Path) -> dict[str, Array]:
    """x and y, and both or neither of the arrays of each other split; none of them empty."""
    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"{name}: not a readable npz file (no regular file); write it with numpy.savez")
    try:
        with path.open("rb") as stream:
            _check_sizes(name, stream)
            # a pickle in the file could run code, so object arrays are refused
            file = np.load(stream, allow_pickle=False)
            held = list(file.keys()) if isinstance(file, np.lib.npyio.NpzFile) else []
            arrays: dict[str, Array] = {key: file[key] for key in KEYS if key in held}
            if odd := next((key for key, array in arrays.items() if not isinstance(array, np.ndarray)), None):
                raise ValueError(f"{odd} is no array")
    except DataError:
        raise
    # numpy, zipfile and zlib raise nearly anything on a damaged file, MemoryError where one claims too much among it
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: not a readable npz file ({reason}); write it with numpy.savez") from error
    if len(set(held)) < len(held):
        raise DataError(f"{name}: two arrays have one name; write it with numpy.savez")
    needed = [key for pair in SPLITS.values() if pair[0] == "x" or arrays.keys() & pair for key in pair]
    for key in needed:
        if key not in arrays:
            raise DataError(
                f"{name}: no array {key} (arrays held: {', '.join(held) or 'none'}); "
                "write it with numpy.savez(PATH, x=images, y=labels)"
            )
        if arrays[key].size == 0:
            raise DataError(f"{name}: {key} is empty; give at least one image per class")
    if unread := [key for key in held if key not in KEYS]:
        raise DataError(
            f"{name}: nothing reads the array {unread[0]}; leave it out, or name it one of {', '.join(KEYS)}"
        )
    return arrays


def _check_sizes(name: str, stream: IO[bytes]) -> None:
    """That what the arrays' headers claim fits into memory, before any of it is asked for."""
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            claimed = 0
            for member in archive.namelist():
                if member.removesuffix(".npy") in KEYS:
                    with archive.open(member) as array:
                        claimed += max(_claimed(array), archive.getinfo(member).file_size)
        check_memory(name, claimed)
    stream.seek(0)


def _claimed(array: IO[bytes]) -> int:
    """Bytes of an array by its header; 0 where it has none, which is for numpy to say."""
    try:
        read = np.lib.format.read_array_header_1_0
        if np.lib.format.read_magic(array) != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(array)
    except ValueError:
        return 0
    return math.prod(shape) * int(dtype.itemsize)


def _pixels(name: str, images: dict[str, Array]) -> dict[str, NDArray[np.uint8]]:
    for key, x in images.items():
        if x.dtype.kind not in "uif":
            raise DataError(f"{name}: {key} has type {x.dtype}; store pixels as uint8")
        if not np.isfinite(x).all():
            raise DataError(f"{name}: {key} holds NaN or infinite values; store finite pixels")
        if x.min() < 0 or x.max() > 255:
            raise DataError(
                f"{name}: {key} holds values from {x.min():g} to {x.max():g}; "
                "store pixels as uint8, or as floats from 0 to 1"
            )
    _check_one_scale(name, images)
    whole = {key: x.dtype.kind != "f" or bool((x == np.rint(x)).all()) for key, x in images.items()}
    brightest = max(float(x.max()) for x in images.values())
    if all(whole.values()) and not (brightest <= 1 and any(x.dtype.kind == "f" for x in images.values())):
        return {key: x.astype(np.uint8) for key, x in images.items()}
    if brightest > 1:
        key = next(key for key in images if not whole[key])
        raise DataError(
            f"{name}: {key} holds fractions, and values above 1, so their scale is not clear; "
            "divide all by their greatest possible value, or round them to uint8"
        )
    levels = {key: np.rint(x * 255).astype(np.uint8) for key, x in images.items()}
    for key, x in images.items():
        left, values = len(np.unique(levels[key])), len(np.unique(x.ravel()[:SEEN]))
        if left < min(values, FEW):
            raise DataError(
                f"{name}: of the values of {key}, from {x.min():g} to {x.max():g}, 256 levels from 0 to 1 leave {left}"
                "; stretch all by one factor, to the range from 0 to 1"
            )
    return levels


def _check_one_scale(name: str, images: dict[str, Array]) -> None:
    """That no split is stored as floats where another is not, or in a small part of the other's range."""
    first, *others = images
    for key in others:
        if (images[first].dtype.kind == "f") != (images[key].dtype.kind == "f"):
            raise DataError(f"{name}: of {first} and {key} one is floating, one is not; store both alike")
        low, high = sorted((first, key), key=lambda key: float(images[key].max()))
        if float(images[high].max()) > DARK * float(images[low].max()):
            raise DataError(
                f"{name}: {low} goes up to {images[low].max():g}, {high} to {images[high].max():g}, "
                "which looks like two scales; store both on one"
            )


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
    if y.max() > np.iinfo(np.int64).max:
        raise DataError(f"{where} holds the label {y.max()}; number the classes from 0")
    return torch.from_numpy(y.astype(np.int64))
