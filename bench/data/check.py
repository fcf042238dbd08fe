"""What must hold before any training, each with one line that names the data set and the mend."""

import os

import torch
from torch import Tensor

from bench.api.dataset import Source, Split
from bench.api.errors import DataError

OTHER_SCALE = 4  # times by which the brightest pixels of two splits may differ


def check_memory(name: str, n_bytes: int) -> None:
    """That the arrays of a data set, as their files declare them, fit into this machine.

    Raises: DataError.
    """
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if n_bytes > there:
        raise DataError(
            f"{name} needs {n_bytes / 2**30:.3g} GiB of memory, and this machine has {there / 2**30:.3g}; "
            "give fewer or smaller images"
        )


def check_source(name: str, source: Source) -> None:
    """Shapes, types, lengths and label range of every split that the files hold.

    Raises: DataError.
    """
    shape = tuple(source.train.x.shape[1:])
    for part in ("train", "val", "test"):
        split: Split | None = getattr(source, part)
        if split is None:
            continue
        _check_arrays(f"{name}: {part}", split)
        if tuple(split.x.shape[1:]) != shape:
            raise DataError(
                f"{name}: {part} images are {_by(split.x.shape[1:])}, train images {_by(shape)}; "
                "all images must have one size"
            )
        if part != "train":
            _check_beside_train(name, part, split, source.train)
        n_classes = source.output if isinstance(source.output, int) else source.output.size
        outside = split.y[(split.y < 0) | (split.y >= n_classes)]
        if len(outside):
            last = n_classes - 1
            raise DataError(
                f"{name}: {part} has label {int(outside[0])}, outside the classes 0 to {last}; "
                "number them from 0 and keep every class in train"
            )


def check_train(name: str, y: Tensor, n_classes: int) -> None:
    """At least two classes, and an image of each one to learn from.

    Raises: DataError.
    """
    present = torch.unique(y).tolist()
    if len(present) < 2:
        raise DataError(f"{name}: the training split has a single class; a classifier needs two or more")
    if len(present) < n_classes:
        # a stray label of a million must not cost a million counters
        empty = next(c for c, label in enumerate([*present, n_classes]) if c != label)
        raise DataError(
            f"{name}: class {empty} has no image in the training split; number the classes from 0 without "
            "gaps and give each one several images"
        )


def _check_arrays(where: str, split: Split) -> None:
    x, y = split
    if x.ndim != 4 or x.dtype != torch.uint8 or 0 in x.shape[1:]:
        raise DataError(f"{where}: images are {_by(x.shape)} {x.dtype}; expected (N, C, H, W) uint8")
    if y.ndim != 1 or y.dtype != torch.int64:
        raise DataError(f"{where}: labels are {_by(y.shape)} {y.dtype}; expected one integer per image")
    if len(x) != len(y):
        raise DataError(f"{where}: {len(x)} images but {len(y)} labels; give one label per image")
    if len(x) == 0:
        raise DataError(f"{where}: no images; give at least one, or leave the split out")
    if x.numel() > 1 and x.min() == x.max():
        raise DataError(
            f"{where}: every pixel is {int(x.flatten()[0])}, so there is nothing to tell; look at the files"
        )
    if len(x) > 1 and (x == x[0]).all():
        raise DataError(f"{where}: all {len(x)} images are the same; look at the files")


def _check_beside_train(name: str, part: str, split: Split, train: Split) -> None:
    """That a split is neither the training split itself nor on another scale."""
    if len(split.x) == len(train.x) and torch.equal(split.x, train.x):
        raise DataError(f"{name}: the {part} images are the train images; give others, or leave the split out")
    low, high = sorted((int(split.x.max()), int(train.x.max())))
    if high > OTHER_SCALE * low:
        raise DataError(
            f"{name}: the brightest pixel of {part} is {int(split.x.max())}, of train {int(train.x.max())}, which "
            "looks like two scales; store both on one"
        )


def _by(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(n) for n in shape) + ")"
