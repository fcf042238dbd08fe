"""The catalogue: names, folders, and what it says of files that are not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.data import CATALOG, check_name, default_data_dir, found, require
from bench.errors import ConfigError, DataError


def test_the_catalogue_loads_without_torch() -> None:
    code = "import sys, bench.data as d; d.found('mnist'); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_every_set_of_the_catalogue_is_a_name() -> None:
    assert set(CATALOG) == {"digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "svhn"}
    for name in (*CATALOG, "npz:some/where.npz", "imagefolder:C:\\pictures"):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mnits", "did you mean mnist"),
        ("cifar-10", "did you mean cifar10"),
        ("npy:x.npz", "npz:PATH"),
        ("npz:", "write npz:PATH"),
        ("npz", "npz:PATH"),
    ],
)
def test_an_unknown_name_is_refused_with_a_hint(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        check_name(name)


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
    assert found("digits", tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_set_is_found_when_all_its_files_are_there_in_either_form(suffix: str, tmp_path: Path) -> None:
    *most, last = (tmp_path / f"{file.path}{suffix}" for file in CATALOG["mnist"].files)
    for path in most:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert not found("mnist", tmp_path)
    last.touch()
    assert found("mnist", tmp_path)


def test_what_is_missing_is_said_in_one_line_with_folder_and_mend(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        require("cifar100", tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("cifar100", str(tmp_path), "cifar-100-python/meta and 2 more", "--download", "--data-dir"):
        assert part in message


def test_a_missing_file_of_the_users_own_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match=r"mine\.npz.*check the path"):
        require(f"npz:{path}")
    path.touch()
    require(f"npz:{path}")
