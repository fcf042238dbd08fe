"""The labels of an npz file: what is to be predicted, and as which tensors.

One whole number each is a class, or with tokens one for each position the token that follows. Floats are values, unless
they could be classes (0, 1, 2, ... without a gap) or distributions (rows that add up to 1): then `output` must say it.
"""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.api.errors import DataError
from bench.api.kinds import InputKind, Output, OutputKind
from bench.data.check_labels import OFF_ONE
from bench.data.npz_inputs import to_float32
from bench.data.recognise import NOUNS

Array = NDArray[Any]


def read_labels(
    name: str, arrays: dict[str, Array], asked: str | None, inputs: InputKind, vocabulary: int
) -> tuple[Output, dict[str, Tensor]]:
    """What all are, and the tensors by the arrays' names. Raises: DataError."""
    noun = NOUNS[inputs]
    for key, y in arrays.items():
        if y.dtype.kind not in "uif" or y.ndim not in (1, 2):
            raise _odd(f"{name}: {key}", y, noun)
        if not np.isfinite(y).all():
            raise DataError(f"{name}: {key} holds NaN or infinite values; leave such examples out")
    kind = cast(OutputKind, asked) if asked else _kind(f"{name}: y", arrays["y"], inputs, noun)
    if kind == "next token" and not vocabulary:
        raise DataError(f"{name}: next tokens are predicted from tokens; add vocabulary, as in vocabulary=100")
    labels = {key: _tensor(f"{name}: {key}", y, kind, noun) for key, y in arrays.items()}
    train = labels["y"]
    match kind:
        case "classes":
            return Output.classes(int(train.max()) + 1), labels
        case "next token":
            return Output("next token", vocabulary, train.shape[1]), labels
        case _:
            return Output(kind, train.shape[1]), labels


def _kind(where: str, y: Array, inputs: InputKind, noun: str) -> OutputKind:
    if y.dtype.kind != "f":
        if y.ndim == 2 and inputs != "tokens":
            raise _odd(where, y, noun)
        return "next token" if y.ndim == 2 else "classes"
    flat = y.reshape(len(y), -1)
    if flat.shape[1] == 1:
        levels = np.unique(flat)
        if np.array_equal(levels, np.arange(len(levels))):
            raise DataError(
                f"{where} has type {y.dtype} and the values 0 to {len(levels) - 1} alone: classes or values; "
                "say which, by output='classes' or output='values'"
            )
    elif (flat >= 0).all() and (np.abs(flat.sum(1) - 1) <= OFF_ONE).all():
        raise DataError(
            f"{where} has rows that add up to 1: distributions over classes or values; "
            "say which, by output='class probabilities' or output='values'"
        )
    return "values"


def _tensor(where: str, y: Array, kind: OutputKind, noun: str) -> Tensor:
    if kind in ("values", "class probabilities"):
        return torch.from_numpy(to_float32(where, y.reshape(len(y), -1)))
    if y.ndim != (1 if kind == "classes" else 2) or (y.dtype.kind == "f" and (y != np.rint(y)).any()):
        raise _odd(where, y, noun)
    if y.max() > np.iinfo(np.int64).max:
        raise DataError(f"{where} holds the label {y.max()}; number the classes from 0")
    return torch.from_numpy(y.astype(np.int64))


def _odd(where: str, y: Array, noun: str) -> DataError:
    return DataError(
        f"{where} has shape {y.shape} and type {y.dtype}; store one integer per {noun} for classes, "
        "or floats for values, one each or a row each"
    )
