"""`bench scale`: a table that fits a terminal, records that are kept, a section of the report, and bad input."""

import json
from pathlib import Path

import pandas as pd
import pytest

from bench.cli.main import main

SMALL = [
    *("--set", "denoiser.T=2", "--set", "denoiser.width=4", "--set", "denoiser.hidden=32"),
    *("--batch-size", "32", "--steps", "2", "--warm-up", "1", "--micro-batches", "2"),
]


def scale(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["scale", *SMALL, *arguments])
    return ended.value.code


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test runner keeps its own handlers


def test_points_are_measured_modelled_reported_and_kept(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.scale.study.cores", lambda: 1)  # two workers are simulated, and nothing takes a link
    link = ("--latency", "50", "--bandwidth", "1.25")
    assert scale("--workers", "1,2", "--quiet", *link) == 0
    shown = capfd.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    assert [("measured" in line, "simulated" in line) for line in shown[1:7]] == [(True, False), (False, True)] * 3

    files = {path: path.read_bytes() for path in Path("results/scale/scaling").iterdir()}
    points = [json.loads(data) for data in files.values()]
    kinds = {(p["way"], p["workers"]): p["kind"] for p in points}
    assert kinds == {(w, n): k for w in ("blocks", "data", "pipeline") for n, k in ((1, "measured"), (2, "simulated"))}
    assert all(p["link"]["source"] == "stated" for p in points if p["workers"] == 2)
    assert all(p["environment"]["versions"]["torch"] for p in points)

    frame = pd.read_csv("reports/scale/tables/scaling.csv")
    assert set(frame["variant"]) == {"blocks", "data parallel", "pipeline"}
    assert frame.loc[frame["workers"] == 1, "speed_up"].tolist() == [1.0] * 3
    text = Path("reports/scale/report.md").read_text()
    assert "## Scaling" in text
    assert "simulated" in text
    assert Path("reports/scale/figures/scaling_digits.svg").stat().st_size > 0

    assert scale("--workers", "1,2", "--quiet", *link) == 0  # what was measured is kept
    kept = {path: path.read_bytes() for path in Path("results/scale/scaling").iterdir()}
    assert all(kept[path] == data for path, data in files.items() if json.loads(data)["kind"] == "measured")
    with pytest.raises(SystemExit) as ended:
        main(["report", "results/scale"])
    assert ended.value.code == 0


def test_a_worker_that_fails_is_told_and_what_can_be_simulated_is_there(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.scale.study.cores", lambda: 1)
    monkeypatch.setattr("bench.scale.study.run_group", _no_group)
    assert scale("--workers", "1", "--ways", "blocks") == 1
    shown = capfd.readouterr().out
    assert "noprop-dt, blocks, 1 worker: worker 0 of 1 was killed" in shown
    assert "failed" in shown


def _no_group(*_: object) -> None:
    from bench.scale.group import WorkerError

    raise WorkerError("worker 0 of 1 was killed by SIGKILL; the others were ended")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--workers", "0"], "--workers 0: write numbers of workers from 1 to 9999"),
        (["--workers", "two"], "--workers two: write numbers of workers from 1 to 9999, as in 1,2,4"),
        (["--workers", "3"], "--workers 3: noprop-dt on denoiser has T = 2 blocks"),
        (["--method", "no-prop"], "unknown method 'no-prop'"),
        (
            ["--method", "backprop", "--net", "denoiser"],
            "backprop has no blocks that learn independently of each other",
        ),
        (["--against", "spsa", "--workers", "2"], "spsa has no gradient of one loss through its net"),
        (["--ways", "rows"], "'rows' is none of blocks, data, pipeline"),
        (["--latency", "5"], "--latency and --bandwidth say together what a link carries"),
        (["--micro-batches", "40", "--workers", "2"], "--micro-batches 40: a batch has 32 images"),
        (["--workers", "2", "--set", "noprop-dt.execution=stacked"], "over workers use loop"),
        (["--workers", "2", "--set", "noprop-dt.order=sequential"], "over workers use joint"),
        (
            ["--method", "diffusion-blocks", "--workers", "2", "--set", "diffusion-blocks.order=random"],
            "over workers use joint",
        ),
        (["--workers", "2", "--set", "backprop.supervision=0.5"], "over workers supervision stays at 0.0, not 0.5"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], complaint: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.scale.study.cores", lambda: 2)  # with one there would be no link to be measured
    assert scale(*arguments) == 2
    shown = capfd.readouterr()
    assert complaint in shown.err
    assert len(shown.err.splitlines()) == 1
    assert not Path("results").exists()
