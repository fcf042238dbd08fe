"""npz:PATH: what it accepts, and one clear line for what it does not."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.api.errors import DataError
from bench.data import Dataset, load
from bench.data.own import Npz

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
LABELS = np.arange(40) % 4


def load_npz(folder: Path, **arrays: Any) -> Dataset:
    np.savez(folder / "mine.npz", **arrays)
    return load(Npz(str(folder / "mine.npz")), val_fraction=0)


def everything(data: Dataset) -> torch.Tensor:
    """All images in the order of their first pixels, which the random examples have all different."""
    x = torch.cat([data.train.x, data.val.x, data.test.x]).flatten(1)
    return x[np.lexsort(x.T.numpy())]


def in_order(x: np.ndarray) -> torch.Tensor:
    flat = x.reshape(len(x), -1)
    return torch.from_numpy(flat[np.lexsort(flat.T)])


def test_npz_without_a_test_split_gives_a_fifth_of_each_class(tmp_path: Path) -> None:
    data = load_npz(tmp_path, x=GREY, y=LABELS)
    assert data.input.shape == (1, 6, 5)
    assert data.output.size == 4
    assert data.test.y.bincount().tolist() == [2, 2, 2, 2]
    assert data.train.y.bincount().tolist() == [8, 8, 8, 8]
    assert torch.equal(everything(data), in_order(GREY))


def test_npz_keeps_a_test_split_of_its_own(tmp_path: Path) -> None:
    data = load_npz(tmp_path, x=GREY[:30], y=LABELS[:30], x_test=GREY[30:], y_test=LABELS[30:])
    assert torch.equal(data.train.x[:, 0], torch.from_numpy(GREY[:30]))
    assert torch.equal(data.test.x[:, 0], torch.from_numpy(GREY[30:]))
    assert data.test.y.tolist() == LABELS[30:].tolist()


def test_npz_takes_channels_first_or_last(tmp_path: Path) -> None:
    first = RNG.integers(0, 256, (40, 3, 6, 5), dtype=np.uint8)
    a = load_npz(tmp_path, x=first, y=LABELS)
    b = load_npz(tmp_path, x=first.transpose(0, 2, 3, 1), y=LABELS)
    assert a.input.shape == b.input.shape == (3, 6, 5)
    assert torch.equal(a.train.x, b.train.x)
    assert a.fingerprint == b.fingerprint


@pytest.mark.parametrize(
    "x",
    [
        GREY.astype(np.int64),
        GREY.astype(np.float64),
        GREY.astype(np.float32) / 255,
        (GREY / 255).astype(np.float16),
    ],
    ids=["int64", "float 0..255", "float32 0..1", "float16 0..1"],
)
def test_npz_pixels_of_any_type_become_the_same_bytes(x: np.ndarray, tmp_path: Path) -> None:
    assert torch.equal(everything(load_npz(tmp_path, x=x, y=LABELS)), in_order(GREY))


def test_npz_keeps_a_validation_split_of_its_own(tmp_path: Path) -> None:
    data = load_npz(tmp_path, x=GREY[:30], y=LABELS[:30], x_val=GREY[30:], y_val=LABELS[30:])
    assert torch.equal(data.val.x[:, 0], torch.from_numpy(GREY[30:]))
    assert data.val.y.tolist() == LABELS[30:].tolist()
    assert len(data.train.y) + len(data.test.y) == 30


def test_val_fraction_zero_trains_on_everything(tmp_path: Path) -> None:
    data = load_npz(tmp_path, x=GREY, y=LABELS, x_test=GREY[::-1], y_test=LABELS)
    assert data.val.x.shape == (0, 1, 6, 5)
    assert len(data.train.y) == 40


def test_a_constant_channel_is_not_divided_by_zero(tmp_path: Path) -> None:
    x = np.stack([GREY, np.full_like(GREY, 255)], axis=1)
    data = load_npz(tmp_path, x=x, y=LABELS)
    assert data.std[1] == 1
    assert data.mean[1] == 1
    assert 0 < data.std[0] < 1


FLOATS = GREY.astype(float)
WITH_NAN = np.where(np.arange(40)[:, None, None] == 7, np.nan, FLOATS)
WITH_INF = np.where(np.arange(40)[:, None, None] == 7, np.inf, FLOATS)

BAD_ARRAYS = {
    "no y": ({"x": GREY}, "no array y"),
    "keras names": ({"x_train": GREY, "y_train": LABELS}, "no array x .arrays held: x_train, y_train"),
    "half a test split": ({"x": GREY, "y": LABELS, "x_test": GREY}, "no array y_test"),
    "empty": ({"x": GREY[:0], "y": LABELS[:0]}, "x is empty"),
    "objects": ({"x": np.array([None, 1]), "y": LABELS}, "not a readable npz.*allow_pickle"),
    "text": ({"x": np.array(["a"] * 40), "y": LABELS}, "type <U1"),
    "nan": ({"x": WITH_NAN, "y": LABELS}, "NaN or infinite"),
    "inf": ({"x": WITH_INF, "y": LABELS}, "NaN or infinite"),
    "standardised": ({"x": FLOATS / 100 - 1, "y": LABELS}, "values from -1 to"),
    "16 bits": ({"x": GREY.astype(np.uint16) * 256, "y": LABELS}, "values from 0 to"),
    "two scales": ({"x": GREY, "y": LABELS, "x_test": FLOATS / 255, "y_test": LABELS}, "store both alike"),
    "two scales of integers": (
        {"x": GREY, "y": LABELS, "x_test": (GREY > 127).astype(np.uint8), "y_test": LABELS},
        "x_test goes up to 1, x to 255, which looks like two scales",
    ),
    "two scales of floats": (
        {"x": FLOATS, "y": LABELS, "x_val": FLOATS / 255, "y_val": LABELS},
        "x_val goes up to 1, x to 255, which looks like two scales",
    ),
    "another scale": ({"x": FLOATS / 100, "y": LABELS}, "fractions, and values above 1"),
    "few levels": ({"x": FLOATS / 25_500, "y": LABELS}, "from 0 to 0.01, 256 levels from 0 to 1 leave 4"),
    "a narrow range": ({"x": 0.5 + FLOATS / 2550, "y": LABELS}, "from 0.5 to 0.6, 256 levels from 0 to 1 leave 2"),
    "one image": ({"x": GREY[:1].repeat(40, 0), "y": LABELS}, "all .* images are the same"),
    "test is train": ({"x": GREY, "y": LABELS, "x_test": GREY, "y_test": LABELS}, "test images are the train images"),
    "one value": ({"x": np.full_like(GREY, 7), "y": LABELS}, "every pixel is 7"),
    "one value in test": (
        {"x": GREY, "y": LABELS, "x_test": np.full_like(GREY, 255), "y_test": LABELS},
        "test: every pixel is 255",
    ),
    "half a validation split": ({"x": GREY, "y": LABELS, "y_val": LABELS}, "no array x_val"),
    "an array too many": ({"x": GREY, "y": LABELS, "x_valid": GREY}, "nothing reads the array x_valid"),
    "a huge label": ({"x": GREY, "y": np.full(40, 2**64 - 1, np.uint64)}, "label 18446744073709551615"),
    "flat images": ({"x": GREY.reshape(40, 30), "y": LABELS}, r"shape \(40, 30\)"),
    "either axis": ({"x": np.zeros((40, 3, 9, 3), np.uint8), "y": LABELS}, "both the second and the last"),
    "neither axis": (
        {"x": np.zeros((40, 9, 9, 9), np.uint8), "y": LABELS},
        "neither the second nor the last",
    ),
    "no pixels": ({"x": np.zeros((40, 0, 5), np.uint8), "y": LABELS}, "x is empty"),
    "lengths": ({"x": GREY, "y": LABELS[:-1]}, "40 images but 39 labels"),
    "one-hot labels": ({"x": GREY, "y": np.eye(4)[LABELS]}, "one integer per image"),
    "float labels": ({"x": GREY, "y": LABELS.astype(float)}, "one integer per image"),
    "negative label": ({"x": GREY, "y": LABELS - 1}, "label -1"),
    "unknown test label": (
        {"x": GREY, "y": LABELS, "x_test": GREY[::-1], "y_test": LABELS + 1},
        "test has label 4, outside the classes 0 to 3",
    ),
    "test of another size": (
        {"x": GREY, "y": LABELS, "x_test": GREY[:, :, :4], "y_test": LABELS},
        r"test images are \(1, 6, 4\), train images \(1, 6, 5\)",
    ),
    "labels from 1": ({"x": GREY, "y": LABELS + 1}, "class 0 has no image in the training split"),
    "gap": ({"x": GREY, "y": np.where(LABELS == 2, 10**12, LABELS)}, "class 2 has no image"),
    "single class": ({"x": GREY, "y": LABELS * 0}, "single class"),
}


@pytest.mark.parametrize(("arrays", "line"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_give_one_line(arrays: dict[str, np.ndarray], line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=line) as caught:
        load_npz(tmp_path, **arrays)
    assert str(caught.value).startswith(f"npz:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value), "the mend stands after the semicolon"


def test_a_damaged_npz_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, x=GREY, y=LABELS)
    whole = path.read_bytes()
    damaged = {
        "nothing": b"",
        "text": b"not an array",
        "truncated": whole[: len(whole) // 2],
        "flipped": whole[:200] + bytes([whole[200] ^ 255]) + whole[201:],
    }
    for content in damaged.values():
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable npz file") as caught:
            load(Npz(str(path)))
        assert "\n" not in str(caught.value)


def test_an_npz_member_that_is_no_array_gives_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00nonsense")
        archive.writestr("y.npy", b"hello")
    with pytest.raises(DataError, match=r"mine\.npz"):
        load(Npz(str(path)))


def test_a_single_npy_array_is_not_an_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", GREY)
    with pytest.raises(DataError, match="no array x"):
        load(Npz(str(tmp_path / "x.npy")))


def test_an_npz_that_claims_more_than_the_memory_gives_one_line(tmp_path: Path) -> None:
    """10 TB by its header, a few bytes in fact: refused before anything is allocated."""
    path = tmp_path / "mine.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**10, 32, 32)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", b"")
    with pytest.raises(DataError, match=r"needs 9.54e\+03 GiB of memory, and this machine has"):
        load(Npz(str(path)))


def test_a_pickle_is_not_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(pickle.dumps({"x": GREY, "y": LABELS}))
    with pytest.raises(DataError, match="not a readable npz file"):
        load(Npz(str(path)))


def test_an_npz_member_without_numpy_s_magic_gives_one_line(tmp_path: Path) -> None:
    held = io.BytesIO()
    np.save(held, LABELS)
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("x.npy", b"hello")
        archive.writestr("y.npy", held.getvalue())
    with pytest.raises(DataError, match="x is no array"):
        load(Npz(str(tmp_path / "mine.npz")))


def test_a_folder_is_not_an_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable npz file"):
        load(Npz(str(tmp_path)))
