"""imagefolder:PATH: which files are images of which class and split, and one clear line where that is not clear."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api.errors import DataError
from bench.data import load
from bench.data.own import ImageFolder
from tests.bench.data.images import RNG, save_images


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
