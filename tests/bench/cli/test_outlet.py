"""Verbs go on where nobody reads what they print, where there is no outlet, and on terminals with ASCII alone."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.cli import outlet
from bench.cli.main import main
from bench.display.printing import say

TRAIN = ("run", "--methods", "backprop", "--net", "mlp", "--batch-size", "64", "--seeds", "1", "--steps", "40")


@contextmanager
def standard_output(stream: io.TextIOWrapper | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stream as the one that the process was started with."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "__stdout__", stream)
        yield


@contextmanager
def pipe_that_nobody_reads() -> Iterator[io.TextIOWrapper]:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:
        yield stream


def test_a_training_run_whose_output_nobody_reads_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test runner keeps its own handlers
    with pipe_that_nobody_reads() as stream, standard_output(stream, monkeypatch), pytest.raises(SystemExit) as ended:
        main(TRAIN)
    assert ended.value.code == 0
    (summary,) = (tmp_path / "results").glob("*/*/summary.json")
    assert json.loads(summary.read_text())["status"] == "ok"
    assert (tmp_path / "reports" / "default" / "report.md").is_file()


def test_a_broken_pipe_drops_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe_that_nobody_reads() as stream, standard_output(stream, monkeypatch):
        outlet.steady()
        for _ in range(3):
            say("x" * 20_000)
        assert os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))


def test_a_terminal_that_was_closed_drops_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, terminal = os.openpty()
    os.close(screen)
    with open(terminal, "w", encoding="utf-8") as stream, standard_output(stream, monkeypatch):
        outlet.steady()
        say("one")
        say("two")


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w") as full, standard_output(full, monkeypatch), pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 2
    assert capfd.readouterr().err.startswith("bench: cannot print: the disk is full")


def test_a_process_without_standard_output_and_its_children_print_to_nowhere() -> None:
    number = os.dup(1)
    os.close(number)  # free, as 1 is after >&-
    stream = outlet._opened(None, number)
    print("±", file=stream, flush=True)
    assert os.path.samestat(os.fstat(number), os.stat(os.devnull))
    assert os.get_inheritable(number)
    os.close(number)


def test_an_ascii_terminal_shows_other_characters_as_escapes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "out"
    with file.open("w", encoding="ascii") as stream, standard_output(stream, monkeypatch):
        outlet.steady()
        say("96.2 ± 0.4 in folder ü")
    assert file.read_bytes() == rb"96.2 \xb1 0.4 in folder \xfc" + b"\n"
