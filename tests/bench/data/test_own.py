"""npz:PATH and imagefolder:PATH: what they accept, and one clear line for what they do not."""

import io
import os
import pickle
import struct
import zipfile
import zlib
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


def test_a_thicket_of_links_is_refused_at_once(tmp_path: Path) -> None:
    """25 folders, each with two links to the next: 2^24 ways to the last."""
    root = save_images(tmp_path / "pets")
    for k in range(25):
        (root / "cats" / f"l{k}").mkdir()
    for k in range(24):
        for name in "xy":
            (root / "cats" / f"l{k}" / name).symlink_to(root / "cats" / f"l{k + 1}")
    with pytest.raises(DataError, match="lies below more than 20 folders"):
        load(ImageFolder(str(root)))


@pytest.mark.parametrize("kind", [Npz, ImageFolder])
def test_a_pipe_is_not_waited_for(kind: type[Npz], tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    if kind is ImageFolder:
        path = save_images(tmp_path / "pets") / "cats" / "pipe.png"
    os.mkfifo(path)
    with pytest.raises(DataError, match="no regular file|neither a file nor a folder"):
        load(kind(str(path if kind is Npz else tmp_path / "pets")))


@pytest.mark.parametrize("kind", [Npz, ImageFolder])
def test_a_home_of_nobody_gives_one_line(kind: type[Npz]) -> None:
    with pytest.raises(DataError, match="there is no such user; write the path in full"):
        load(kind("~nobody-of-that-name/data"))


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
    assert data.input.shape == (1, 6, 5), "grey files stay grey"
    assert [len(split.y) for split in (data.train, data.val, data.test)] == [12, 4, 4]
    for x, y in (data.train, data.val, data.test):
        assert torch.equal(x.flatten(1).min(1).values >= 128, y == 1), "labels belong to their images"


def test_imagefolder_with_its_own_splits(tmp_path: Path) -> None:
    for part, n in (("train", 5), ("val", 2), ("test", 3)):
        save_images(tmp_path / "pets" / part, n, mode="RGB")
    data = load(ImageFolder(str(tmp_path / "pets")))
    assert data.input.shape == (3, 6, 5)
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


def png_of_16_bits(channels: int) -> bytes:
    """A PNG of 6 x 5 pixels with two bytes a channel, as a camera of 10 bits gives: the low byte tells all."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    row = b"\0" + np.arange(5 * channels, dtype=">u2").tobytes()
    header = struct.pack(">IIBBBBB", 5, 6, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 6)) + chunk(b"IEND", b"")


def tiff_of_16_bits() -> bytes:
    """An RGB TIFF of 5 x 6 pixels, uncompressed, with two bytes a channel."""
    data = np.arange(90, dtype="<u2").tobytes()
    bits = 8 + len(data)
    tags = [(256, 3, 1, 5), (257, 3, 1, 6), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
            (277, 3, 1, 3), (278, 3, 1, 6), (279, 4, 1, len(data))]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", bits + 6)
    return head + data + struct.pack("<HHH", 16, 16, 16) + struct.pack("<H", len(tags)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        *((f"png of {n}", png_of_16_bits(n)) for n in (1, 2, 3, 4)),
        ("tiff", tiff_of_16_bits()),
        ("ppm", b"P6 5 6 65535\n" + bytes(180)),
        ("pgm", b"P5 5 6 1023\n" + bytes(60)),
        ("tif of floats", None),
    ],
)
def test_imagefolder_refuses_more_than_8_bits(ending: str, content: bytes | None, tmp_path: Path) -> None:
    """Pillow would read these, and keep the high byte alone."""
    path = save_images(tmp_path / "pets") / "dogs" / f"deep.{ending.split()[0]}"
    if content is None:
        Image.fromarray(np.full((6, 5), 0.5, np.float32)).save(path, "TIFF")
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"deep\.\w+ has more than 8 bits"):
        load(ImageFolder(str(tmp_path / "pets")))


def test_imagefolder_refuses_transparency(tmp_path: Path) -> None:
    """An icon whose drawing is in its alpha channel alone would be a black image."""
    root = save_images(tmp_path / "pets")
    for n, icon in enumerate(
        [
            Image.fromarray(RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)),
            Image.fromarray(RNG.integers(0, 256, (6, 5, 2), dtype=np.uint8), "LA"),
            Image.new("P", (5, 6)),
        ]
    ):
        path = root / "dogs" / f"icon{n}.png"
        icon.save(path, transparency=0) if icon.mode == "P" else icon.save(path)
        with pytest.raises(DataError, match=rf"icon{n}\.png has transparent pixels"):
            load(ImageFolder(str(root)))
        path.unlink()


def test_imagefolder_takes_an_alpha_channel_that_hides_nothing(tmp_path: Path) -> None:
    for k, mode in enumerate(("LA", "RGBA")):
        root = save_images(tmp_path / mode, mode=mode)
        assert load(ImageFolder(str(root))).input.shape == ((1, 3)[k], 6, 5)


def test_imagefolder_stands_images_upright(tmp_path: Path) -> None:
    """A phone stores a portrait lying, and says so in its EXIF orientation."""
    root = save_images(tmp_path / "pets", per_class=4)
    upright = RNG.integers(128, 256, (6, 5), dtype=np.uint8)
    upright[0, 0], exif = 129, Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(upright)).save(root / "dogs" / "phone.png", exif=exif)
    data = load(ImageFolder(str(root)), val_fraction=0)
    found = torch.cat([data.train.x, data.test.x])[:, 0]
    assert (found == torch.from_numpy(upright)).flatten(1).all(1).sum() == 1


def test_imagefolder_reads_what_pillow_reads(tmp_path: Path) -> None:
    root = save_images(tmp_path / "pets", per_class=4)
    extra = RNG.integers(128, 256, (6, 5), dtype=np.uint8)
    for ending in ("bmp", "webp", "tif", "pgm", "jpg", "PNG"):
        Image.fromarray(extra).save(root / "dogs" / f"extra.{ending}")
    data = load(ImageFolder(str(root)), val_fraction=0)
    assert len(data.train.y) + len(data.test.y) == 14


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("notes.txt", "no image by its ending"),
        ("film.gif", "no image by its ending"),
        ("backup.png~", "no image by its ending"),
        ("text.png", "none of PNG"),
        ("film.tif", "several frames"),
    ],
)
def test_imagefolder_leaves_no_file_of_a_class_out(file: str, line: str, tmp_path: Path) -> None:
    path = save_images(tmp_path / "pets") / "dogs" / file
    if file == "film.tif":
        frames = [Image.fromarray(RNG.integers(0, 256, (6, 5), dtype=np.uint8)) for _ in range(3)]
        frames[0].save(path, save_all=True, append_images=frames[1:])
    else:
        path.write_text("these are dogs")
    with pytest.raises(DataError, match=rf"{file}.*{line}"):
        load(ImageFolder(str(tmp_path / "pets")))


def test_imagefolder_passes_over_what_is_hidden(tmp_path: Path) -> None:
    root = save_images(tmp_path / "pets", per_class=5)
    save_images(root / ".ipynb_checkpoints")
    save_images(root / "dogs" / ".ipynb_checkpoints")
    save_images(root / "@eaDir")
    (root / "cats" / ".DS_Store").write_bytes(b"x")
    (root / "cats" / "Thumbs.db").write_bytes(b"x")
    (root / "README.md").write_text("two classes")
    data = load(ImageFolder(str(root)), val_fraction=0)
    assert (data.output.size, len(data.train.y) + len(data.test.y)) == (2, 10)


def test_imagefolder_takes_an_image_in_a_folder_of_its_class(tmp_path: Path) -> None:
    root = save_images(tmp_path / "pets", per_class=5)
    (root / "cats" / "indoors").mkdir()
    (root / "cats" / "0.png").rename(root / "cats" / "indoors" / "0.png")
    data = load(ImageFolder(str(root)), val_fraction=0)
    assert len(data.train.y) + len(data.test.y) == 10


@pytest.mark.parametrize(
    "names",
    ["Train Test", "training testing", "TRAIN VAL", "train_set test_set", "Training Validation Testing", "train dev"],
)
def test_imagefolder_knows_the_usual_names_of_splits(names: str, tmp_path: Path) -> None:
    for name in names.split():
        save_images(tmp_path / "pets" / name, 5)
    data = load(ImageFolder(str(tmp_path / "pets")))
    assert data.output.size == 2
    assert len(data.train.y) + len(data.val.y) + len(data.test.y) == 10 * len(names.split())


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("train Train", "are both train splits; keep one"),
        ("train extra", "train/ looks like a split, but extra/ beside it does not"),
        ("test", "test/ looks like a split, but no train/ beside it"),
        ("seg_train seg_test", "seg_test/ and seg_train/ look like splits; name them train, val and test"),
        ("mnist_train1 mnist_test1", "look like splits; name them train, val and test"),
        ("north south", "both hold a folder cats, so which of them are the classes is not clear"),
        ("wrapped", "it holds the single folder wrapped/; write imagefolder:"),
    ],
)
def test_imagefolder_refuses_what_can_be_read_in_two_ways(names: str, line: str, tmp_path: Path) -> None:
    for name in names.split():
        save_images(tmp_path / "pets" / name, 5)
    with pytest.raises(DataError, match=line):
        load(ImageFolder(str(tmp_path / "pets")))


def test_imagefolder_refuses_an_image_of_no_class(tmp_path: Path) -> None:
    root = save_images(tmp_path / "pets")
    (root / "cats" / "0.png").rename(root / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png is in no class"):
        load(ImageFolder(str(root)))


def test_imagefolder_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    root = save_images(tmp_path / "pets", per_class=5)
    (root / "linked").symlink_to(save_images(tmp_path / "more", 5) / "dogs")
    assert load(ImageFolder(str(root))).output.size == 3
    (root / "dogs" / "again").symlink_to(root / "dogs")
    with pytest.raises(DataError, match="again lies below more than 20 folders, or links to one above"):
        load(ImageFolder(str(root)))
    (root / "dogs" / "again").unlink()
    (root / "dogs" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"cannot read .*gone\.png .*mend or remove it"):
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
