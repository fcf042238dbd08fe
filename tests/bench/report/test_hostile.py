"""Any field of a results folder may hold anything: every verb ends, prints clean lines and keeps the other rows."""

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.api.artifact import Artifact, HeatMap, Images, Lines
from bench.api.errors import BenchError, StoreError
from bench.cli.main import main
from bench.command import results_of, write_report
from bench.display.printing import fail, one_line, say
from bench.record import forms
from bench.record.artifacts import to_bytes
from bench.record.merge import merge
from bench.record.pack import pack
from bench.record.spreadsheet import cell
from bench.record.standing import standings
from bench.report import drawing, numbers, render_html, render_markdown
from bench.report.blocks import Axis, Block, Cards, Data, Facts, Heading, Panel, Picture, Series, Table, Text
from bench.report.latex import escape
from bench.report.sections import every_run, what_was_run
from bench.report.text import markdown
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


class Unprintable:
    def __str__(self) -> str:
        raise ZeroDivisionError("by a record")


def chart(highest: float) -> Picture:
    from matplotlib.figure import Figure

    key = ("spsa", "mlp", "")
    series = Series(key, "line", [0, 1], [0, 1])
    axis = Axis("x", highest=highest)
    return Picture("p", "caption", Figure((1, 1)), [Panel("t", axis, axis, [series])], {key: looks_of(key)})


def looks_of(key: tuple[str, str, str]) -> Any:
    import pandas as pd

    from bench.report.style import looks

    return looks(pd.DataFrame([key], columns=["method", "net", "variant"]))[key]


def broken_blocks() -> list[Block]:
    """Fail in Markdown, in the page, in both; after and before something of them was kept."""
    import pandas as pd

    pairs: Any = [("one", "two", "three")]
    return [
        Data("numbers", pd.DataFrame({"a": [Unprintable()]})),
        chart(float("nan")),
        Cards(Table(["no", "such"], [["a", "b"]]), [("digits", ("spsa", "mlp", ""))], {}, [{}]),
        Facts(pairs),
    ]


def test_a_block_that_cannot_be_rendered_costs_itself_alone() -> None:
    told: list[str] = []

    def in_place(block: Block, error: Exception) -> Text:
        told.append(type(block).__name__)
        return Text(f"no {type(block).__name__}")

    blocks = [Heading("first"), chart(1.0), *broken_blocks(), chart(2.0), Heading("last")]
    text = render_markdown.rendered(blocks, title="t", in_place=in_place)[render_markdown.PAGE].decode()
    assert told == ["Data", "Facts"]
    assert [part in text for part in ("## first", "no Data", "no Facts", "## last")] == [True] * 4
    told.clear()
    page = render_html.rendered(blocks, title="t", in_place=in_place)
    assert told == ["Picture", "Cards", "Facts"]
    assert [part in page for part in ("first", "no Picture", "no Cards", "no Facts", "last")] == [True] * 5
    assert page.count('"highest":') == 4  # of the two charts that are whole
    with pytest.raises(ValueError, match="unpack"):
        render_html.rendered(blocks[-3:], title="t")


def test_a_report_names_the_block_that_cannot_be_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.SECTIONS", (lambda _: iter([Heading("first"), *broken_blocks()]),))
    root = results_folder(tmp_path / "results")
    results = results_of(root, CATALOG, lenient=True)
    assert "data numbers could not be made: ZeroDivisionError" in write_report(results, tmp_path / "out").read_text()
    assert any("picture p could not be made" in problem for problem in results.problems)
    with pytest.raises(ZeroDivisionError):
        write_report(results_of(root, CATALOG), tmp_path / "out")


def test_a_pack_s_summary_holds_no_formula(tmp_path: Path) -> None:
    record(tmp_path, "a", spec={"method": "=1+1"}, **{"@SUM(A1)": "+cmd|x", "lr": "-2.5"})
    pack(tmp_path / "exp", tmp_path / "packed")
    header, line = (tmp_path / "packed" / "summary.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), line.split(","), strict=True))
    assert cells["method"] == "'=1+1"
    assert cells["'@SUM(A1)"] == "'+cmd|x"
    assert cells["lr"] == "-2.5"


@pytest.mark.parametrize("seeds", [(2**53 + 1, 0), (2**64, 1), (-5, 2**63), (2**63 + 1, 3), (10**30, -(10**30))])
def test_seeds_stay_exact_integers(tmp_path: Path, seeds: tuple[int, int]) -> None:
    """Older records hold seeds that new runs may not have."""
    for k, seed in enumerate(seeds):
        for method in ("backprop", "spsa"):
            folder = record(tmp_path / "r", f"{method}{k}", spec={"seed": seed, "method": method}, test_acc=0.5 + k / 4)
            (folder / "curve.csv").write_bytes(CURVE)
    results = results_of(tmp_path / "r", CATALOG)
    for frame in (results.runs, results.curves, results.table("none"), results.frame([])):
        assert frame["seed"].dtype in (object, "int64")
    assert sorted(results.runs["seed"]) == sorted(results.curves["seed"]) == sorted([*seeds, *seeds])
    assert versus_frame(results, results_of(tmp_path / "r", CATALOG))["n_pairs"].tolist() == [2, 2]
    (facts,) = (block for block in what_was_run.section(results) if isinstance(block, Facts))
    assert ("Seeds", ", ".join(map(str, sorted(seeds)))) in facts.pairs
    table = numbers.csv(results.runs).decode()
    assert all(f",{seed}," in table for seed in seeds)
    listed = every_run.cards(results, results.runs).table
    at = list(listed.headers).index("seed")
    assert sorted(row[at] for row in listed.rows) == sorted(map(str, [*seeds, *seeds]))


def lines(panels: int, n: int = 1, k: int = 4, y: float = 0.5) -> Lines:
    names = tuple(map(str, range(panels)))
    return Lines("l", "Caption.", "x", np.arange(float(k)), np.full((panels, n, k), y), names)


HUGE = np.zeros((1, 4, 3, 512, 512), np.uint8)


@pytest.mark.parametrize(
    ("artifacts", "why"),
    [
        ([lines(2000)], "2000 panels and lines; at most 400"),
        ([lines(1, 300, 1000)], "more than 262144 numbers"),
        ([lines(1)] * 51, "51 artifacts; at most 50"),
        ([lines(1, y=np.inf)], "not finite"),
        ([lines(1, k=0)], "holds nothing"),
        ([lines(1, y=1e200)], "above 1e"),
        ([Images("i", "c", HUGE, ("a",))], "more than 2097152 numbers"),
        ([Images("i", "c", np.zeros((1, 1, 1, 0, 3)), ("a",))], "holds nothing"),
        ([HeatMap("h", "c", "l", np.full((1, 1), np.inf), ("a",), ("b",))], "not finite"),
    ],
)
def test_pictures_that_cannot_be_drawn_in_seconds_are_left_out_and_named(
    tmp_path: Path, artifacts: Sequence[Artifact], why: str
) -> None:
    folder = record(tmp_path, "a")
    (folder / "artifacts.npz").write_bytes(to_bytes(artifacts))
    results = results_of(tmp_path, CATALOG, lenient=True)
    assert results.artifacts == {}
    (problem,) = results.problems
    assert f"{folder}/artifacts.npz is corrupt" in problem
    assert why in problem


def test_a_figure_of_many_panels_says_that_it_shows_the_first() -> None:
    assert drawing.cut(lines(12)) == ""
    assert drawing.cut(lines(400)) == " Drawn are the first 12 of 400 panels."
    look = looks_of(("spsa", "mlp", ""))
    assert len(drawing.lines([drawing.Shown("digits", look, lines(400))]).axes) == 12


def test_compare_names_a_bad_record_and_shows_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = results_folder(tmp_path / "results")
    (root / "exp" / "spsa1" / "summary.json").write_text("[]")
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(root), str(root)])
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert "spsa" in out
    assert "1/1" in out
    assert [line.partition(" is corrupt")[0] for line in err.splitlines()] == [
        f"bench: {root}/exp/spsa1/summary.json"
    ] * 2


def test_a_pack_and_a_merge_refuse_a_bad_record_before_they_write(tmp_path: Path) -> None:
    """What they write is what others rely on, often in place of the originals; one that lacks a run looks whole."""
    root = results_folder(tmp_path / "results")
    (root / "exp" / "spsa1" / "summary.json").write_text("[]")
    for act in (lambda out: pack(root / "exp", out), lambda out: merge([root], out)):
        with pytest.raises(StoreError, match=r"spsa1/summary.json is corrupt \(not an object\); remove its folder"):
            act(tmp_path / "out")
        assert not (tmp_path / "out").exists()
