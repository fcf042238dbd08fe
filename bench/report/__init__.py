"""The report of an experiment: tables, figures and a Markdown page that holds them together.

write(runs, curves, Path("reports/digits"), title="digits")
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report import figures, markdown, tables
from bench.report.exhibits import Arrays
from bench.report.frames import tidy_curves, tidy_runs
from bench.report.tables import summary_rows, terminal_table
from bench.store import atomic_write

__all__ = ["summary_rows", "terminal_table", "write"]


def write(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    out: Path,
    *,
    title: str,
    environments: Mapping[str, Mapping[str, Any]] | None = None,
    alignment: pd.DataFrame | None = None,
    ways: pd.DataFrame | None = None,
    exhibits: Mapping[str, Arrays] | None = None,
    searches: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write `report.md`, `tables/*.csv` and `figures/*.png` under `out` and return the path of the page.

    runs, curves: the store's views, a line per run and a line per point of a curve; both may be empty.
    environments: what to print of each machine, by `env_id`. alignment: the store's view of angles, a line per
    layer and epoch. ways: its view of accuracy by number of inference steps, a line per run, sampler and number.
    exhibits: the arrays that runs left for pictures, by run. searches: what tuning tried and found, as
    `bench.tune.load` gives it.

    Raises: StoreError where `out` cannot be written.
    """
    runs = tidy_runs(runs)
    curves = tidy_curves(curves)

    angles = pd.DataFrame() if alignment is None else alignment
    steps = tables.steps_rows(pd.DataFrame() if ways is None else ways, runs)
    further = {
        "tuning.csv": tables.tuning_rows(searches),
        "published.csv": tables.published_rows(runs),
        "alignment.csv": angles,
        "ways.csv": steps,
    }
    for name, frame in (tables.csv_tables(runs) | further).items():
        if frame.empty and name in further:
            (out / "tables" / name).unlink(missing_ok=True)
        else:
            atomic_write(out / "tables" / name, tables.csv(frame))

    drawn = figures.draw(runs, curves, angles, steps, exhibits or {})
    for name, image in drawn.items():
        path = out / "figures" / name
        if image is None:  # a picture of an earlier report would pass for one of these runs
            path.unlink(missing_ok=True)
        else:
            atomic_write(path, image)

    page = out / "report.md"
    pictures = [name for name, image in drawn.items() if image is not None]
    text = markdown.page(runs, title=title, pictures=pictures, environments=environments or {}, searches=searches)
    atomic_write(page, text.encode())  # last, so that a page never shows files that are not there yet
    return page
