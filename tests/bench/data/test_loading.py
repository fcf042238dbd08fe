"""Sets of the catalogue: what they hold, how they are split, and what becomes of damaged files."""

import gzip
import hashlib
import os
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench import DataSetInfo
from bench.api.errors import ConfigError, DataError
from bench.data import Dataset, default_data_dir, load
from bench.data.cifar import CIFAR10, CIFAR100
from bench.data.digits import Digits
from bench.data.files import File, Published
from bench.data.idx import MNIST, IdxFiles
from bench.data.svhn import SVHN

SETS: dict[str, type[Published]] = {cls.info.name: cls for cls in (MNIST, CIFAR10, CIFAR100, SVHN)}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(Digits())


def test_digits_are_what_the_catalogue_says(digits: Dataset) -> None:
    info = Digits.info
    assert digits.input == info.given
    assert digits.output == info.wanted
    assert len(digits.train.y) + len(digits.val.y) == info.n_train
    assert len(digits.test.y) == info.n_test
    for x, y in (digits.train, digits.val, digits.test):
        assert (x.dtype, y.dtype) == (torch.uint8, torch.int64)
        assert set(y.tolist()) == set(range(10))


def test_the_17_grey_levels_of_digits_stay_apart_and_span_the_scale(digits: Dataset) -> None:
    levels = torch.cat([digits.train.x, digits.val.x, digits.test.x]).unique().tolist()
    assert levels == [round(v * 255 / 16) for v in range(17)]


def test_digits_and_their_splits_never_change(digits: Dataset) -> None:
    """A new value here means that no earlier result on digits can be compared with a later one."""
    assert digits.fingerprint == "70e61629cad803f827d1082c2122daa53c3a9b65333972cc183c1491966377fe"
    assert load(Digits()).fingerprint == digits.fingerprint


def test_the_test_split_does_not_depend_on_the_validation_fraction(digits: Dataset) -> None:
    whole = load(Digits(), val_fraction=0)
    assert torch.equal(whole.test.x, digits.test.x)
    assert len(whole.val.y) == 0
    assert len(whole.train.y) == 1437
    assert whole.fingerprint != digits.fingerprint


def test_statistics_are_those_of_train_alone(digits: Dataset) -> None:
    train = digits.train.x.double() / 255
    torch.testing.assert_close(digits.mean, train.mean((0, 2, 3)).float())
    torch.testing.assert_close(digits.std, train.std((0, 2, 3), correction=0).float())
    everything = torch.cat([digits.train.x, digits.val.x, digits.test.x]).double() / 255
    assert abs(everything.mean() - digits.mean) > 1e-5, "the comparison above can tell them apart"


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_an_impossible_validation_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="val_fraction"):
        load(Digits(), val_fraction=fraction)


def test_a_validation_fraction_that_empties_a_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"digits: class \d has no image in the training split"):
        load(Digits(), val_fraction=0.998)


def test_a_missing_set_is_not_downloaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Published, "fetch", lambda *_: pytest.fail("went to the network"))
    with pytest.raises(DataError, match="--download"):
        load(MNIST(), data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


# A set of the MNIST family, three images of 2x2 to train on and one to test on.
class Tiny(IdxFiles):
    info = DataSetInfo("tiny", "Tiny", image_shape=(1, 2, 2), n_classes=2, n_train=3, n_test=1, size="1 kB")
    torchvision = "Tiny"
    files = tuple(File(f"Tiny/raw/{name}", None, "0" * 32) for name in ("train-x", "train-y", "test-x", "test-y"))


def idx(*shape: int, start: int = 0) -> bytes:
    n = torch.Size(shape).numel()
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(range(start, start + n))


CONTENTS = {
    "Tiny/raw/train-x": idx(3, 2, 2),
    "Tiny/raw/train-y": idx(3),
    "Tiny/raw/test-x": idx(1, 2, 2, start=12),
    "Tiny/raw/test-y": idx(1),
}


def write_tiny(folder: Path) -> None:
    for name, content in CONTENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_idx_files_are_read_in_order(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    source = Tiny().read(tmp_path)
    assert source.train.x.tolist() == [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]], [[[8, 9], [10, 11]]]]
    assert source.train.y.tolist() == [0, 1, 2]
    assert source.test is not None
    assert source.test.x.tolist() == [[[[12, 13], [14, 15]]]]


@pytest.mark.parametrize(
    "content",
    [b"", CONTENTS["Tiny/raw/train-x"][:-1], CONTENTS["Tiny/raw/train-x"] + b"\0", idx(3, 4), idx(2, 2, 3)],
    ids=["empty", "short", "long", "two axes", "other shape"],
)
def test_a_damaged_idx_file_is_named(content: bytes, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "Tiny/raw/train-x").write_bytes(content)
    with pytest.raises(DataError, match=r"^tiny: .*Tiny/raw/train-x is damaged \(.*delete it") as caught:
        Tiny().read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_compressed_file_is_read_when_it_is_as_published_and_refused_when_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path)
    plain = tmp_path / "Tiny/raw/test-y"
    compressed = gzip.compress(plain.read_bytes())
    md5 = hashlib.md5(compressed, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(Tiny, "files", tuple(file._replace(gz_md5=md5) for file in Tiny.files))
    expected = Tiny().read(tmp_path)
    plain.unlink()

    Path(f"{plain}.gz").write_bytes(compressed)
    got = Tiny().read(tmp_path)
    assert got.test is not None
    assert expected.test is not None
    assert torch.equal(got.test.y, expected.test.y)

    Path(f"{plain}.gz").write_bytes(compressed[:-6])
    with pytest.raises(DataError, match=r"test-y\.gz is damaged \(md5"):
        Tiny().read(tmp_path)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_files_that_are_not_as_published_are_refused_and_left_alone(name: str, tmp_path: Path) -> None:
    """Refused before anything in them is unpickled, and not replaced even where downloads are allowed."""
    for file in SETS[name].files:
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.path).write_bytes(b"cos\nsystem\n(S'touch boom'\ntR.")
    line = rf"^{name}: .* is damaged \(md5 .*delete it, then add --download"
    with pytest.raises(DataError, match=line) as caught:
        load(SETS[name](), data_dir=tmp_path, download=True)
    assert "\n" not in str(caught.value)
    assert all((tmp_path / file.path).read_bytes().startswith(b"cos") for file in SETS[name].files)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny(tmp_path)
    real = Path.open

    def refuse(path: Path, *args: Any) -> Any:
        if path.name == "train-y":
            raise PermissionError(13, "Permission denied")
        return real(path, *args)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"cannot read .*train-y .Permission denied"):
        Tiny().read(tmp_path)


def test_svhn_images_stand_upright_and_its_label_10_is_the_digit_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files keep images as (H, W, C, N) and count classes from 1, so a small one is made by that rule."""
    from scipy.io import savemat
    from torchvision import datasets

    files, published = [], {}
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        x = np.zeros((32, 32, 3, 2), np.uint8)
        x[4, 7, 2, 1] = 200
        savemat(path, {"X": x, "y": np.array([[10], [3]], np.uint8)})
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        files.append(File(path.name, md5))
        published[part] = ["no url", path.name, md5]
    monkeypatch.setattr(datasets.SVHN, "split_list", published)
    monkeypatch.setattr(SVHN, "files", tuple(files))

    source = SVHN().read(tmp_path)
    assert source.train.y.tolist() == [0, 3]
    assert source.train.x.shape == (2, 3, 32, 32)
    assert source.train.x.nonzero().tolist() == [[1, 2, 4, 7]]


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
    """A `torchvision.datasets` whose one class writes its files, or breaks off half-way."""

    def download(root: Path, *, download: bool, train: bool) -> None:
        assert download
        write_tiny(root)
        if fails:
            raise OSError("connection\n  reset")

    datasets = SimpleNamespace(Tiny=download)
    monkeypatch.setattr("bench.data.files.torchvision_datasets", lambda name: datasets)


def test_a_download_brings_what_is_missing_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torchvision(monkeypatch)
    mine = tmp_path / "Tiny/raw/test-y"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    Tiny().fetch(tmp_path)
    assert mine.read_bytes() == b"mine"
    assert {path.name for path in mine.parent.iterdir()} == {"train-x", "train-y", "test-x", "test-y"}
    assert [path.name for path in tmp_path.iterdir()] == ["Tiny"], "nothing else stays behind"


def test_a_broken_download_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchvision(monkeypatch, fails=True)
    with pytest.raises(DataError, match=r"^tiny: download to .* failed: connection reset; try again$"):
        Tiny().fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def real(name: str) -> Path:
    """The user's data folder, where it holds the set; else the test is skipped and says why."""
    folder = default_data_dir()
    if not os.environ.get("BENCH_DATA") or SETS[name]().missing(folder):
        pytest.skip(f"BENCH_DATA does not hold {name}")
    return folder


# mean and std of the whole published training split, as papers quote them
QUOTED = {
    "mnist": ([0.1307], [0.3081]),
    "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
}


@pytest.mark.data
@pytest.mark.parametrize("name", QUOTED)
def test_real_sets_are_what_the_catalogue_says(name: str) -> None:
    info, data = SETS[name].info, load(SETS[name](), data_dir=real(name), val_fraction=0)
    assert data.input == info.given
    assert data.output == info.wanted
    assert len(data.train.y) == info.n_train
    assert len(data.test.y) == info.n_test
    mean, std = (torch.tensor(values) for values in QUOTED[name])
    torch.testing.assert_close(data.mean, mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(data.std, std, rtol=0, atol=1e-4)


@pytest.mark.data
def test_mnist_validation_is_stratified_and_never_changes() -> None:
    data = load(MNIST(), data_dir=real("mnist"))
    published = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    assert torch.equal(data.train.y.bincount() + data.val.y.bincount(), published)
    assert ((data.val.y.bincount() - published / 10).abs() < 1).all()
    assert data.fingerprint.startswith("f2ef6045da46")


@pytest.mark.data
def test_one_flipped_bit_in_mnist_is_found(tmp_path: Path) -> None:
    folder = real("mnist")
    shutil.copytree(folder / "MNIST", tmp_path / "MNIST")
    labels = next(tmp_path.glob("MNIST/raw/train-labels*"))
    content = bytearray(labels.read_bytes())
    content[5000] ^= 1
    labels.write_bytes(content)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.* is damaged"):
        load(MNIST(), data_dir=tmp_path)
