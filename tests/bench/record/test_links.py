"""A results folder from somebody else: no link in it is followed, and nothing but regular files is opened."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.api.column import Column
from bench.api.errors import StoreError
from bench.record import scaling, searches
from bench.record.changes import stamp
from bench.record.files import atomic_write, read_regular
from bench.record.folder import RunFolder, last_end
from bench.record.locks import busy_since, prepare
from bench.record.merge import merge
from bench.record.pack import pack
from bench.record.results import Results
from bench.record.standing import save_plan, standings
from tests.bench.record.test_merge import add, scaled, search

COLUMNS = (Column("test_acc", "test acc, %", "accuracy"),)
SECRET = "the user's own"
FILES = "spec.json summary.json env.json curve.csv stderr.txt artifacts.npz columns.json checkpoint.pt".split()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "own.txt").write_text(SECRET)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add(tmp_path / "results", 0, test_acc=0.5)
    return tmp_path / "results"


def untouched(outside: Path) -> bool:
    return [path.name for path in outside.iterdir()] == ["own.txt"] and (outside / "own.txt").read_text() == SECRET


def put(path: Path, kind: str, outside: Path) -> None:
    """Something in place of a regular file."""
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"link": outside / "own.txt", "device": Path("/dev/zero"), "nothing": outside / "new"}[kind])


KINDS = ["link", "fifo", "loop", "folder", "device", "nothing"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_read(tmp_path: Path, outside: Path, kind: str) -> None:
    put(tmp_path / "x", kind, outside)
    with pytest.raises((ValueError, OSError), match=r"is a link|no regular file"):
        read_regular(tmp_path / "x")


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(10**13)  # of holes
    with pytest.raises(ValueError, match="more than 100 bytes"):
        read_regular(tmp_path / "x", 100)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_place_of_a_file_is_replaced_and_not_written_through(
    tmp_path: Path, outside: Path, kind: str
) -> None:
    for name in ("x", f".x.{os.getpid()}.tmp"):  # also of the name under which it is written first
        if kind != "folder":
            put(tmp_path / name, kind, outside)
    atomic_write(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert not (tmp_path / "x").is_symlink()
    assert untouched(outside)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_record_that_is_none_is_named(root: Path, outside: Path, name: str, kind: str) -> None:
    """By every reader, without its content; a report goes on without it."""
    put(root / "exp" / "run0" / name, kind, outside)
    for act in (lambda: pack(root / "exp", root.parent / "p"), lambda: merge([root], root.parent / "m")):
        if name == "checkpoint.pt" or (name == "stderr.txt" and kind == "nothing"):
            continue  # of an ended run it is no part of a record
        with pytest.raises(StoreError, match=f"run0/{name}"):
            act()
        assert not (root.parent / "p").exists()
    lenient = Results(root, columns=COLUMNS, lenient=True)
    assert SECRET not in str((lenient.runs, lenient.curves, lenient.stderr, lenient.artifacts, lenient.columns))
    if name in ("spec.json", "summary.json", "env.json", "columns.json"):
        assert [line for line in lenient.problems if f"run0/{name}" in line]
    assert untouched(outside)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["plan.json", "records.zip", "scaling/p.json", "winners.json"])
def test_a_file_of_an_experiment_that_is_none_is_named(root: Path, outside: Path, name: str, kind: str) -> None:
    save_plan(root / "exp", [])
    path = searches.beside(root / "exp") / name if name == "winners.json" else root / "exp" / name
    path.parent.mkdir(exist_ok=True)
    put(path, kind, outside)
    read: dict[str, Callable[[], object]] = {
        "plan.json": lambda: standings(root),
        "scaling/p.json": lambda: scaling.load(root),
        "winners.json": lambda: searches.load(path.parent),
        "records.zip": lambda: Results(root, columns=COLUMNS).runs,
    }
    with pytest.raises(StoreError, match=path.name):
        read[name]()
    stamp(root)  # does not hang
    assert untouched(outside)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "folder"])
def test_a_lock_is_taken_on_no_other_thing(root: Path, outside: Path, kind: str) -> None:
    put(root / "exp" / "run0" / ".lock", kind, outside)
    assert busy_since(root / "exp" / "run0") is None
    with pytest.raises(StoreError, match=r"is a link|no regular file"):
        RunFolder(root, "exp", "run0").lock()
    assert untouched(outside)


@pytest.mark.parametrize("at", ["exp", "exp/run0"])
def test_a_linked_folder_is_neither_read_nor_written_nor_emptied(tmp_path: Path, outside: Path, at: str) -> None:
    add(tmp_path / "other", 0, test_acc=0.9)
    root, link = tmp_path / "results", tmp_path / "results" / at
    add(root, 1, test_acc=0.5)
    if at == "exp":
        shutil.rmtree(link)
    link.symlink_to(outside if at == "exp" else tmp_path / "other" / at)
    (outside / "run0").symlink_to(tmp_path / "other" / "exp" / "run0")
    before = sorted((tmp_path / "other").rglob("*"))
    folder = RunFolder(root, "exp", "run0")
    acts: list[Callable[[], object]] = [folder.lock, folder.summary, folder.files, lambda: folder.replace({})]
    acts += [lambda: Results(root, columns=COLUMNS).runs, lambda: merge([root], tmp_path / "m")]
    acts += [lambda: merge([tmp_path / "other"], root)]
    if at == "exp":
        acts += [lambda: prepare(root, "exp"), lambda: save_plan(link, []), lambda: scaling.save(link, scaled(1, 1.0))]
    for act in acts:
        with pytest.raises(StoreError, match="is a link"):
            act()
    lenient = Results(root, columns=COLUMNS, lenient=True)
    assert 0.9 not in list(lenient.runs["test_acc"])
    assert [line for line in lenient.problems if str(link) in line]
    assert last_end(root / "exp") >= 0.0
    assert sorted((tmp_path / "other").rglob("*")) == before
    (outside / "run0").unlink()
    assert untouched(outside)


@pytest.mark.parametrize("name", ["scaling", "../exp.tuning"])
def test_a_linked_folder_of_points_or_trials_is_refused(root: Path, outside: Path, name: str) -> None:
    link = root / "exp" / name
    link.symlink_to(outside)
    beside = searches.beside(root / "exp")
    savers: dict[str, Callable[[], object]] = {"scaling": lambda: scaling.save(root / "exp", scaled(1, 1.0))}
    save = savers.get(name, lambda: searches.save([search(0.1)], beside))
    with pytest.raises(StoreError, match="is a link"):
        scaling.load(root) if name == "scaling" else searches.load(searches.beside(root / "exp"))
    with pytest.raises(StoreError, match="is a link"):
        save()
    assert untouched(outside)


def test_a_loop_of_folders_ends(root: Path) -> None:
    (root / "exp" / "again").symlink_to(root)
    (root / "exp" / "itself").symlink_to("itself")
    lenient = Results(root, columns=COLUMNS, lenient=True)
    assert len(lenient.runs) == 1
    assert [line for line in lenient.problems if "exp/again is refused: it is a link" in line]


def test_the_folder_that_the_user_names_may_be_a_link(root: Path, tmp_path: Path) -> None:
    save_plan(root / "exp", [])
    for name, target in (("whole", root), ("one", root / "exp"), ("run", root / "exp" / "run0")):
        (tmp_path / name).symlink_to(target)
        assert len(Results(tmp_path / name, columns=COLUMNS).runs) == 1
    assert len(standings(tmp_path / "whole")) == len(standings(tmp_path / "one")) == 1
    pack(tmp_path / "one", tmp_path / "p")
    merge([tmp_path / "whole"], tmp_path / "m")
    (tmp_path / "linked").symlink_to(tmp_path / "m")
    merge([tmp_path / "whole"], tmp_path / "linked")
    (fd := RunFolder(tmp_path / "whole", "exp", "run0").lock()) and os.close(fd)


def test_clearing_a_run_removes_links_and_not_what_they_lead_to(root: Path, outside: Path) -> None:
    folder = RunFolder(root, "exp", "run0")
    (folder.path / "extra.csv").symlink_to(outside / "own.txt")
    (folder.path / "aside").symlink_to(outside)
    folder.clear()
    assert [path.name for path in folder.path.iterdir()] == [".lock"]
    assert untouched(outside)
    (folder.path / "deep").mkdir()
    with pytest.raises(StoreError, match=r"cannot remove .*deep"):
        folder.clear()


def _zip(path: Path, members: int, size: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for k in range(members):
            file.writestr(f"run{k}/curve.csv", bytes(size))


@pytest.mark.parametrize(("members", "size"), [(60, 2**20), (1, 2**27)])
def test_a_pack_that_claims_far_more_than_it_is_is_refused(tmp_path: Path, members: int, size: int) -> None:
    """Each member may be small: it is the total that counts."""
    (tmp_path / "exp").mkdir()
    _zip(tmp_path / "exp" / "records.zip", members, size)
    for act in (lambda: Results(tmp_path, columns=COLUMNS).runs, lambda: merge([tmp_path], tmp_path / "out")):
        with pytest.raises(StoreError, match=r"records.zip is refused: .* claim to hold .*, which is too large"):
            act()


def test_names_that_no_pack_may_hold_stay_out_of_it(root: Path, tmp_path: Path) -> None:
    (root / "exp" / "run0" / "a\udcff.csv").write_text("a\n1\n")
    pack(root / "exp", tmp_path / "p")
    merge([root], tmp_path / "m")
    assert len(Results(tmp_path / "p", columns=COLUMNS).runs) == 1
    bad = root / "exp" / "run\udcff"
    shutil.copytree(root / "exp" / "run0", bad)
    with pytest.raises(StoreError, match="is no name for a run"):
        pack(root / "exp", tmp_path / "q")
