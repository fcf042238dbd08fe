"""Read the sets of the catalogue as published; only `fetch` touches the network.

No file of the user's is ever replaced: damage is reported, and mending it is left to them.
"""

import gzip
import hashlib
import math
import os
import struct
from collections.abc import Iterator
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.catalog import DatasetInfo, locate
from bench.data.dataset import Source, Split
from bench.data.split import draw
from bench.errors import DataError


def read_published(info: DatasetInfo, folder: Path) -> Source:
    """A set of the catalogue, its files in `folder` checked against their published checksums.

    Raises: DataError.
    """
    if not info.files:
        return _read_digits(info)
    paths = _verified(info, folder)
    return _read_idx(info, paths) if info.files[0].gz_md5 else _read_torchvision(info, folder)


def fetch(info: DatasetInfo, folder: Path) -> None:
    """Download what is missing; a broken download leaves nothing behind.

    Raises: DataError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".download-") as scratch:
            for _ in _torchvision_parts(info, Path(scratch), download=True):
                pass
            for file, path in locate(info, folder):
                if path is None:
                    (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(Path(scratch, file.path), folder / file.path)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{info.name}: download to {folder} failed: {reason}; try again") from error


def torchvision_datasets(name: str) -> Any:
    """torchvision's data sets, which the other sets do without: its import takes a second or fails where the
    wheel does not match torch's.

    Raises: DataError.
    """
    try:
        return import_module("torchvision.datasets")
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} needs torchvision, which cannot be imported ({reason}); "
            "install the torchvision that belongs to your torch: pip install torchvision"
        ) from error


def _verified(info: DatasetInfo, folder: Path) -> list[Path]:
    paths = []
    for file, path in locate(info, folder):
        assert path is not None, "the caller has seen to it that all files are there"
        want = file.gz_md5 if path.suffix == ".gz" else file.md5
        try:
            with path.open("rb") as stream:
                md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        except OSError as error:
            raise DataError(f"{info.name}: cannot read {path} ({error.strerror}); allow it") from error
        if want and md5 != want:
            raise _damaged(info, path, f"md5 {md5}, published {want}")
        paths.append(path)
    return paths


def _damaged(info: DatasetInfo, path: Path, why: str) -> DataError:
    return DataError(f"{info.name}: {path} is damaged ({why}); delete it, then add --download")


def _read_digits(info: DatasetInfo) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # 17 grey levels, 0..16, spread over 0..255
    x = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    everything = Split(x, torch.from_numpy(digits.target.astype(np.int64)))
    train, test = draw(everything.y, info.n_test)
    return Source(info.n_classes, everything.take(train), everything.take(test))


def _read_idx(info: DatasetInfo, paths: list[Path]) -> Source:
    """The four IDX files of the MNIST family.

    torchvision's reader takes neither the compressed files as published nor short ones without an assertion.
    """
    train, test = (info.n_train, *info.image_shape), (info.n_test, *info.image_shape)
    train_x, train_y, test_x, test_y = (
        _idx_array(info, path, shape) for path, shape in zip(paths, (train, train[:1], test, test[:1]), strict=True)
    )
    return Source(info.n_classes, Split(train_x, train_y.long()), Split(test_x, test_y.long()))


def _idx_array(info: DatasetInfo, path: Path, shape: tuple[int, ...]) -> Tensor:
    """Shape: (N,) for labels and (N, 1, H, W) for images, which the file keeps as (N, H, W)."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    dims = shape if len(shape) == 1 else (shape[0], *shape[2:])
    unsigned_bytes = 8
    header = struct.pack(f">HBB{len(dims)}I", 0, unsigned_bytes, len(dims), *dims)
    if not data.startswith(header) or len(data) != len(header) + math.prod(dims):
        raise _damaged(info, path, f"not an IDX file of {' x '.join(map(str, dims))} bytes")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape).copy())


def _read_torchvision(info: DatasetInfo, folder: Path) -> Source:
    train, test = (_as_split(part) for part in _torchvision_parts(info, folder, download=False))
    return Source(info.n_classes, train, test)


def _torchvision_parts(info: DatasetInfo, folder: Path, *, download: bool) -> Iterator[Any]:
    part = getattr(torchvision_datasets(info.name), info.torchvision)
    for train in (True, False):
        # SVHN knows three splits and names them
        which = {"split": "train" if train else "test"} if info.torchvision == "SVHN" else {"train": train}
        yield part(folder, download=download, **which)


def _as_split(part: Any) -> Split:
    is_svhn = hasattr(part, "labels")
    x = part.data if is_svhn else part.data.transpose(0, 3, 1, 2)
    y = np.asarray(part.labels if is_svhn else part.targets, dtype=np.int64)
    return Split(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y))
