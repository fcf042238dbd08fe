"""The data sets that the suite knows by name, and where their files lie; free of torch for `bench list`.

A user's own data needs no entry: `npz:PATH` and `imagefolder:PATH` are names too.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.errors import ConfigError, DataError, unknown

OWN_KINDS = ("npz", "imagefolder")


class File(NamedTuple):
    """A file below the data folder; where it is absent, `path`.gz, the form that some publishers chose.

    md5 is None where only the compressed form has a published checksum.
    """

    path: str
    md5: str | None
    gz_md5: str | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """A data set's identity card.

    image_shape is (C, H, W). n_train and n_test count images as published: validation is drawn from n_train.
    size is that of the download. torchvision names the class that downloads it; digits has none.
    """

    name: str
    title: str
    image_shape: tuple[int, int, int]
    n_classes: int
    n_train: int
    n_test: int
    source: str
    size: str
    torchvision: str = ""
    files: tuple[File, ...] = ()


def _idx_files(folder: str, *checksums: tuple[str | None, str]) -> tuple[File, ...]:
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    return tuple(File(f"{folder}/raw/{name}", *md5s) for name, md5s in zip(names, checksums, strict=True))


_ALL = (
    DatasetInfo(
        name="digits",
        title="Optical recognition of handwritten digits",
        image_shape=(1, 8, 8),
        n_classes=10,
        n_train=1437,
        n_test=360,
        source="Alpaydin & Kaynak 1998, UCI Machine Learning Repository, doi:10.24432/C50P49",
        size="embedded in scikit-learn",
    ),
    DatasetInfo(
        name="mnist",
        title="MNIST handwritten digits",
        image_shape=(1, 28, 28),
        n_classes=10,
        n_train=60_000,
        n_test=10_000,
        source="LeCun et al. 1998, Gradient-based learning applied to document recognition",
        size="12 MB",
        torchvision="MNIST",
        files=_idx_files(
            "MNIST",
            ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
            ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
            ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
        ),
    ),
    DatasetInfo(
        name="fashion-mnist",
        title="Fashion-MNIST articles of clothing",
        image_shape=(1, 28, 28),
        n_classes=10,
        n_train=60_000,
        n_test=10_000,
        source="Xiao, Rasul & Vollgraf 2017, Fashion-MNIST, arXiv:1708.07747",
        size="31 MB",
        torchvision="FashionMNIST",
        files=_idx_files(
            "FashionMNIST",
            (None, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            (None, "25c81989df183df01b3e8a0aad5dffbe"),
            (None, "bef4ecab320f06d8554ea6380940ec79"),
            (None, "bb300cfdad3c16e7a12a480ee83cd310"),
        ),
    ),
    DatasetInfo(
        name="kmnist",
        title="Kuzushiji-MNIST cursive Japanese characters",
        image_shape=(1, 28, 28),
        n_classes=10,
        n_train=60_000,
        n_test=10_000,
        source="Clanuwat et al. 2018, Deep learning for classical Japanese literature, arXiv:1812.01718",
        size="21 MB",
        torchvision="KMNIST",
        files=_idx_files(
            "KMNIST",
            (None, "bdb82020997e1d708af4cf47b453dcf7"),
            (None, "e144d726b3acfaa3e44228e80efcd344"),
            (None, "5c965bf0a639b31b8f53240b1b52f4d7"),
            (None, "7320c461ea6c1c855c0b718fb2a4b134"),
        ),
    ),
    DatasetInfo(
        name="cifar10",
        title="CIFAR-10 natural images",
        image_shape=(3, 32, 32),
        n_classes=10,
        n_train=50_000,
        n_test=10_000,
        source="Krizhevsky 2009, Learning multiple layers of features from tiny images",
        size="170 MB",
        torchvision="CIFAR10",
        files=(
            File("cifar-10-batches-py/batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
            File("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
            File("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            File("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            File("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
            File("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
            File("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),
        ),
    ),
    DatasetInfo(
        name="cifar100",
        title="CIFAR-100 natural images, fine labels",
        image_shape=(3, 32, 32),
        n_classes=100,
        n_train=50_000,
        n_test=10_000,
        source="Krizhevsky 2009, Learning multiple layers of features from tiny images",
        size="169 MB",
        torchvision="CIFAR100",
        files=(
            File("cifar-100-python/meta", "7973b15100ade9c7d40fb424638fde48"),
            File("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),
            File("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        ),
    ),
    DatasetInfo(
        name="svhn",
        title="Street View House Numbers, cropped digits",
        image_shape=(3, 32, 32),
        n_classes=10,
        n_train=73_257,
        n_test=26_032,
        source="Netzer et al. 2011, Reading digits in natural images with unsupervised feature learning",
        size="246 MB",
        torchvision="SVHN",
        files=(
            File("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
            File("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
        ),
    ),
)

CATALOG = {info.name: info for info in _ALL}


def default_data_dir() -> Path:
    """$BENCH_DATA, or the folder where this platform keeps a user's application data."""
    if chosen := os.environ.get("BENCH_DATA"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "backprop-free-bench"


def check_name(name: str) -> None:
    """Refuse a name that no loader answers to.

    Raises: ConfigError.
    """
    kind, colon, path = name.partition(":")
    if colon and kind in OWN_KINDS:
        if not path:
            raise ConfigError(f"data set '{name}' lacks its path; write {kind}:PATH")
    elif name not in CATALOG:
        known = [*CATALOG, *(f"{kind}:PATH" for kind in OWN_KINDS)]
        raise ConfigError(unknown("data set", name, known))


def own_path(name: str) -> Path | None:
    """The path in `npz:PATH` or `imagefolder:PATH`; None for a set of the catalogue."""
    kind, colon, path = name.partition(":")
    # the shell leaves a ~ after a colon alone
    return Path(path).expanduser() if colon and kind in OWN_KINDS else None


def locate(info: DatasetInfo, folder: Path) -> Iterator[tuple[File, Path | None]]:
    """Each file of a set with the path that holds it: unpacked, else compressed, else None."""
    for file in info.files:
        forms = [folder / file.path, *([folder / f"{file.path}.gz"] if file.gz_md5 else [])]
        yield file, next((form for form in forms if form.is_file()), None)


def found(name: str, data_dir: Path | None = None) -> bool:
    """Whether every file of a data set is on disk; says nothing of what is in them."""
    if path := own_path(name):
        return path.exists()
    return all(path for _, path in locate(CATALOG[name], data_dir or default_data_dir()))


def require(name: str, data_dir: Path | None = None) -> None:
    """Say in one line what is missing, where it was sought and how to get it.

    Raises: DataError.
    """
    if found(name, data_dir):
        return
    if path := own_path(name):
        raise DataError(f"{name}: no such file or folder: {path.absolute()}; check the path")
    folder, info = data_dir or default_data_dir(), CATALOG[name]
    missing = [file.path for file, path in locate(info, folder) if path is None]
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    raise DataError(
        f"{name} is not in {folder} (missing {missing[0]}{more}); "
        f"add --download ({info.size}) or name the folder that holds it with --data-dir"
    )
