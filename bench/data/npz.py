"""`npz:PATH`: a user's own arrays x and y, and x_val, y_val, x_test, y_test where these splits are theirs.

Three more entries say what arrays leave open: `kind` (image, vector, sequence or tokens), `vocabulary` (how many tokens
there are) and `output` (classes, class probabilities, values or next token). What could be read in two ways is refused.
How inputs and labels are read: `npz_inputs.py` and `npz_labels.py`.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, Any, get_args

import numpy as np
from numpy.typing import NDArray

from bench.api.dataset import Source, Split
from bench.api.errors import DataError
from bench.api.kinds import InputKind, OutputKind
from bench.data.check import check_memory
from bench.data.npz_inputs import read_inputs
from bench.data.npz_labels import read_labels

Array = NDArray[Any]

SPLITS = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}
WORDS = {"kind": get_args(InputKind), "output": get_args(OutputKind)}  # what entries of one word may say
MOST_TOKENS = 10_000_000
KEYS = (*(key for pair in SPLITS.values() for key in pair), *WORDS, "vocabulary")


def read_npz(name: str, path: Path) -> Source:
    """The arrays of an npz file; classes are counted from the training labels.

    Raises: DataError.
    """
    arrays = _arrays(name, path)
    kind, output = (_word(name, key, arrays.get(key)) for key in WORDS)
    vocabulary = _vocabulary(name, arrays.get("vocabulary"))
    given = {key: arrays[key] for pair in SPLITS.values() for key in pair if key in arrays}
    kind, x = read_inputs(name, {k: v for k, v in given.items() if k.startswith("x")}, kind, vocabulary)
    found, y = read_labels(name, {k: v for k, v in given.items() if k.startswith("y")}, output, kind, vocabulary)
    splits = {part: Split(x[of_x], y[of_y]) for part, (of_x, of_y) in SPLITS.items() if of_x in x}
    return Source(found, splits["train"], splits.get("test"), splits.get("val"), vocabulary)


def _word(name: str, key: str, array: Array | None) -> str | None:
    if array is None:
        return None
    if array.ndim != 0 or array.dtype.kind != "U" or str(array) not in WORDS[key]:
        raise DataError(f"{name}: {key} is none of {', '.join(WORDS[key])}; write it as in {key}='{WORDS[key][0]}'")
    return str(array)


def _vocabulary(name: str, array: Array | None) -> int:
    """0 where there is none."""
    if array is None:
        return 0
    if array.ndim != 0 or array.dtype.kind not in "ui" or not 2 <= int(array) <= MOST_TOKENS:
        raise DataError(f"{name}: vocabulary is no number of tokens; write one from 2 to {MOST_TOKENS:,}")
    return int(array)


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
                "write it with numpy.savez(PATH, x=inputs, y=labels)"
            )
        if arrays[key].size == 0:
            raise DataError(f"{name}: {key} is empty; give at least one example per class")
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
