"""A report that keeps up with a sweep: what counts as changed, when it is written, how it ends."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.api.errors import StoreError
from bench.record.changes import stamp
from bench.record.folder import RunFolder
from bench.record.standing import save_plan
from bench.report.render_html import Watched, rendered, still
from bench.report.watch import watch

SPEC = {"dataset": "d", "net": "n", "method": "a", "seed": 0, "epochs": 4}


def sweep(root: Path) -> RunFolder:
    save_plan(root / "exp", [{**SPEC, "run_id": "a0"}])
    run = RunFolder(root, "exp", "a0")
    run.create(SPEC, {})
    return run


def test_curves_summaries_new_runs_plans_packs_and_searches_count_as_changed(tmp_path: Path) -> None:
    run = sweep(tmp_path)
    stamps = [stamp(tmp_path)]

    def changed() -> bool:
        stamps.append(stamp(tmp_path))
        return stamps[-1] != stamps[-2]

    assert not changed()
    run.write_curve([{"epoch": 1, "step": 1, "train_loss": 0.5}])
    assert changed()
    run.write_curve([{"epoch": 1, "step": 1, "train_loss": 0.5}])  # as long, and maybe within one tick of the clock
    assert changed()
    run.finish({"status": "ok"})
    assert changed()
    RunFolder(tmp_path, "exp", "b0").create(SPEC, {})
    assert changed()
    for name in ("plan.json", "records.zip"):
        (tmp_path / "exp" / name).write_bytes(b"[]")
        assert changed()
    (tmp_path / "exp.tuning").mkdir()
    (tmp_path / "exp.tuning" / "winners.json").write_bytes(b"[]")
    assert changed()
    for name in ("checkpoint.pt", ".lock", "stdout.txt", "stderr.txt", ".curve.csv.1.tmp", "env.json"):
        (run.path / name).write_bytes(os.urandom(9))
        assert not changed()


def test_a_stamp_of_an_experiment_sees_the_search_beside_it(tmp_path: Path) -> None:
    sweep(tmp_path)
    before = stamp(tmp_path / "exp")
    (tmp_path / "exp.tuning").mkdir()
    (tmp_path / "exp.tuning" / "winners.json").write_bytes(b"[]")
    assert stamp(tmp_path / "exp") != before
    assert stamp(tmp_path / "nowhere") == frozenset()


def test_it_is_written_once_a_change_and_last_without_being_watched(tmp_path: Path) -> None:
    run = sweep(tmp_path)
    lines: list[str] = []
    written: list[tuple[float, Watched | None]] = []

    def write(watched: Watched | None) -> Path:
        written.append((time.monotonic(), watched))
        if len(written) == 1:
            threading.Timer(0.5, run.write_curve, [[{"epoch": 1, "step": 1}]]).start()
        if len(written) == 2:
            threading.Timer(0.1, run.finish, [{"status": "ok"}]).start()
        return tmp_path / "index.html"

    watch(tmp_path, write, every_s=0.3, stop=threading.Event(), tell=lines.append)
    assert [watched is not None for _, watched in written] == [True, True, False]
    times = [at for at, _ in written]
    assert all(b - a >= 0.29 for a, b in itertools.pairwise(times))
    assert len(lines) == 3
    assert lines[-1] == "done: 1 of 1 runs have ended"


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is no folder"):
        watch(tmp_path / "file", lambda _: tmp_path, every_s=1, stop=threading.Event(), tell=print)


def test_only_a_watched_page_reloads(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(rendered([], title="t", watched=Watched("12:00:00", "1 of 2 runs", 10)))
    html = page.read_text()
    assert "Being watched, written 12:00:00: 1 of 2 runs" in html
    assert "location.reload" in html
    assert 'http-equiv="refresh"' in html
    still(page)
    for text in (page.read_text(), rendered([], title="t")):
        assert "location.reload" not in text
        assert "refresh" not in text.partition("<style>")[0]
        assert 'id="watched"' not in text


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    return [sys.executable, "-c", "from bench.cli.main import main; main()"]


def test_a_sweep_in_another_process_is_followed_to_its_end(tmp_path: Path, command: list[str]) -> None:
    options = ["--watch", "--every", "1"]
    log = tmp_path / "log"
    with log.open("w") as out:
        watching = subprocess.Popen(
            [*command, "report", "results/default", *options], cwd=tmp_path, stdout=out, stderr=out
        )
    until(lambda: "waiting for runs in results/default" in log.read_text())
    small = ["--methods", "backprop", "--net", "mlp", "--seeds", "2", "--epochs", "1", "--quiet"]
    subprocess.run([*command, "run", *small, "--reports", "other"], cwd=tmp_path, check=True, capture_output=True)
    assert watching.wait(60) == 0, log.read_text()
    lines = log.read_text().splitlines()
    assert lines[0] == "waiting for runs in results/default"
    assert lines[-1] == "done: 2 of 2 runs have ended"
    html = (tmp_path / "reports/default/index.html").read_text()
    assert "</html>" in html
    assert "location.reload" not in html


def test_ctrl_c_ends_it_cleanly_and_leaves_a_page_that_is_not_watched(tmp_path: Path, command: list[str]) -> None:
    small = ["--methods", "backprop", "--net", "mlp", "--seeds", "1", "--epochs", "1", "--quiet"]
    subprocess.run([*command, "run", *small], cwd=tmp_path, check=True, capture_output=True)
    plan = tmp_path / "results/default/plan.json"
    plan.write_text(
        plan.read_text().replace(
            "]", ', {"run_id": "x", "dataset": "digits", "net": "mlp", "method": "spsa", "seed": 1, "epochs": 1}]'
        )
    )
    page = tmp_path / "reports/default/index.html"
    log = tmp_path / "log"
    with log.open("w") as out:
        watching = subprocess.Popen([*command, "report", "--watch", "--every", "1", "results/default"],
                                    cwd=tmp_path, stdout=out, stderr=out)  # fmt: skip
    until(lambda: "1 of 2 runs have ended" in log.read_text())
    assert "location.reload" in page.read_text()
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 0
    assert "Traceback" not in log.read_text()
    assert "location.reload" not in page.read_text()


def until(holds: Callable[[], object], patience_s: float = 60) -> None:
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
