"""`bench audit`: a table of what was measured, matrices on request, and a report with a heat map."""

from pathlib import Path

import pandas as pd
import pytest

from bench.cli.main import main


def test_each_method_is_looked_at_and_none_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test runner keeps its own handlers
    with pytest.raises(SystemExit) as ended:
        main(["audit", "--methods", "drtp,direct-feedback-alignment,random-features", "--matrix", "--quiet"])
    assert ended.value.code == 0
    shown = capfd.readouterr().out
    head, *lines = shown.splitlines()
    asked = "method net runs ok updates wait for reverse mode weight transport passes per step passes per prediction"
    assert " ".join(head.split()).startswith(asked)
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[:3]}
    assert rows["drtp"].startswith("mlp 1/1 earlier blocks layer no 1 1")
    assert rows["direct-feedback-alignment"].startswith("mlp 1/1 the output layer no 1 1")

    first = lines[lines.index("digits, drtp, mlp") + 1].split()
    assert (float(first[0]) > 0, first[1:]) == (True, ["."] * 4)  # five blocks, the first of which waits for none
    assert lines[lines.index("digits, random-features, mlp") + 1].split() == ["-", "-"]

    runs = pd.read_csv("reports/audit/tables/runs.csv")
    assert runs["train_s"].isna().all()
    assert runs["test_acc"].isna().all()
    figures = sorted(path.name for path in Path("reports/audit/figures").iterdir())
    assert figures == ["update-dependency.png", "update-dependency.svg"]
