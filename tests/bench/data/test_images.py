"""Images of imagefolder:PATH: which pixels are read from a file, and which files are refused."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.errors import DataError
from bench.data import load
from bench.data.own import ImageFolder
from tests.bench.data.images import RNG, save_images


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
