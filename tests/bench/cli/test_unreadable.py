"""A sweep that goes on beside a record that is corrupt."""

import json
from pathlib import Path

import pytest

from bench.cli.main import main


def test_a_corrupt_record_costs_its_own_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test runner keeps its own handlers

    def run(seeds: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(
                ["run", "--methods", "backprop", "--net", "mlp", "--batch-size", "64", "--steps", "2", "--seeds", seeds]
            )
        return int(ended.value.code or 0), *capsys.readouterr()

    assert run("1")[0] == 0
    (summary,) = (tmp_path / "results").glob("*/*/summary.json")
    summary.write_text('{"status": 5}')
    code, out, err = run("2")
    assert code == 2
    assert "seed 1: ok" in out
    assert f"{summary.relative_to(tmp_path)} is corrupt" in out
    assert f"{summary} is corrupt" in err
    assert summary.read_text() == '{"status": 5}'
    other = next(path for path in (tmp_path / "results").glob("*/*/summary.json") if path != summary)
    assert json.loads(other.read_text())["status"] == "ok"
    other.write_text("{")  # now no record can be read: an empty report, and each of them named
    code, out, err = run("2")
    assert (code, "report: " in out) == (2, True)
    assert f"{summary} is corrupt" in err
    assert f"{other} is corrupt" in err
