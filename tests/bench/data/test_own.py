"""npz:PATH and imagefolder:PATH: what they accept, and one clear line for what they do not."""

import importlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.errors import DataError
from bench.data import Dataset, load
from bench.data.own import ImageFolder, Npz

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
    assert data.image_shape == (1, 6, 5)
    assert data.n_classes == 4
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
    assert a.image_shape == b.image_shape == (3, 6, 5)
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


def test_npz_train_and_test_share_one_scale(tmp_path: Path) -> None:
    """A test split whose floats happen to stay below 1 is dark, not on the other scale."""
    dark = np.ones((8, 6, 5))
    data = load_npz(tmp_path, x=GREY.astype(float), y=LABELS, x_test=dark, y_test=LABELS[:8])
    assert data.test.x.unique().tolist() == [1]


def test_val_fraction_zero_trains_on_everything(tmp_path: Path) -> None:
    data = load_npz(tmp_path, x=GREY, y=LABELS, x_test=GREY, y_test=LABELS)
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
        {"x": GREY, "y": LABELS, "x_test": GREY, "y_test": LABELS + 1},
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


def test_a_folder_is_not_an_npz(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a readable npz file"):
        load(Npz(str(tmp_path)))


def save_images(root: Path, per_class: int = 10, mode: str = "L", size: tuple[int, int] = (5, 6)) -> Path:
    """Two classes, told apart by their brightness: cats below 128, dogs from 128."""
    for low, folder in ((0, "cats"), (128, "dogs")):
        (root / folder).mkdir(parents=True)
        for i in range(per_class):
            pixels = RNG.integers(low, low + 128, (size[1], size[0]), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / folder / f"{i}.png")
    return root


def test_imagefolder_of_classes(tmp_path: Path) -> None:
    data = load(ImageFolder(str(save_images(tmp_path / "pets"))), val_fraction=0.25)
    assert data.image_shape == (1, 6, 5), "grey files stay grey"
    assert [len(split.y) for split in (data.train, data.val, data.test)] == [12, 4, 4]
    for x, y in (data.train, data.val, data.test):
        assert torch.equal(x.flatten(1).min(1).values >= 128, y == 1), "labels belong to their images"


def test_imagefolder_with_its_own_splits(tmp_path: Path) -> None:
    for part, n in (("train", 5), ("val", 2), ("test", 3)):
        save_images(tmp_path / "pets" / part, n, mode="RGB")
    data = load(ImageFolder(str(tmp_path / "pets")))
    assert data.image_shape == (3, 6, 5)
    assert [len(split.y) for split in (data.train, data.val, data.test)] == [10, 4, 6]


def test_imagefolder_of_grey_and_colour_files_is_colour(tmp_path: Path) -> None:
    root = save_images(tmp_path / "pets")
    colour = np.zeros((6, 5, 3), np.uint8)
    colour[:, :, 2] = 200
    Image.fromarray(colour).save(root / "cats" / "0.png")
    data = load(ImageFolder(str(root)), val_fraction=0)
    x = torch.cat([data.train.x, data.test.x])
    assert x.shape[1:] == (3, 6, 5)
    blue = x[(x[:, 0] == 0).flatten(1).all(1)]
    assert blue[0].amax((1, 2)).tolist() == [0, 0, 200], "channels come first, in the order red, green, blue"


def test_imagefolder_names_the_image_of_another_size(tmp_path: Path) -> None:
    root = save_images(tmp_path / "pets")
    Image.new("L", (7, 6)).save(root / "dogs" / "odd.png")
    with pytest.raises(DataError, match=r"odd\.png is 7x6 pixels, but .* is 5x6; resize"):
        load(ImageFolder(str(root)))


@pytest.mark.parametrize("content", [b"", b"no picture", "truncated"], ids=["empty", "text", "truncated"])
def test_imagefolder_names_the_damaged_image(content: bytes | str, tmp_path: Path) -> None:
    path = save_images(tmp_path / "pets", size=(50, 60)) / "dogs" / "3.png"
    path.write_bytes(path.read_bytes()[:900] if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"cannot read image .*dogs/3.png"):
        load(ImageFolder(str(tmp_path / "pets")))


def test_imagefolder_refuses_more_than_8_bits(tmp_path: Path) -> None:
    root = save_images(tmp_path / "pets")
    Image.fromarray(np.full((6, 5), 40_000, np.uint16)).save(root / "dogs" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png has more than 8 bits"):
        load(ImageFolder(str(root)))


def test_imagefolder_refuses_splits_with_different_classes(tmp_path: Path) -> None:
    save_images(tmp_path / "pets" / "train")
    save_images(tmp_path / "pets" / "test")
    (tmp_path / "pets" / "test" / "cats").rename(tmp_path / "pets" / "test" / "eels")
    with pytest.raises(DataError, match="class folder cats is not in both train/ and test/"):
        load(ImageFolder(str(tmp_path / "pets")))


def test_imagefolder_with_an_empty_class_gives_one_line(tmp_path: Path) -> None:
    (save_images(tmp_path / "pets") / "newts").mkdir()
    with pytest.raises(DataError, match="newts") as caught:
        load(ImageFolder(str(tmp_path / "pets")))
    assert "\n" not in str(caught.value)


def test_without_torchvision_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def lacking(name: str, *args: Any) -> Any:
        if name.startswith("torchvision"):
            raise ModuleNotFoundError("No module named 'torchvision'")
        return real(name, *args)

    monkeypatch.setattr("bench.data.files.import_module", lacking)
    with pytest.raises(DataError, match=r"needs torchvision.*pip install torchvision"):
        load(ImageFolder(str(save_images(tmp_path / "pets"))))
