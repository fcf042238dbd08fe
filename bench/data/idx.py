"""MNIST and those that came after it in the same form: four IDX files each, unpacked or compressed.

torchvision's reader takes neither the compressed files as published nor short ones without an assertion.
"""

import gzip
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from bench.api.dataset import DataSetInfo, Source, Split
from bench.catalog.register import register
from bench.data.files import File, Published

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
UNSIGNED_BYTES = 8


def idx_files(folder: str, *checksums: tuple[str | None, str]) -> tuple[File, ...]:
    return tuple(File(f"{folder}/raw/{name}", *md5s) for name, md5s in zip(NAMES, checksums, strict=True))


class IdxFiles(Published):
    def read(self, folder: Path) -> Source:
        info, paths = self.info, self.verified(folder)
        assert info.image_shape is not None
        assert info.n_train is not None
        assert info.n_test is not None
        assert info.n_classes is not None
        train, test = (info.n_train, *info.image_shape), (info.n_test, *info.image_shape)
        train_x, train_y, test_x, test_y = (
            self._array(path, shape) for path, shape in zip(paths, (train, train[:1], test, test[:1]), strict=True)
        )
        return Source(info.n_classes, Split(train_x, train_y.long()), Split(test_x, test_y.long()))

    def _array(self, path: Path, shape: tuple[int, ...]) -> "Tensor":
        """Shape: (N,) for labels and (N, 1, H, W) for images, which the file keeps as (N, H, W)."""
        import numpy as np
        import torch

        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        dims = shape if len(shape) == 1 else (shape[0], *shape[2:])
        header = struct.pack(f">HBB{len(dims)}I", 0, UNSIGNED_BYTES, len(dims), *dims)
        if not data.startswith(header) or len(data) != len(header) + math.prod(dims):
            raise self.damaged(path, f"not an IDX file of {' x '.join(map(str, dims))} bytes")
        return torch.from_numpy(np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape).copy())


@register
class MNIST(IdxFiles):
    info = DataSetInfo(
        name="mnist",
        title="MNIST handwritten digits",
        image_shape=(1, 28, 28),
        n_classes=10,
        n_train=60_000,
        n_test=10_000,
        source="LeCun et al. 1998, Gradient-based learning applied to document recognition",
        paper="lecun1998gradient",
        size="12 MB",
    )
    torchvision = "MNIST"
    files = idx_files(
        "MNIST",
        ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
        ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
        ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
    )


@register
class FashionMNIST(IdxFiles):
    info = DataSetInfo(
        name="fashion-mnist",
        title="Fashion-MNIST articles of clothing",
        image_shape=(1, 28, 28),
        n_classes=10,
        n_train=60_000,
        n_test=10_000,
        source="Xiao, Rasul & Vollgraf 2017, Fashion-MNIST, arXiv:1708.07747",
        paper="xiao2017fashion",
        size="31 MB",
    )
    torchvision = "FashionMNIST"
    files = idx_files(
        "FashionMNIST",
        (None, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        (None, "25c81989df183df01b3e8a0aad5dffbe"),
        (None, "bef4ecab320f06d8554ea6380940ec79"),
        (None, "bb300cfdad3c16e7a12a480ee83cd310"),
    )


@register
class KMNIST(IdxFiles):
    info = DataSetInfo(
        name="kmnist",
        title="Kuzushiji-MNIST cursive Japanese characters",
        image_shape=(1, 28, 28),
        n_classes=10,
        n_train=60_000,
        n_test=10_000,
        source="Clanuwat et al. 2018, Deep learning for classical Japanese literature, arXiv:1812.01718",
        paper="clanuwat2018deep",
        size="21 MB",
    )
    torchvision = "KMNIST"
    files = idx_files(
        "KMNIST",
        (None, "bdb82020997e1d708af4cf47b453dcf7"),
        (None, "e144d726b3acfaa3e44228e80efcd344"),
        (None, "5c965bf0a639b31b8f53240b1b52f4d7"),
        (None, "7320c461ea6c1c855c0b718fb2a4b134"),
    )
