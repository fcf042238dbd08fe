"""Whose weights enter whose training step: the update-dependency matrix of each row, as colours."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.api.artifact import HeatMap
from bench.record.results import Results
from bench.report.blocks import Block, Picture
from bench.report.drawing import Shown, heat_maps
from bench.report.style import looks
from bench.report.summary import ordered
from bench.stats import ROW, finished

TABLE = "update-dependency"
CAPTION = (
    "By what part of its length the step of a block (row) changes when the weights of another (column) change by a "
    "tenth; above the diagonal, but for the last column, with the scores held as they were. A row is blank where the "
    "block does not move."
)

Matrix = NDArray[np.float64]


def section(results: Results) -> Iterator[Block]:
    found, look = matrices(results), looks(ordered(results.runs))
    several = {row: matrix for row, matrix in found.items() if len(matrix) > 1 and not np.isnan(matrix).all()}
    if not several:
        return
    shown = [
        Shown(dataset, look[method, net, variant], _drawn(matrix))
        for (dataset, method, net, variant), matrix in several.items()
    ]
    yield Picture(TABLE, CAPTION, heat_maps(shown))


def matrices(results: Results) -> dict[tuple[str, ...], Matrix]:
    """By row of the tables: of its first seed that ended well, where training stood last. Shape: (K, K)."""
    entries, found = results.table(TABLE), dict[tuple[str, ...], Matrix]()
    if "change" not in entries:  # of no run, or of older ones, which knew only whether there is any
        return found
    for *row, run_id in finished(ordered(results.runs))[[*ROW, "run_id"]].to_numpy(dtype=str).tolist():
        of_run = entries[entries["run_id"] == run_id]
        last = of_run[of_run["step"] == of_run["step"].max()]
        if len(last):
            matrix = last.pivot(index="row", columns="column", values="change").to_numpy(dtype=float)
            found.setdefault(tuple(row), matrix)
    return found


def _drawn(matrix: Matrix) -> HeatMap:
    blocks = tuple(map(str, range(1, len(matrix) + 1)))
    return HeatMap(TABLE, CAPTION, "relative change of the step", matrix, blocks, blocks)
