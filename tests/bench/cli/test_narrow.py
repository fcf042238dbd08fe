"""Every command that prints a table, in a terminal of 80 columns: nothing is wider, no number cut, every name whole."""

import re
import sys
from pathlib import Path

import pytest

from bench.cli.main import main

NAMES = ["backprop", "direct-feedback-alignment", "equilibrium-propagation"]
LONG = ["--methods", ",".join(NAMES), "--net", "mlp", "--set", "mlp.width=16,32"]
SMALL = [*LONG, "--epochs", "1", "--seeds", "1"]
COMMANDS: dict[str, list[str]] = {
    "run": ["run", *SMALL, "--quiet"],
    "dry run": ["run", *SMALL, "--dry-run"],
    "status": ["status"],
    "compare": ["compare", "results/default", "results/default"],
    "tune": ["tune", "--methods", ",".join(NAMES), "--net", "mlp", "--epochs", "1", "--trials", "2", "--quiet"],
    "memory": ["memory", *LONG, "--batch-size", "32", "--quiet"],
    "audit": ["audit", "--methods", ",".join(NAMES), "--net", "mlp", "--quiet"],
    "estimate": ["estimate", *LONG],
    "methods": ["list", "methods"],
    "data sets": ["list", "datasets"],
    "nets": ["list", "nets"],
    "instruments": ["list", "instruments"],
    "presets": ["list", "presets"],
    "show": ["show", "equilibrium-propagation"],
    "doctor": ["doctor"],
}
NAMED = {"run", "dry run", "compare", "tune", "memory", "audit", "estimate", "methods", "presets"}
FAST = {"run", "dry run", "status", "compare", "methods", "data sets", "nets", "instruments", "presets", "estimate"}
PATHS = re.compile(r"^(report|trials|data folder): |cite|bibtex|@|https?:|^ {2}\w+ = ", re.I)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("narrow")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS]
)
def test_eighty_columns_are_enough(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    if name in ("status", "compare"):
        _call(COMMANDS["run"], monkeypatch)
        capfd.readouterr()
    code = _call(COMMANDS[name], monkeypatch)
    out, err = capfd.readouterr()
    assert code == 0, err
    if name == "show":  # the module's own words come before its tables
        out = out[out.index("\nclaim") :]
    wide = [line for line in out.splitlines() if len(line.rstrip()) > 80 and not PATHS.match(line)]
    assert not wide
    assert "…" not in out
    folded = [] if name == "show" else out.splitlines()  # ranges fold between their ends
    assert not [line for line in folded if re.fullmatch(r"\s*[.\d]{1,2}\s*", line)]  # the end of a number
    if name in NAMED:
        assert all(method in out for method in NAMES)


def _call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)
