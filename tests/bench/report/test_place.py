"""The folder of a report: what is the user's there is neither removed nor replaced."""

import os
from pathlib import Path
from typing import Any

import pytest

from bench.api.errors import StoreError
from bench.report import place
from bench.report.place import LIST, check, publish

FILES = {"tables/a.csv": b"a", "figures/a.png": b"b", "report.md": b"c", "index.html": b"d"}
OTHERS = {"tables/b.csv": b"a", "report.md": b"e", "index.html": b"f"}
OWN = {"figures/own.png": b"mine", "figures/own.pdf": b"mine", "tables/own.csv": b"mine", "notes.md": b"mine"}


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def content(folder: Path) -> dict[str, bytes]:
    there = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in there if path.name != LIST}


def test_only_what_an_earlier_report_lists_is_removed(tmp_path: Path) -> None:
    put(tmp_path, OWN)
    publish(tmp_path, FILES)
    assert content(tmp_path) == FILES | OWN
    publish(tmp_path, OTHERS)
    assert content(tmp_path) == OTHERS | OWN


@pytest.mark.parametrize("name", [*FILES, LIST])
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_is_the_user_s_own_is_not_replaced(tmp_path: Path, name: str, kind: str) -> None:
    out = tmp_path / "out"
    put(out, OWN)
    path = out / name
    if kind == "folder":
        path.mkdir(parents=True)
    elif kind == "link":
        path.symlink_to(out / "notes.md")
    else:
        path.write_bytes(b"my own")
    before = content(out)
    with pytest.raises(StoreError, match=f"{name} is not of an earlier report; move it, or name another folder"):
        publish(out, FILES)
    assert content(out) == before
    if name not in ("tables/a.csv", "figures/a.png"):
        with pytest.raises(StoreError, match=f"{name} is not of an earlier report"):
            check(out)


@pytest.mark.parametrize("name", ["figures", "tables"])
def test_a_linked_folder_is_not_written_through(tmp_path: Path, name: str) -> None:
    put(tmp_path / "outside", {"own.png": b"mine"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match=f"{name} is refused: it is a link"):
        publish(tmp_path / "out", FILES)
    assert content(tmp_path / "outside") == {"own.png": b"mine"}


def test_a_list_from_somebody_else_names_nothing_outside(tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(out, FILES)
    put(tmp_path, {"own.csv": b"mine", "out/notes.md": b"mine"})
    names = ["../own.csv", "tables/../../own.csv", str(tmp_path / "own.csv"), "notes.md", "figures/../../own.csv"]
    (out / LIST).write_text("\n".join([place.HEAD, *names, *FILES]) + "\n")
    publish(out, OTHERS)
    assert (tmp_path / "own.csv").read_bytes() == b"mine"
    assert content(out) == OTHERS | {"notes.md": b"mine"}


def test_a_report_of_a_version_without_a_list_is_renewed(tmp_path: Path) -> None:
    """Its page is known by how it begins; what else lies there may be the user's."""
    put(tmp_path, FILES | OWN | {"index.html": place.UNLISTED + b" ...", "figures/old.png": b"old"})
    check(tmp_path)
    publish(tmp_path, OTHERS)
    assert content(tmp_path) == OTHERS | OWN | {n: FILES[n] for n in ("tables/a.csv", "figures/a.png")} | {
        "figures/old.png": b"old"
    }


def test_a_report_that_is_killed_at_any_moment_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    replace, unlink = Path.replace, Path.unlink
    for steps in range(30):
        out = tmp_path / str(steps)
        put(out, OWN)
        publish(out, FILES)
        left = [steps]

        def count(act: Any, left: list[int] = left) -> Any:
            def counted(self: Path, *args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return act(self, *args, **kwargs)

            return counted

        monkeypatch.setattr(Path, "replace", count(replace))
        monkeypatch.setattr(Path, "unlink", count(unlink))
        try:
            publish(out, OTHERS)
        except Killed:
            done = False
        else:
            done = True
        monkeypatch.undo()
        publish(out, OTHERS)
        assert {name: data for name, data in content(out).items() if not name.endswith(".tmp")} == OTHERS | OWN
        if done:
            return
    pytest.fail("never came to its end")


def test_a_folder_that_cannot_be_written_is_named_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file is no folder; name another"):
        check(tmp_path / "file" / "out")
    with pytest.raises(StoreError, match="File name too long; name another folder"):
        check(tmp_path / ("x" * 300))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(StoreError, match="is not writable; name another folder"):
        check(tmp_path / "new" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
