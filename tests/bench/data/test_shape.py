"""Data sets that are a shape alone."""

from pathlib import Path

import pytest

from bench import Input, Output
from bench.api.errors import ConfigError, DataError
from bench.catalog.catalog import Catalog
from bench.data import load
from bench.data.outline import Outline, outline

CATALOG = Catalog()


def test_a_shape_is_outlined_and_cannot_be_learnt(tmp_path: Path) -> None:
    imagenet = CATALOG.dataset("imagenet-shape")
    assert outline(imagenet, data_dir=tmp_path, val_fraction=0) == Outline(
        Input.image(3, 224, 224), Output.classes(1000), 1_281_167
    )
    with pytest.raises(DataError, match="shape without images"):
        load(imagenet, data_dir=tmp_path)


def test_any_shape_can_be_written(tmp_path: Path) -> None:
    shape = outline(CATALOG.dataset("shape:3x64x32/200/1000"), data_dir=tmp_path, val_fraction=0.1)
    assert shape == Outline(Input.image(3, 64, 32), Output.classes(200), 900, 100)


@pytest.mark.parametrize("written", ["3x64x64", "3x64x64/200", "0x1x1/2/3", "a/b/c", "3x64x64/200/1000/5"])
def test_what_is_no_shape_is_refused(written: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CxHxW/CLASSES/IMAGES"):
        outline(CATALOG.dataset(f"shape:{written}"), data_dir=tmp_path, val_fraction=0.1)


def test_a_card_says_what_its_files_hold(tmp_path: Path) -> None:
    digits = CATALOG.dataset("digits")
    found, read = outline(digits, data_dir=tmp_path, val_fraction=0.1), load(digits, val_fraction=0.1)
    for name in ("input", "output", "n_train", "n_val"):
        assert getattr(found, name) == getattr(read, name)
