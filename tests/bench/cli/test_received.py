"""Verbs over a results folder that somebody else made, and places that are gone: lines that begin with `bench:`."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cli.main import main
from bench.record import standing
from bench.record.standing import save_plan
from tests.bench.record.test_merge import SPEC, add


def told(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[Any, list[str]]:
    """Exit code, and the lines on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code, capfd.readouterr().err.splitlines()


def are_complaints(lines: list[str], *words: str) -> bool:
    is_plain = all(line.startswith("bench: ") and line.isprintable() and len(line) <= 300 for line in lines)
    return bool(lines) and is_plain and all(any(word in line for line in lines) for word in words)


@pytest.mark.parametrize("at", ["exp", "exp/run0", "exp/run0/spec.json"])
@pytest.mark.parametrize(
    "words",
    [
        ["report", "results", "--out", "report"],
        ["compare", "results", "results"],
        ["status", "results"],
        ["merge", "results", "--out", "merged"],
        ["pack", "results/exp", "packed"],
    ],
    ids=lambda words: words[0],
)
def test_links_that_lead_outside_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], at: str, words: list[str]
) -> None:
    add(tmp_path / "other", 0, test_acc=0.123456)
    add(tmp_path / "results", 0, test_acc=0.5)
    save_plan(tmp_path / "results" / "exp", [{**SPEC, "run_id": "run0", "seed": 0}])
    link = tmp_path / "results" / at
    link.rename(tmp_path / "aside")
    link.symlink_to(tmp_path / "other" / at)
    if at == "exp" and words[0] == "pack":
        words = ["pack", "results", "packed"]
    monkeypatch.chdir(tmp_path)
    code, lines = told(words, capfd)
    if words[0] == "status" and at == "exp/run0/spec.json":
        assert code == 0  # it reads no specs
        return
    assert code == 2
    assert are_complaints(lines, "is a link")
    written = [path for name in ("report", "merged", "packed") for path in (tmp_path / name).rglob("*.*")]
    assert not [path for path in written if b"0.123456" in path.read_bytes() or b"12.35" in path.read_bytes()]


def test_a_place_that_is_gone_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    os.rmdir(here)
    code, lines = told(["status", "results"], capfd)
    assert (code, len(lines)) == (2, 1)
    assert are_complaints(lines)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/somewhere"),
        ModuleNotFoundError("No module named 'pandas'", name="pandas"),
        LookupError("unknown encoding: idna"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_parts_that_cannot_be_loaded_any_more_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    """As after privileges are dropped, or the installation is removed, while a verb loads what it needs late."""

    def standings(*_: Any) -> None:
        raise error

    monkeypatch.setattr(standing, "standings", standings)
    code, lines = told(["status", "."], capfd)
    assert (code, len(lines)) == (2, 1)
    assert are_complaints(lines)


def test_an_error_of_our_own_is_no_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "standings", lambda *_: {}["a key"])
    monkeypatch.setattr(sys, "argv", ["bench"])
    with pytest.raises(KeyError):
        main(["status", "."])
