"""The report of an experiment: tables, figures and a Markdown page that holds them together.

write(runs, curves, Path("reports/digits"), title="digits")
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report import figures, markdown, tables
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
) -> Path:
    """Write `report.md`, `tables/*.csv` and `figures/*.png` under `out` and return the path of the page.

    runs, curves: the store's views, a line per run and a line per point of a curve; both may be empty.
    environments: what to print of each machine, by `env_id`.

    Raises: StoreError where `out` cannot be written.
    """
    runs = tidy_runs(runs)
    curves = tidy_curves(curves)

    for name, frame in tables.csv_tables(runs).items():
        atomic_write(out / "tables" / name, tables.csv(frame))

    drawn = figures.draw(runs, curves)
    for name, image in drawn.items():
        path = out / "figures" / name
        if image is None:  # a picture of an earlier report would pass for one of these runs
            path.unlink(missing_ok=True)
        else:
            atomic_write(path, image)

    page = out / "report.md"
    pictures = [name for name, image in drawn.items() if image is not None]
    text = markdown.page(runs, title=title, pictures=pictures, environments=environments or {})
    atomic_write(page, text.encode())  # last, so that a page never shows files that are not there yet
    return page
