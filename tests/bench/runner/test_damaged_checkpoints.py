"""A checkpoint that cannot be used: it is named and kept, and the method is not blamed for it."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.api.errors import StoreError
from tests.bench.runner.made import Watched, spec, start, stop_at_step


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after 13 of 20 steps."""
    folder = tmp_path_factory.mktemp("stopped")
    start(folder, spec(), meddle=lambda session: stop_at_step(session, 13))[0].go()
    return folder


def refused(session: Watched, *words: str) -> None:
    before = os.lstat(session.folder.checkpoint)
    with pytest.raises(StoreError) as error:
        session.go()
    told = str(error.value)
    assert "\n" not in told
    assert len(told) < 600
    assert all(word in told for word in (str(session.folder.checkpoint), "kept; remove it and run again", *words))
    assert os.path.samestat(os.lstat(session.folder.checkpoint), before)


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(2**26))


FILES: dict[str, Callable[[Path, bytes], Any]] = {
    "empty": lambda path, _: path.write_bytes(b""),
    "cut short": lambda path, whole: path.write_bytes(whole[:-1]),
    "half": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "garbage": lambda path, _: path.write_bytes(b"\x80\x02garbage" * 100),
    "a byte altered": lambda path, whole: path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:]),
    "saved by torch": lambda path, _: torch.save({"method": {}}, path),
    "a bomb": lambda path, _: _bomb(path),
    "text": lambda path, _: path.write_text("not a checkpoint"),
}
STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no method": lambda kept: kept.pop("method"),
    "no state": lambda kept: kept.pop("state"),
    "no gauges": lambda kept: kept.pop("gauges"),
    "no generators": lambda kept: kept.pop("seeds"),
    "no part of the method": lambda kept: kept["method"].popitem(),
    "a name too many": lambda kept: kept["method"].update(other=torch.zeros(1)),
    "method a list": lambda kept: kept.update(method=[1]),
    "step a text": lambda kept: kept["state"].update(step="3"),
    "step beyond the epoch": lambda kept: kept["state"].update(step=99),
    "epoch below 0": lambda kept: kept["state"].update(epoch=-1),
    "losses of a year": lambda kept: kept["state"].update(losses=torch.zeros(1).expand(10**9)),
    "curve of words": lambda kept: kept["state"].update(curve=["word"]),
    "a curve without accuracy": lambda kept: kept["state"].update(curve=[{"epoch": 1}]),
    "a field too many": lambda kept: kept["state"].update(other=1),
    "random numbers of another kind": lambda kept: kept.update(global_rng=torch.zeros(3, dtype=torch.uint8)),
    "weights of another shape": lambda kept: _reshape(kept["method"], 0),
    "moments of another shape": lambda kept: _reshape(kept["method"], 1),
}


def _reshape(state: Any, which: int) -> None:
    """The first weight of the net, or the first moment of its optimiser, with a row too many."""
    found = [value for value in state.values() if isinstance(value, dict) and ("state" in value) == bool(which)]
    tensors = found[0] if not which else next(iter(found[0]["state"].values()))
    name = next(key for key, value in tensors.items() if isinstance(value, torch.Tensor) and value.ndim > 0)
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]])


@pytest.mark.parametrize("damage", FILES)
def test_a_damaged_file_is_named_and_kept(stopped: Path, damage: str) -> None:
    session, _ = start(stopped, spec())
    whole = session.folder.checkpoint.read_bytes()
    try:
        FILES[damage](session.folder.checkpoint, whole)
        refused(session, "corrupt")
    finally:
        session.folder.checkpoint.write_bytes(whole)


@pytest.mark.parametrize("damage", STATES)
def test_a_state_that_is_none_of_the_run_is_named_and_kept(stopped: Path, damage: str) -> None:
    session, _ = start(stopped, spec())
    whole = session.folder.checkpoint.read_bytes()
    try:
        kept = session.folder.load_checkpoint()
        assert kept is not None
        STATES[damage](kept)
        session.folder.save_checkpoint(kept)
        refused(session)
    finally:
        session.folder.checkpoint.write_bytes(whole)


def test_one_that_this_torch_cannot_read_is_named_and_kept(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of another version: torch may raise anything."""

    def load(*_: Any, **__: Any) -> None:
        raise AttributeError("Can't get attribute '_rebuild_of_tomorrow'\nand more")

    monkeypatch.setattr(torch, "load", load)
    refused(start(stopped, spec())[0], "_rebuild_of_tomorrow", torch.__version__)


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_no_other_thing_is_read_as_one(stopped: Path, tmp_path: Path, kind: str) -> None:
    session, _ = start(stopped, spec())
    path = session.folder.checkpoint
    whole = path.rename(tmp_path / "whole.pt")
    try:
        os.mkfifo(path) if kind == "fifo" else path.symlink_to(whole)
        refused(session)
    finally:
        whole.rename(path)


def test_the_whole_one_is_gone_on_from(stopped: Path) -> None:
    found: list[tuple[int, int]] = []
    session, _ = start(stopped, spec(), meddle=lambda s: found.append((s.run.state.epoch, s.run.state.step)))
    assert session.go()["status"] == "ok"
    assert found == [(1, 3)]
