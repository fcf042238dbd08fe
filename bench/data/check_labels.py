"""What must hold of labels before any training, by the kind of output."""

import torch
from torch import Tensor

from bench.api.errors import DataError
from bench.api.kinds import Output
from bench.data.recognise import plural

OFF_ONE = 1e-3  # by which the probabilities of a label may miss 1


def check_labels(where: str, y: Tensor, output: Output, noun: str) -> None:
    """Shape, type and range of the labels of a split. noun: of an example. Raises: DataError."""
    found = f"labels are {'(' + ', '.join(map(str, y.shape)) + ')'} {y.dtype}"
    match output.kind:
        case "classes":
            if y.ndim != 1 or y.dtype != torch.int64:
                raise DataError(f"{where}: {found}; expected one integer per {noun}")
            _check_range(
                where, y, output.size, "label", "the classes", "number them from 0 and keep every class in train"
            )
        case "next token":
            if y.dtype != torch.int64 or tuple(y.shape[1:]) != (output.positions,):
                raise DataError(f"{where}: {found}; expected {output.positions} tokens per {noun}, int64")
            _check_range(
                where, y, output.size, "label", "the tokens", "number them from 0, or make the vocabulary larger"
            )
        case _:
            if y.dtype != torch.float32 or tuple(y.shape[1:]) != output.shape:
                raise DataError(f"{where}: {found}; expected {output.size} float32 {output.kind} per {noun}")
            if not y.isfinite().all():
                raise DataError(f"{where}: labels hold NaN or infinite values; leave such examples out")
            if output.kind == "class probabilities":
                _check_distributions(where, y)


def check_train(name: str, y: Tensor, output: Output, noun: str) -> None:
    """That the labels of the training split differ, and that each class has an example to learn from.

    Raises: DataError.
    """
    match output.kind:
        case "classes":
            _check_classes(name, torch.unique(y).tolist(), output.size, noun)
        case "class probabilities":
            _check_classes(name, (y > 0).any(0).nonzero().flatten().tolist(), output.size, noun)
            if (y == y[0]).all():
                raise DataError(f"{name}: all labels of the training split are equal; there is nothing to learn")
        case "next token":
            if y.min() == y.max():
                raise DataError(f"{name}: every label is token {int(y[0, 0])}; there is nothing to learn")
        case "values":
            for k, column in enumerate(y.unbind(1)):
                if column.min() == column.max():
                    which = f"value {k} of every label" if output.size > 1 else "every label"
                    raise DataError(
                        f"{name}: in the training split {which} is {float(column[0]):g}; there is nothing to learn"
                    )


def _check_range(where: str, y: Tensor, size: int, what: str, of: str, mend: str) -> None:
    outside = y[(y < 0) | (y >= size)]
    if len(outside):
        raise DataError(f"{where} has {what} {int(outside[0])}, outside {of} 0 to {size - 1}; {mend}")


def _check_distributions(where: str, y: Tensor) -> None:
    sums = y.sum(1)
    wrong = ((y < 0).any(1) | ((sums - 1).abs() > OFF_ONE)).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{where}: the probabilities of label {first} go down to {float(y[first].min()):g} and add up to "
            f"{float(sums[first]):g}; make them 0 or more and their sum 1"
        )


def _check_classes(name: str, present: list[int], n_classes: int, noun: str) -> None:
    if len(present) < 2:
        raise DataError(f"{name}: the training split has a single class; a classifier needs two or more")
    if len(present) < n_classes:
        # a stray label of a million must not cost a million counters
        empty = next(c for c, label in enumerate([*present, n_classes]) if c != label)
        raise DataError(
            f"{name}: class {empty} has no {noun} in the training split; number the classes from 0 without "
            f"gaps and give each one several {plural(noun)}"
        )
