"""Paths of npz and imagefolder alike: what cannot be read gives one clear line."""

import os
from pathlib import Path

import pytest

from bench.api.errors import DataError
from bench.data import load
from bench.data.own import ImageFolder, Npz
from tests.bench.data.images import save_images


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
