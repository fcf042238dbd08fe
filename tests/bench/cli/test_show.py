"""`bench show`: what an author of a rule, a net or data needs to know of a net and of data."""

from pathlib import Path

import numpy as np
import pytest

from bench.api.errors import ConfigError, DataError
from bench.api.kinds import Input, Output
from bench.catalog.catalog import Catalog
from bench.cli.main import app
from bench.cli.show import blocks

Captured = pytest.CaptureFixture[str]


def shown(capsys: Captured, *arguments: str) -> list[str]:
    assert app(["show", *arguments], standalone_mode=False) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_net_shows_its_blocks_with_shapes_and_parameters(capsys: Captured) -> None:
    lines = shown(capsys, "mlp")
    assert "takes image, vector, sequence; gives classes, class probabilities, values" in lines
    assert "at these defaults, on digits: from image 1x8x8 to 10 classes" in lines
    assert lines[-3:] == [
        "1 256 16,640 Flatten, Linear 256x64, ReLU",
        "2 256 65,792 Linear 256x256, ReLU",
        "3 10 2,570 Linear 10x256",
    ]


def test_blocks_of_every_net_are_shown() -> None:
    for name, entry in Catalog().nets.items():
        cls = entry.load()
        if cls.misfit(Input.image(1, 8, 8), Output.classes(10), {}) is None:
            rows = blocks(cls, Input.image(1, 8, 8), Output.classes(10))
            assert rows, name
            assert all(row[1] for row in rows), name


def test_data_of_ones_own_are_shown_with_their_layout_and_with_what_they_hold(capsys: Captured, tmp_path: Path) -> None:
    assert "(N, H, W)" in " ".join(shown(capsys, "npz"))
    file = tmp_path / "mine.npz"
    np.savez(file, x=np.arange(40 * 16, dtype=np.uint8).reshape(40, 4, 4), y=np.arange(40) % 4)
    lines = shown(capsys, f"npz:{file}")
    for line in ("train examples 29", "test examples 8", "input of a net image 1x4x4", "output of a net 4 classes"):
        assert line in lines
    assert "at these defaults, on " in " ".join(shown(capsys, "mlp", "--dataset", f"npz:{file}"))
    with pytest.raises(DataError, match="no such file or folder"):
        app(["show", "npz:nothing.npz"], standalone_mode=False)
    with pytest.raises(DataError, match="a URL is no place here; copy it"):
        app(["show", "npz:s3://bucket/x.npz"], standalone_mode=False)


def test_data_that_are_known_are_shown_without_their_files(capsys: Captured, tmp_path: Path) -> None:
    lines = shown(capsys, "mnist", "--data-dir", str(tmp_path))
    told = {"here no; --download fetches it", "train and validation examples 60,000", "input of a net image 1x28x28"}
    assert told <= set(lines)


def test_a_data_folder_in_an_object_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", "s3://bucket/data")
    with pytest.raises(Exception, match=r"\$BENCH_DATA s3://bucket/data: a URL is no folder here"):
        app(["show", "mnist"], standalone_mode=False)
    monkeypatch.delenv("BENCH_DATA")
    with pytest.raises(ConfigError, match="unknown method, net, data set"):
        app(["show", "mnits"], standalone_mode=False)
