"""From a name to a checked data set with fixed splits: read, check, split, measure."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from bench.api.dataset import DataSet, Source, Split
from bench.api.errors import ConfigError
from bench.api.kinds import Input, Output
from bench.data.check import check_source, check_train
from bench.data.dataset import Dataset
from bench.data.place import default_data_dir, require
from bench.data.split import draw

TEST_FRACTION = 0.2


def load(
    dataset: DataSet, *, data_dir: Path | None = None, download: bool = False, val_fraction: float = 0.1
) -> Dataset:
    """A data set, in memory and checked.

    Validation is a fixed stratified fraction of the published training split, none of it where val_fraction
    is 0. Where no test split is given, it is a fixed stratified fifth, taken before that.

    Raises: ConfigError for an impossible fraction, DataError for what is missing, corrupt or mislabelled.
    """
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction is {val_fraction}; give a number from 0 to below 1")
    folder, name = data_dir or default_data_dir(), dataset.name
    if download and dataset.missing(folder) and not dataset.info.argument:
        dataset.fetch(folder)
    require(dataset, folder)

    source = dataset.read(folder)
    check_source(name, source)
    train, val, test = _splits(source, val_fraction)
    output = source.output if isinstance(source.output, Output) else Output.classes(source.output)
    check_train(name, train.y, output.size)
    mean, std = _statistics(train.x)
    given = Input("image", tuple(train.x.shape[1:]))
    return Dataset(name, given, output, train, val, test, mean, std, _fingerprint(train, val, test))


def _splits(source: Source, val_fraction: float) -> tuple[Split, Split, Split]:
    train, test, val = source.train, source.test, source.val
    if test is None:
        # never without a test image: an accuracy over none would be NaN
        train, test = _part(train, max(1, round(TEST_FRACTION * len(train.y))))
    if val is None:
        train, val = _part(train, round(val_fraction * len(train.y)))
    return train, val, test


def _part(split: Split, n: int) -> tuple[Split, Split]:
    kept, drawn = draw(split.y, n)
    return split.take(kept), split.take(drawn)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel on the 0..1 scale, from exact counts of the 256 levels.

    Shape: (N, C, H, W) uint8 to (C,) and (C,) float32.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)])
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = share @ levels
    std = (share * (levels - mean[:, None]).square()).sum(1).sqrt()
    # a constant channel carries nothing; divided by 1 it comes out as 0 instead of NaN
    constant = (counts > 0).sum(1) == 1
    return mean.float(), std.masked_fill(constant, 1.0).float()


def _fingerprint(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for array in split:
            digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
            digest.update(array.contiguous().numpy().data)
    return digest.hexdigest()
