"""Records of several machines as one: every run once, and no contradiction swept under."""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from bench.api.column import Column
from bench.api.errors import StoreError
from bench.record import merge as of_merge
from bench.record import scaling, searches
from bench.record.folder import RunFolder
from bench.record.merge import merge
from bench.record.pack import pack
from bench.record.results import Results
from bench.record.scaling import Point
from bench.record.schema import CUT
from bench.record.searches import Found
from tests.bench.report.test_scaling import point

COLUMNS = (Column("test_acc", "test acc, %", "accuracy"),)
SPEC = dict(method="m", method_settings={}, net="n", net_settings={}, dataset="d", epochs=1, batch_size=2)


def add(root: Path, seed: int, **summary: Any) -> RunFolder:
    folder = RunFolder(root, "exp", f"run{seed}")
    folder.create({**SPEC, "seed": seed}, {"env_id": root.name})
    folder.write_curve([{"epoch": 1, "step": 1, "train_loss": 0.5}])
    folder.stderr.write_text("a line\n")
    (folder.path / ".lock").touch()
    if summary:
        folder.finish({"status": "ok", "reason": None, "test_acc": 0.5, **summary})
    return folder


def search(best: float) -> Found:
    return Found(
        method="m", net="n", dataset="d", fixed={}, net_settings={}, best={"lr": best}, val_acc=0.5, verdict="solved",
        n_trials=1, epochs=1, reported_epochs=1, batch_size=2, seed=1000, sampler="sobol", date=None, commit=None,
        source=None, variant="", declared={}, searched={}, at_chance=0.1, tried=[],
    )  # fmt: skip


def runs(root: Path) -> pd.DataFrame:
    return Results(root, columns=COLUMNS).runs


def test_every_run_is_there_once_with_all_its_files(tmp_path: Path) -> None:
    """From folders and from packs, what both have included; locks stay behind."""
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    for seed in (0, 1):
        add(a, seed, test_acc=seed / 10)
    for seed in (1, 2):
        add(b, seed, test_acc=seed / 10)
    pack(b / "exp", tmp_path / "packed" / "exp")
    assert merge([a, tmp_path / "packed"], out).runs == 3
    assert list(runs(out)["test_acc"]) == [0.0, 0.1, 0.2]
    assert sorted(path.name for path in (out / "exp" / "run0").iterdir()) == [
        "curve.csv", "env.json", "spec.json", "stderr.txt", "summary.json",
    ]  # fmt: skip
    assert merge([b], out).runs == 3  # what is in `out` takes part
    assert list(runs(out)["test_acc"]) == [0.0, 0.1, 0.2]


@pytest.mark.parametrize("other", [{"test_acc": 0.25}, {"status": "oom", "test_acc": None}, {CUT: 4}])
def test_a_contradiction_is_named_and_nothing_written(tmp_path: Path, other: dict[str, Any]) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    add(a, 0, test_acc=0.5)
    add(b, 0, **other)
    with pytest.raises(StoreError, match=r"m on n, d, seed 0 ended in two ways: .*a/exp/run0.*b/exp/run0.*--keep"):
        merge([a, b], out)
    assert not out.exists()
    merge([a, b], out, keep=b)
    assert json.loads((out / "exp" / "run0" / "summary.json").read_text()).items() >= other.items()
    with pytest.raises(StoreError, match="is none of the folders"):
        merge([a], out, keep=b)


def test_what_has_ended_goes_before_what_was_stopped(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    add(a, 0, status="interrupted", test_acc=None)
    add(b, 0, test_acc=0.75)
    add(a, 1)  # begun, and not ended anywhere
    merge([a, b], tmp_path / "out")
    assert list(runs(tmp_path / "out")["status"]) == ["ok", "interrupted"]
    assert runs(tmp_path / "out")["test_acc"][0] == 0.75


def test_what_searches_found_comes_along_and_must_agree(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for root, best in ((a, 0.1), (b, 0.1)):
        add(root, 0, test_acc=0.5)
        searches.save([search(best)], searches.beside(root / "exp"))
    merge([a, b], tmp_path / "out")
    assert Results(tmp_path / "out", columns=COLUMNS).searches == [search(0.1)]
    searches.save([search(0.3)], searches.beside(b / "exp"))
    with pytest.raises(StoreError, match=r"the search for m on n, d found \{'lr': 0.1\} in one folder"):
        merge([a, b], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def scaled(workers: int, rate: float, **changes: Any) -> Point:
    return point(workers, rate, point_id=f"p{workers}", **changes)


def points(root: Path) -> list[tuple[int, float | None]]:
    return sorted((of.workers, of.images_per_s) for of in scaling.load(root))


def test_points_of_scaling_come_along_each_once(tmp_path: Path) -> None:
    """From a folder of experiments, from one experiment, and beside runs; a failed one gives way."""
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    for of in (scaled(1, 100.0), scaled(2, 0.0, status="crashed")):
        scaling.save(a / "scale", of)
    for of in (scaled(1, 100.0, date="2026-02-02"), scaled(2, 180.0)):
        scaling.save(b / "scale", of)
    add(b, 0)
    assert merge([a / "scale", b], out) == (1, 2)
    assert points(out / "scale") == [(1, 100.0), (2, 180.0)]
    assert merge([a], out) == (1, 2)
    assert points(out) == [(1, 100.0), (2, 180.0)]


def test_two_measurements_of_one_point_are_named_and_nothing_written(tmp_path: Path) -> None:
    """What one machine did with two workers must not stand against what another did with one."""
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    for root, rates in ((a, {1: 100.0, 2: 180.0}), (b, {1: 50.0, 4: 150.0})):
        for workers, rate in rates.items():
            scaling.save(root / "scale", scaled(workers, rate))
    scaling.save(a / "scale", scaled(1, 70.0, way="data").model_copy(update={"point_id": "other"}))
    add(a, 0)
    two = (
        r"scale: noprop-dt on denoiser, digits, blocks, 1 worker \(measured\) .*a/scale/scaling/p1.json has 100 .* 50 "
    )
    with pytest.raises(StoreError, match=two):
        merge([a, b], out)
    assert not out.exists()
    assert merge([a, b], out, keep=b) == (1, 3)
    assert points(out) == [(1, 50.0), (1, 70.0), (4, 150.0)]
    assert merge([a], out, keep=a) == (1, 3)
    assert points(out) == [(1, 70.0), (1, 100.0), (2, 180.0)]


def interrupted(root: Path) -> RunFolder:
    folder = add(root, 0, status="interrupted", test_acc=None)
    folder.save_checkpoint({"x": torch.ones(2)})
    folder.write_table("angles", ("layer",), [{"layer": "a"}])
    return folder


def test_an_ended_record_over_an_interrupted_one_leaves_nothing_of_it(tmp_path: Path) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    add(a, 0, test_acc=0.75)
    target = interrupted(out)
    merge([a], out)
    assert sorted(path.name for path in target.path.iterdir()) == [
        ".lock", "curve.csv", "env.json", "spec.json", "stderr.txt", "summary.json",
    ]  # fmt: skip


def test_a_run_at_work_in_the_target_is_refused_and_nothing_written(tmp_path: Path) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    for seed in (0, 1):
        add(a, seed, test_acc=0.5)
    target = interrupted(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    fd = target.lock()
    assert fd is not None
    with pytest.raises(StoreError, match="run0 is at work"):
        merge([a], out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    os.close(fd)
    assert merge([a], out).runs == 2


def test_a_run_that_ends_between_reading_and_writing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, out = tmp_path / "a", tmp_path / "out"
    add(a, 0, test_acc=0.5)
    target = interrupted(out)
    monkeypatch.setattr(of_merge, "_refuse_work", lambda _: target.finish({"status": "ok", "test_acc": 0.25}))
    with pytest.raises(StoreError, match="has changed meanwhile; run the same command again"):
        merge([a], out)
    assert runs(out)["test_acc"][0] == 0.25


class Killed(BaseException):
    """In place of a kill: no handler of errors runs."""


def test_a_merge_that_is_killed_at_any_moment_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over an interrupted run, a run that contradicts, and nothing. After no kill does an ended record mix two runs."""
    a, whole = tmp_path / "a", tmp_path / "whole"
    for seed in (0, 1, 2):
        add(a, seed, test_acc=seed / 10)
    searches.save([search(0.1)], searches.beside(a / "exp"))
    scaling.save(a / "exp", scaled(1, 100.0))

    def target(out: Path) -> Path:
        interrupted(out)
        add(out, 1, test_acc=0.9).write_curve([{"epoch": 9, "step": 1, "train_loss": 0.5}])
        return out

    def content(out: Path) -> dict[str, bytes]:
        return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}

    merge([a], target(whole), keep=a)
    for steps in range(200):
        out = target(tmp_path / f"out{steps}")
        left = [steps]
        for module, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir")):
            _count_down(monkeypatch, module, name, left)
        try:
            merge([a], out, keep=a)
            assert steps > 30
            monkeypatch.undo()
            break
        except Killed:
            monkeypatch.undo()
        for path in out.glob("exp/run1/summary.json"):
            curve, accuracy = (path.parent / "curve.csv").read_text(), json.loads(path.read_bytes())["test_acc"]
            assert ("\n9,1" in curve) == (accuracy == 0.9)
        assert not list(out.glob("exp/run0/checkpoint.pt")) or "ok" not in (
            (out / "exp/run0/summary.json").read_text() if (out / "exp/run0/summary.json").exists() else ""
        )
        merge([a], out, keep=a)
        assert content(out) == content(whole), steps
    else:
        pytest.fail("never came to its end")


def _count_down(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, left: list[int]) -> None:
    original = getattr(module, name)

    def act(*args: Any, **kwargs: Any) -> Any:
        if name != "open" or (len(args) > 1 and isinstance(args[1], int) and args[1] & os.O_CREAT):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, act)
