"""The update-dependency matrices of a report: whose they are, and what is drawn of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.record.schema import KEY
from bench.report import write
from bench.report.sections.dependency import matrices, section
from tests.bench.report.made import Made, frame, run

NAN = float("nan")


def entries(of: dict[str, Any], matrix: list[list[float]], epoch: int = 0) -> pd.DataFrame:
    key = {name: of[name] for name in KEY}
    return pd.DataFrame(
        {**key, "epoch": epoch, "step": 10 * epoch, "row": i, "column": j, "change": change}
        for i, row in enumerate(matrix)
        for j, change in enumerate(row)
    )


def made(*parts: tuple[dict[str, Any], list[list[float]]]) -> Any:
    tables = [entries(of, matrix, epoch) for epoch, (of, matrix) in enumerate(parts)]
    runs = list({of["run_id"]: of for of, _ in parts}.values())
    return Made(frame(runs), own={"update-dependency": pd.concat(tables, ignore_index=True)})


def test_a_row_has_the_matrix_of_its_first_good_seed_at_the_end() -> None:
    bad, good = run(seed=0, status="crashed"), run(seed=1)
    found = matrices(made((bad, [[1, 1], [1, 1]]), (good, [[2, 2], [2, 2]]), (good, [[3, 0.5], [0, NAN]])))
    (matrix,) = found.values()
    assert np.array_equal(matrix, [[3, 0.5], [0, NAN]], equal_nan=True)


def test_blocks_at_rest_are_blank_and_matrices_of_nothing_are_left_out() -> None:
    learns = run("noprop-dt"), [[0.25, 0.0], [NAN, NAN]]
    rests = run("backprop"), [[NAN, NAN], [NAN, NAN]]
    (picture,) = section(made(learns, rests, (run("backprop", "mnist"), [[1.0]])))
    (axes, _) = picture.drawing.axes  # type: ignore[union-attr]
    assert axes.get_title().startswith("noprop-dt")
    assert [text.get_text() for text in axes.texts] == ["0.25", "0"]


def test_tables_of_older_runs_are_not_drawn() -> None:
    results = made((run(), [[1, 1], [1, 1]]))
    older = results.table("update-dependency").rename(columns={"change": "depends"})
    assert list(section(Made(results.runs, own={"update-dependency": older}))) == []


def test_without_blocks_to_compare_there_is_no_figure(tmp_path: Path) -> None:
    results = made((run(), [[1.0]]))
    assert list(section(results)) == []
    write(results, tmp_path, title="t")
    assert not (tmp_path / "figures" / "update-dependency.png").exists()
