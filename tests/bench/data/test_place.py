"""Where the files of data sets are sought, and what is said of those that are not there."""

import sys
from pathlib import Path

import pytest

from bench.api.errors import DataError
from bench.data import default_data_dir, require
from bench.data.cifar import CIFAR100
from bench.data.digits import Digits
from bench.data.idx import MNIST
from bench.data.own import Npz


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"BENCH_DATA": "/mnt/sets"}, Path("/mnt/sets")),
        ("linux", {"BENCH_DATA": ""}, Path("/home/ada/.local/share/backprop-free-bench")),
        ("linux", {"XDG_DATA_HOME": "/xdg"}, Path("/xdg/backprop-free-bench")),
        ("darwin", {}, Path("/home/ada/Library/Application Support/backprop-free-bench")),
        ("win32", {"LOCALAPPDATA": "/local"}, Path("/local/backprop-free-bench")),
    ],
)
def test_default_data_dir(
    platform: str, variables: dict[str, str], expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("BENCH_DATA", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    assert default_data_dir() == expected


def test_digits_are_always_found(tmp_path: Path) -> None:
    assert Digits().missing(tmp_path / "nowhere") == []


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_set_is_found_when_all_its_files_are_there_in_either_form(suffix: str, tmp_path: Path) -> None:
    *most, last = (tmp_path / f"{file.path}{suffix}" for file in MNIST.files)
    for path in most:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert len(MNIST().missing(tmp_path)) == 1
    last.touch()
    assert MNIST().missing(tmp_path) == []


def test_what_is_missing_is_said_in_one_line_with_folder_and_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        require(CIFAR100(), tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("cifar100", str(tmp_path), "cifar-100-python/meta and 2 more", "--download", "--data-dir"):
        assert part in message


def test_a_missing_file_of_the_users_own_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match=r"mine\.npz.*check the path"):
        require(Npz(str(path)), tmp_path)
    path.touch()
    require(Npz(str(path)), tmp_path)
