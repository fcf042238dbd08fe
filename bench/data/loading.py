"""From a name to a checked data set with fixed splits: read, check, split, measure."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bench.api.dataset import DataSet, Source, Split
from bench.api.errors import ConfigError
from bench.api.kinds import Input, Output
from bench.data.check import check_source
from bench.data.check_labels import check_train
from bench.data.dataset import Dataset
from bench.data.place import default_data_dir, require
from bench.data.recognise import NOUNS, recognised
from bench.data.split import draw
from bench.data.standard import statistics

TEST_FRACTION = 0.2


def load(
    dataset: DataSet, *, data_dir: Path | None = None, download: bool = False, val_fraction: float = 0.1
) -> Dataset:
    """A data set, in memory and checked.

    Validation is a fixed fraction of the published training split, none of it where val_fraction is 0. Where no test
    split is given, it is a fixed fifth, taken before that. Both are stratified by class, where there are classes.
    Values are standardised by the training split.

    Raises: ConfigError for an impossible fraction, DataError for what is missing, corrupt or mislabelled.
    """
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction is {val_fraction}; give a number from 0 to below 1")
    folder, name = data_dir or default_data_dir(), dataset.name
    if download and dataset.missing(folder) and not dataset.info.argument:
        dataset.fetch(folder)
    require(dataset, folder)

    source, given, output = recognised(dataset, dataset.read(folder))
    check_source(name, source, given, output)
    splits = _splits(source, val_fraction, output)
    check_train(name, splits[0].y, output, NOUNS[given.kind])
    fingerprint = _fingerprint(given, output, *splits)
    mean, std = statistics(splits[0].x)
    if output.kind == "values":
        output, splits = _standardised(output, *splits)
    return Dataset(name, given, output, *splits, mean, std, fingerprint)


def _splits(source: Source, val_fraction: float, output: Output) -> tuple[Split, Split, Split]:
    """Train, validation, test."""
    train, test, val = source.train, source.test, source.val
    if test is None:
        # never without a test example: an accuracy over none would be NaN
        train, test = _part(train, max(1, round(TEST_FRACTION * len(train.y))), output)
    if val is None:
        train, val = _part(train, round(val_fraction * len(train.y)), output)
    return train, val, test


def _part(split: Split, n: int, output: Output) -> tuple[Split, Split]:
    kept, drawn = draw(_strata(split.y, output), n)
    return split.take(kept), split.take(drawn)


def _strata(y: Tensor, output: Output) -> Tensor:
    """What each example counts as in stratified splits: its class, the most probable one, or one stratum for all."""
    match output.kind:
        case "classes":
            return y
        case "class probabilities":
            return y.argmax(1)
        case _:
            return torch.zeros(len(y), dtype=torch.int64)


def _standardised(output: Output, *splits: Split) -> tuple[Output, tuple[Split, Split, Split]]:
    """Values less their mean and divided by their standard deviation over the training split, which is first."""
    train, val, test = splits
    mean = train.y.double().mean(0)
    std = (train.y.double() - mean).square().mean(0).sqrt()

    def standardised(split: Split) -> Split:
        return split._replace(y=((split.y.double() - mean) / std).float())

    scaled = replace(output, scale=tuple(std.tolist()), offset=tuple(mean.tolist()))
    return scaled, (standardised(train), standardised(val), standardised(test))


def _fingerprint(given: Input, output: Output, *splits: Split) -> str:
    """Of all arrays; and of the kinds, where arrays alone leave them open."""
    digest = hashlib.sha256()
    for split in splits:
        for array in split:
            digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
            digest.update(array.contiguous().numpy().data)
    if given.kind == "tokens" or output.kind != "classes":
        digest.update(f"{given.vocabulary}{output.kind}{output.shape}".encode())
    return digest.hexdigest()
