"""What must hold of inputs before any training, each with one line that names the data set and the mend."""

import os

import torch
from torch import Tensor

from bench.api.dataset import Source, Split
from bench.api.errors import DataError
from bench.api.kinds import Input, Output
from bench.data.check_labels import check_labels
from bench.data.recognise import NOUNS, plural

OTHER_SCALE = 4  # times by which the brightest pixels of two splits may differ
ENTRY = {"image": "pixel", "tokens": "token"}


def check_memory(name: str, n_bytes: int) -> None:
    """That the arrays of a data set, as their files declare them, fit into this machine.

    Raises: DataError.
    """
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if n_bytes > there:
        raise DataError(
            f"{name} needs {n_bytes / 2**30:.3g} GiB of memory, and this machine has {there / 2**30:.3g}; "
            "give fewer or smaller examples"
        )


def check_source(name: str, source: Source, given: Input, output: Output) -> None:
    """Shapes, types, lengths and ranges of every split that the files hold.

    Raises: DataError.
    """
    noun = NOUNS[given.kind]
    for part in ("train", "val", "test"):
        split: Split | None = getattr(source, part)
        if split is None:
            continue
        where, x = f"{name}: {part}", split.x
        if x.ndim != len(given.shape) + 1 or x.dtype != source.train.x.dtype:
            raise DataError(
                f"{where}: {plural(noun)} are {shown(x)}, train {plural(noun)} {shown(source.train.x)}; "
                "all splits must be alike"
            )
        if tuple(x.shape[1:]) != given.shape:
            raise DataError(
                f"{where} {plural(noun)} are {by(x.shape[1:])}, train {plural(noun)} {by(given.shape)}; "
                f"all {plural(noun)} must have one size"
            )
        if len(x) != len(split.y):
            raise DataError(f"{where}: {len(x)} {plural(noun)} but {len(split.y)} labels; give one label per {noun}")
        if len(x) == 0:
            raise DataError(f"{where}: no {plural(noun)}; give at least one, or leave the split out")
        _check_inputs(where, x, given)
        check_labels(where, split.y, output, noun)
        if part != "train":
            _check_beside_train(name, part, split, source.train, given)


def _check_inputs(where: str, x: Tensor, given: Input) -> None:
    """That the inputs are finite numbers, or tokens of the vocabulary, and not all alike."""
    nouns, entry = plural(NOUNS[given.kind]), ENTRY.get(given.kind, "value")
    if x.is_floating_point() and not x.isfinite().all():
        raise DataError(f"{where}: {nouns} hold NaN or infinite values; store finite numbers")
    if given.kind == "tokens" and (outside := x[(x < 0) | (x >= given.vocabulary)]).numel():
        raise DataError(
            f"{where} has token {int(outside[0])}, outside the vocabulary 0 to {given.vocabulary - 1}; number tokens "
            "from 0, or make the vocabulary larger"
        )
    if x.numel() > 1 and x.min() == x.max():
        raise DataError(
            f"{where}: every {entry} is {x.flatten()[0].item():g}, so there is nothing to tell; look at the files"
        )
    if len(x) > 1 and (x == x[0]).all():
        raise DataError(f"{where}: all {len(x)} {nouns} are the same; look at the files")


def _check_beside_train(name: str, part: str, split: Split, train: Split, given: Input) -> None:
    """That a split is neither the training split itself nor, where these are images, on another scale."""
    noun = plural(NOUNS[given.kind])
    if len(split.x) == len(train.x) and torch.equal(split.x, train.x):
        raise DataError(f"{name}: the {part} {noun} are the train {noun}; give others, or leave the split out")
    if given.kind != "image":
        return
    brightest = [float(x.abs().max() if x.is_floating_point() else x.max()) for x in (split.x, train.x)]
    if max(brightest) > OTHER_SCALE * min(brightest):
        raise DataError(
            f"{name}: the brightest pixel of {part} is {brightest[0]:g}, of train {brightest[1]:g}, which "
            "looks like two scales; store both on one"
        )


def shown(x: Tensor) -> str:
    return f"{by(x.shape)} {x.dtype}"


def by(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(n) for n in shape) + ")"
