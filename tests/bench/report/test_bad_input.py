"""Reports over folders in which something is wrong: the rest is shown, and the trouble is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.api.errors import StoreError
from bench.command import results_of, write_report
from bench.record.results import Results
from bench.record.schema import SCHEMA
from tests.bench.report.made import CATALOG, MEASURED

EVIL = "<img src=x onerror=alert(1)>"


def record(root: Path, run_id: str, *, spec: dict[str, Any] | None = None, **summary: Any) -> Path:
    folder = root / "exp" / run_id
    folder.mkdir(parents=True)
    asked = {"method": "backprop", "net": "mlp", "dataset": "digits", "seed": 0, "epochs": 2, "batch_size": 8}
    (folder / "spec.json").write_text(json.dumps({**asked, "schema": SCHEMA, **(spec or {})}))
    (folder / "env.json").write_text(json.dumps({"env_id": "e1", "cpu": "some"}))
    ended = {"status": "ok", "reason": None, "test_acc": 0.9, "val_acc": 0.9, **MEASURED, **summary}
    (folder / "summary.json").write_text(json.dumps(ended))
    return folder


def reported(root: Path, out: Path) -> tuple[str, str, list[str]]:
    """report.md, index.html, and what was told."""
    results = results_of(root, CATALOG, lenient=True)
    page = write_report(results, out)
    return page.read_text(), (out / "index.html").read_text(), results.problems


def test_what_is_corrupt_is_left_out_and_named(tmp_path: Path) -> None:
    root = tmp_path / "results"
    for k in range(6):
        record(root, f"run{k}", spec={"seed": k})
    runs = root / "exp"
    (runs / "run1" / "spec.json").write_text('{"method": "back')  # truncated
    (runs / "run2" / "curve.csv").write_text("a,b\n1,2\n")
    (runs / "run3" / "artifacts.npz").write_bytes(b"PK")
    (runs / "run4" / "summary.json").write_text(json.dumps({"status": "ok", "test_acc": "high"}))
    (runs / "run5" / "notes.csv").write_text("a,b\n1\n")
    (runs / "notes.txt").write_text("not ours")
    (runs / "half").mkdir()
    (runs / "half" / "summary.json").write_text("{}")
    text, page, problems = reported(root, tmp_path / "out")
    assert "- Runs: 5 ok of 5 attempted" in text
    told = ("run1/spec.json is corrupt", "run2/curve.csv is corrupt", "run3/artifacts.npz is corrupt")
    told += (
        "run4/summary.json is corrupt",
        "run5/notes.csv is corrupt",
        "notes.txt is no part",
        "half has no spec.json",
    )
    for part in told:
        assert sum(part in problem for problem in problems) == 1, part
    assert "## Trouble" in text
    assert "run1/spec.json is corrupt" in page


def test_a_pack_that_is_cut_short_hides_no_other_experiment(tmp_path: Path) -> None:
    root = tmp_path / "results"
    record(root, "run0")
    (root / "cut").mkdir()
    (root / "cut" / "records.zip").write_bytes(b"PK\x03\x04 and no more")
    text, _, problems = reported(root, tmp_path / "out")
    assert "1 ok of 1 attempted" in text
    assert len(problems) == 1
    assert "cut/records.zip is corrupt" in problems[0]


def test_an_older_record_is_brought_up_to_date(tmp_path: Path) -> None:
    record(tmp_path / "results", "run0", spec={"alignment": True})
    old = tmp_path / "results" / "exp" / "run0" / "spec.json"
    old.write_text(json.dumps({k: v for k, v in json.loads(old.read_text()).items() if k != "schema"}))
    results = results_of(tmp_path / "results", CATALOG, lenient=True)
    assert results.specs["run0"]["instruments"] == ["alignment"]
    assert results.specs["run0"]["schema"] == SCHEMA
    assert results.problems == []


def test_a_newer_record_is_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "results"
    record(root, "run0")
    record(root, "later", spec={"schema": SCHEMA + 1})
    with pytest.raises(StoreError, match=f"later has schema {SCHEMA + 1}.*newer version.*upgrade"):
        _ = Results(root, columns=()).runs
    text, page, problems = reported(root, tmp_path / "out")
    assert "1 ok of 1 attempted" in text
    assert len(problems) == 1
    assert f"later has schema {SCHEMA + 1}" in page


def test_without_any_run_the_page_says_so(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    text, page, problems = reported(tmp_path / "results", tmp_path / "out")
    assert "there is no answer yet" in text
    assert "there is no answer yet" in page
    assert "holds no run records" in problems[0]


def test_with_failed_runs_alone_each_is_shown_with_its_reason(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("test_acc", "val_acc", *MEASURED))
    for k in range(2):
        ended = {**nothing, "status": "crashed", "reason": f"ValueError: {EVIL}"}
        folder = record(tmp_path / "results", f"run{k}", spec={"seed": k, "method": EVIL}, **ended)
        (folder / "stderr.txt").write_text(f"Traceback ```\n\x1b[31m{EVIL}\n")
    text, page, problems = reported(tmp_path / "results", tmp_path / "out")
    assert problems == []
    assert "0 ok of 2 attempted" in text
    assert "The end of stderr of run0 and 1 more that wrote the same" in page
    assert "<img src=x" not in page
    assert "ValueError: &lt;img src=x onerror=alert(1)&gt;" in page
    assert "````text\nTraceback ```" in text
    assert "\x1b" not in text
