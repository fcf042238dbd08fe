"""Any field of a results folder may hold anything: every verb ends, prints clean lines and keeps the other rows."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.api.errors import BenchError, StoreError
from bench.cli.printing import fail, one_line, say
from bench.experiment import results_of, write_report
from bench.record import forms
from bench.record.merge import merge
from bench.record.pack import pack
from bench.record.standing import standings
from bench.report import numbers
from bench.report.latex import escape
from bench.report.text import cell, markdown
from bench.report.versus import ratios_of, versus_frame, versus_table
from tests.bench.report.made import CATALOG
from tests.bench.report.test_bad_input import record

HOSTILE = [
    *("null", "true", "0", "-1", "1.5", '""', '"text"', "[]", "{}", "[[1]]", '{"a": [1]}', "1e308", "-1e999", "NaN"),
    *("1" + "0" * 400, "9" * 5001, "1000000000", "-" + "9" * 30, r'"\ud800"', r'"\u0000\u001b]52;c;aGk=\u0007"'),
    *('"=cmd|x"', r'"a\nb\u202e"', "[" * 200 + "]" * 200, "[" * 100_000, '"' + "x" * 5000 + '"'),
]
CURVE = b"epoch,step,train_loss,val_acc,val_acc_noise_free,train_s,data_s,eval_s\n1,5,1.0,0.5,,1,0,0\n"


def results_folder(root: Path) -> Path:
    for seed in range(2):
        for method in ("backprop", "spsa"):
            folder = record(
                root, f"{method}{seed}", spec={"seed": seed, "method": method, "tuned": [], "instruments": []},
                finished_at=1.7e9, wall_s=3.0, own=1.5,
            )  # fmt: skip
            (folder / "curve.csv").write_bytes(CURVE)
            (folder / "notes.csv").write_text("layer,value\na,1.5\n")
            own = {"name": "own", "title": "own", "what": "one", "decimals": 2, "shown": "page"}
            (folder / "columns.json").write_text(json.dumps([own]))
    runs = [{"run_id": p.name, "dataset": "digits", "net": "mlp", "method": "spsa", "seed": 0, "epochs": 2}
            for p in sorted((root / "exp").iterdir())]  # fmt: skip
    (root / "exp" / "plan.json").write_text(json.dumps(runs))
    return root


def mutations(experiment: Path) -> Iterator[tuple[Path, bytes]]:
    """Each field of each JSON file of one record, and of the plan, with each hostile value; cells and whole files."""
    for path in [*sorted((experiment / "spsa1").iterdir()), experiment / "plan.json"]:
        whole = path.read_bytes()
        yield from ((path, data) for data in (b"", b"\0", b"\xff\xfe{\0}\0", whole.decode().encode("utf-16")))
        if path.suffix == ".csv":
            yield from ((path, whole.replace(b"1,5", words.encode()[:500] + b",5")) for words in HOSTILE)
            continue
        content = json.loads(whole)
        for name in content[0] if isinstance(content, list) else content:
            for value in HOSTILE:
                changed: Any = json.loads(whole)
                (changed[0] if isinstance(changed, list) else changed)[name] = "@@"
                yield path, json.dumps(changed).replace('"@@"', value).encode()


def read_everything(root: Path) -> list[str]:
    """All that the verbs read, but for pictures; what they would print. Only a StoreError may be raised."""
    results = results_of(root, CATALOG, lenient=True)
    assert {"spsa0", "backprop0", "backprop1"} <= set(results.runs["run_id"])
    _ = results.curves, results.environments, results.artifacts, results.searches, results.stderr
    for name in results.tables:
        results.table(name)
    problems = list(results.problems)
    standings(root, problems)
    try:
        sides = [results_of(root, CATALOG), results_of(root, CATALOG)]
        problems += [c for row in versus_table(versus_frame(*sides), ratios_of(sides[0])).rows for c in row]
    except StoreError as error:
        problems.append(str(error))
    return [one_line(problem) for problem in problems]


def test_no_field_of_a_record_can_abort_a_reading(tmp_path: Path) -> None:
    experiment = results_folder(tmp_path / "results") / "exp"
    every = list(mutations(experiment))
    for path, data in random.Random(0).sample(every, 120):
        before = path.read_bytes()
        path.write_bytes(data)
        try:
            printed = read_everything(experiment.parent)
        except Exception as error:
            raise AssertionError(f"{path.name}: {data[:300]!r}") from error
        path.write_bytes(before)
        assert all(line.isprintable() for line in printed)


@pytest.mark.parametrize("name", ["spec.json", "summary.json", "curve.csv"])
def test_a_report_a_pack_and_a_merge_over_a_bad_record(tmp_path: Path, name: str) -> None:
    root = results_folder(tmp_path / "results")
    every = [(path, data) for path, data in mutations(root / "exp") if path.name == name]
    for k, (path, data) in enumerate(random.Random(1).sample(every, 2)):
        before = path.read_bytes()
        path.write_bytes(data)
        text = write_report(results_of(root, CATALOG, lenient=True), tmp_path / "report").read_text()
        assert "spsa" in text
        for act in (lambda k=k: pack(root / "exp", tmp_path / f"p{k}"), lambda k=k: merge([root], tmp_path / f"m{k}")):
            try:
                act()
            except BenchError:
                shutil.rmtree(tmp_path / f"p{k}", ignore_errors=True)
        path.write_bytes(before)


@pytest.mark.parametrize("value", ["[" * 100_000, "[" * 60 + "]" * 60, "1" * 5001, "1e999", "NaN", r'"\ud800"'])
def test_json_that_no_record_holds_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"^[\x20-\x7e]{1,200}$"):
        forms.json_of(value.encode())


def test_a_section_that_fails_is_a_line_of_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(results: object) -> Iterator[Any]:
        raise ZeroDivisionError("by a record")
        yield

    monkeypatch.setattr("bench.report.SECTIONS", (broken, *__import__("bench.report").report.SECTIONS))
    results = results_of(results_folder(tmp_path / "results"), CATALOG, lenient=True)
    text = write_report(results, tmp_path / "out").read_text()
    assert "could not be made: ZeroDivisionError: by a record" in text
    assert "4 ok of 4 attempted" in text
    assert any("ZeroDivisionError" in problem for problem in results.problems)


def test_what_is_printed_holds_no_terminal_code(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]52;c;aGk=\x07\x9b31m\u202e\0b"
    say(evil)
    fail(evil + "\nsecond" + "x" * 5000)
    out, err = capsys.readouterr()
    assert out.rstrip("\n").isprintable()
    assert err.rstrip("\n").isprintable()
    assert len(err) <= 301


def test_exports_hold_no_formula_link_mention_or_argument() -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": ["=1+1", "-2.5", "plain", "@x", "\tx"], "n": [-1.0, 2, 3, 4, 5]})
    assert numbers.csv(frame) == b"a,n\n'=1+1,-1\n-2.5,2\nplain,3\n'@x,4\n'\tx,5\n"
    assert cell(-3) == -3
    told = markdown("see https://evil.example www.evil.example @someone")
    assert "://" not in told
    assert "www." not in told
    assert "@someone" not in told
    assert escape("[5pt]") == "{[}5pt{]}"
