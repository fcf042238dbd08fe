"""The bar over a whole command: its count, its estimate of the end, and what it draws in a terminal."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.display.tally import Tally
from bench.runner.events import Ended, Kept, Started, Stepped


def a_run(run_id: str, seed: int, epochs: int = 4, method: str = "a") -> Any:
    known = {"dataset": "d", "net": "n", "method": method, "seed": seed, "epochs": epochs}
    spec = SimpleNamespace(run_id=run_id, seconds=None, model_dump=lambda mode: known, **known)
    return SimpleNamespace(spec=spec)


def ahead(run: Any, **more: Any) -> dict[str, Any]:
    return {**run.spec.model_dump("json"), "run_id": run.spec.run_id, **more}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_search_counts_from_the_start_and_what_it_does_not_need_goes() -> None:
    runs = [a_run("r0", 0), a_run("r1", 1)]
    trials = [a_run(f"t{k}", 1000, 2) for k in range(6)]
    tally = Tally([*(ahead(t, trial=True) for t in trials[:4]), *map(ahead, runs)], 1, Clock())
    assert tally.counts == "0 of 6 runs"
    tally.begin(trials[:2])
    assert tally.counts == "0 of 6 runs"
    for trial in trials[:2]:
        tally.hear(trial, Ended({"status": "ok", "wall_s": 2.0}))
    assert tally.counts == "2 of 6 runs"
    tally.begin(trials[2:4])
    tally.begin(trials[4:])  # a range is widened
    assert tally.counts == "2 of 8 runs"
    for trial in trials[2:]:
        tally.hear(trial, Kept({"status": "ok"}))
    tally.begin([a_run("other0", 0), a_run("other1", 1)])  # the settings that were found make other runs
    assert tally.counts == "6 of 8 runs"

    refused = Tally([*(ahead(t, trial=True) for t in trials[:4]), *map(ahead, runs)], 1, Clock())
    refused.begin(runs)
    assert refused.counts == "0 of 2 runs"


def test_the_end_is_told_by_the_epochs_of_runs_alike_and_of_the_run_at_work() -> None:
    runs = [a_run("r0", 0), a_run("r1", 1)]
    trial = a_run("t0", 1000, 2)
    clock = Clock()
    tally = Tally([ahead(trial, trial=True), *map(ahead, runs)], 1, clock)
    tally.begin([trial])
    assert tally.remaining_s() is None
    assert tally.end() == "end not known yet"
    tally.hear(trial, Started())
    clock.now = 10.0
    tally.hear(trial, Ended({"status": "ok", "wall_s": 9.0}))
    assert tally.remaining_s() == 40.0  # two runs of four epochs, of which two took ten seconds
    tally.begin(runs)
    tally.hear(runs[0], Started())
    clock.now = 16.0
    tally.hear(runs[0], Stepped(25, 100, 6.0))
    assert tally.remaining_s() == 18.0 + 20.0
    assert tally.done == 1.25
    clock.now = 20.0
    assert tally.remaining_s() == 34.0  # without news it counts down
    assert Tally([], 2, clock).remaining_s() == 0.0


def test_a_search_and_its_runs_are_one_bar_in_a_terminal(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text("methods: [backprop]\ndatasets: [digits]\nnet: mlp\nepochs: 1\nseeds: 2\ntune: {trials: 2}\n")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.environ.pop("COLUMNS", None)
        code = "from bench.cli.main import main; main()"
        os.execv(sys.executable, [sys.executable, "-c", code, "run", "--config", str(config)])  # noqa: S606
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    drawn = b""
    try:
        while part := os.read(terminal, 65536):
            drawn += part
    except OSError:  # how a pty tells of its end on Linux
        pass
    os.close(terminal)
    assert os.waitpid(child, 0)[1] == 0, drawn.decode()
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode()))
    counts = [tuple(map(int, found)) for found in re.findall(r"(\d+) of (\d+) runs", "\n".join(lines))]
    assert counts[0] == (0, 4)
    assert counts == sorted(counts)
    assert counts[-1][0] == counts[-1][1] >= 4
    assert max(map(len, lines)) <= 80
    assert any("left, until" in line for line in lines)
    assert any("setting up" in line or "epoch 1/1" in line for line in lines)
