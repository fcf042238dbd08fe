"""`imagefolder:PATH`: a user's own image files, one folder per class.

PATH holds the class folders, or a folder for each split (train, val, test and their usual spellings, in any case) that
holds them. A val folder is used as it is, whatever fraction is asked for. Class folders may hold folders. Names that
begin with a dot, and what file managers leave behind, are passed over; every other file in a class folder must be an
image. Images are grey where every file is, else RGB; they stand upright as their EXIF orientation says.
"""

import os
import re
import stat
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bench.api.dataset import Source, Split
from bench.api.errors import DataError
from bench.data.check import check_memory

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Pixels = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")  # as torchvision; others call programs, or are films
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"}
LITTER = {  # what file managers, backups and network disks leave behind, in lower case
    "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r", "__macosx", "__pycache__", "@eadir", "@recycle",
    "#recycle", "$recycle.bin", "system volume information", "lost+found",
}  # fmt: skip
DEEPEST = 20  # folders below a class folder: more is a chain of links
OF_SPLITS = set("train training trn val valid validation dev test testing tst eval evaluation holdout".split())
SPLITS = {
    part: re.compile(rf"(?:{words})(?:[ _.-]?(?:set|data|images|imgs|split))?", re.IGNORECASE)
    for part, words in {
        "train": "train(?:ing)?",
        "val": "val|valid|validation|dev",
        "test": "test(?:ing)?",
    }.items()
}
DEEP = re.compile(r";16[BLN]")  # how Pillow names pixels of 16 bits a channel that it cuts to 8
GREY, COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr")


def read_imagefolder(name: str, root: Path) -> Source:
    """All images, classes in the order of their folders' names.

    Raises: DataError for a folder that can be read in two ways, and for a file that is no image or would be cut.
    """
    folders = _splits(name, root)
    listings = {part: _classes(name, folder) for part, folder in folders.items()}
    classes = list(listings["train"])
    for part, listing in listings.items():
        if odd := sorted(set(classes) ^ set(listing)):
            raise DataError(f"{name}: class folder {odd[0]} is not in both train/ and {part}/; add it")
    images = _read(name, [path for listing in listings.values() for paths in listing.values() for path in paths])
    grey = all(image.ndim == 2 for image in images.values())
    splits = {}
    for part, listing in listings.items():
        x = np.stack([_channels_first(images[path], grey) for label in classes for path in listing[label]])
        y = torch.tensor([k for k, label in enumerate(classes) for _ in listing[label]])
        splits[part] = Split(torch.from_numpy(x), y)
    return Source(len(classes), splits["train"], splits.get("test"), splits.get("val"))


def _splits(name: str, root: Path) -> dict[str, Path]:
    """The folder of each split; that of train alone where there are none."""
    folders, files = _entries(name, root)
    if image := next((file for file in files if file.suffix.lower() in ENDINGS), None):
        raise DataError(f"{name}: image {image} is in no class; put each class's images in a folder of its own")
    found: dict[str, Path] = {}
    others = []
    for folder in folders:
        part = next((part for part, words in SPLITS.items() if words.fullmatch(folder.name)), None)
        if part is None:
            others.append(folder)
        elif part in found:
            raise DataError(f"{name}: {found[part].name}/ and {folder.name}/ are both {part} splits; keep one")
        else:
            found[part] = folder
    if not found:
        alike = [folder.name for folder in others if OF_SPLITS & set(re.split(r"[^a-z]+", folder.name.lower()))]
        if len(alike) > 1:
            raise DataError(f"{name}: {alike[0]}/ and {alike[1]}/ look like splits; name them train, val and test")
        if len(others) == 1 and _entries(name, others[0])[0]:
            raise DataError(f"{name}: it holds the single folder {others[0].name}/; write imagefolder:{others[0]}")
        return {"train": root}
    if "train" not in found or others:
        split, other = next(iter(found.values())).name, f"{others[0].name}/" if others else "no train/"
        raise DataError(
            f"{name}: {split}/ looks like a split, but {other} beside it does not; put all classes in train/, or, "
            f"where {split} is a class, into a folder train/, too"
        )
    return found


def _classes(name: str, folder: Path) -> dict[str, list[Path]]:
    """The images of each class, both in the order of their names."""
    folders, _ = _entries(name, folder)
    if not folders:
        raise DataError(f"{name}: {folder} holds no class folder; put each class's images in a folder of its own")
    inner = {each.name: {inside.name for inside in _entries(name, each)[0]} for each in folders}
    for one, other in combinations(inner, 2):
        if both := sorted(inner[one] & inner[other]):
            raise DataError(
                f"{name}: {one}/ and {other}/ both hold a folder {both[0]}, so which of them are the classes is not "
                "clear; name splits train, val and test, and put a class's images right into its folder"
            )
    found = {each.name: list(_images(name, each, (os.path.realpath(folder),))) for each in folders}
    for label, paths in found.items():
        if not paths:
            raise DataError(f"{name}: class folder {folder / label} holds no image; add some, or remove the folder")
    return found


def _images(name: str, folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """All files below a class folder. above: the real paths of the folders that lead here."""
    here = os.path.realpath(folder)
    if here in above or len(above) > DEEPEST:
        raise DataError(f"{name}: {folder} lies below more than {DEEPEST} folders, or links to one above; flatten it")
    folders, files = _entries(name, folder)
    for file in files:
        if file.suffix.lower() not in ENDINGS:
            kinds = ", ".join(sorted(ENDINGS))
            raise DataError(f"{name}: {file} is no image by its ending ({kinds}); rename, convert or remove it")
    yield from files
    for inside in folders:
        yield from _images(name, inside, (*above, here))


def _entries(name: str, folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files of a folder by name, without what is hidden; links are followed."""
    folders, files = [], []
    try:
        for path in sorted(folder.iterdir(), key=lambda path: path.name):
            if path.name.startswith(".") or path.name.lower() in LITTER:
                continue
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                folders.append(path)
            elif stat.S_ISREG(mode):
                files.append(path)
            else:
                raise DataError(f"{name}: {path} is neither a file nor a folder; remove it")
    except OSError as error:
        raise DataError(f"{name}: cannot read {error.filename} ({error.strerror}); mend or remove it") from error
    return folders, files


def _read(name: str, paths: list[Path]) -> dict[Path, Pixels]:
    """The images, all of one size."""
    images: dict[Path, Pixels] = {}
    for path in paths:
        images[path] = _open(name, path)
        if len(images) == 1:
            check_memory(name, 6 * len(paths) * images[path].size)  # the images, and the splits that they are copied to
        (h, w), (h0, w0) = images[path].shape[:2], images[paths[0]].shape[:2]
        if (h, w) != (h0, w0):
            raise DataError(
                f"{name}: image {path} is {w}x{h} pixels, but {paths[0]} is {w0}x{h0}; resize all to one size"
            )
    return images


def _open(name: str, path: Path) -> Pixels:
    """Shape: (H, W) where the file is grey, else (H, W, 3)."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS) as image:
            if loss := _loss(image):
                raise DataError(f"{name}: image {path} {loss}")
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise DataError(
                    f"{name}: image {path} has transparent pixels, whose colour is not said; put it on a background"
                )
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("L" if image.mode in GREY else "RGB"))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise DataError(f"{name}: cannot read image {path} (it is none of {kinds}); convert or remove it") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: cannot read image {path} ({reason}); mend or remove it") from error


def _loss(image: "ImageFile") -> str | None:
    """What 8 bits a channel, one picture a file, would leave out."""
    depths = [value for tile in image.tile for value in _flat(tile[3])]
    deep = any(isinstance(v, str) and DEEP.search(v) for v in depths)
    scaled = image.format == "PPM" and any(isinstance(v, int) and v > 255 for v in depths)  # the greatest value
    if deep or scaled or image.mode.startswith(("I", "F")):
        return "has more than 8 bits per channel; store 8"
    if image.mode not in (*GREY, *COLOUR):
        return f"has the mode {image.mode}; store it as RGB or grey"
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's MPO is a photo with its previews
        return "holds several frames; store each in a file of its own"
    return None


def _flat(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _channels_first(image: Pixels, grey: bool) -> Pixels:
    if grey:
        return image[None]
    return np.repeat(image[None], 3, axis=0) if image.ndim == 2 else image.transpose(2, 0, 1)
