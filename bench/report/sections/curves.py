"""Learning curves, against epochs, seconds and FLOPs."""

from collections.abc import Iterator
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure

from bench.api.errors import ConfigError, unknown
from bench.record.results import Results
from bench.report.blocks import Axis, Block, Panel, Series
from bench.report.charts import cost_axis, drawn, picture
from bench.report.panels import HIGHEST, by_row, datasets_of
from bench.report.rows import counted
from bench.report.style import Key
from bench.report.summary import ordered
from bench.stats import finished, with_flops

Abscissa = Literal["epoch", "train_s", "train_tflop"]
KEY = ["method", "net", "variant"]
MOST_BANDS = 8  # more would hide each other
CAPTIONS: dict[Abscissa, tuple[str, str]] = {
    "epoch": (
        "curve_epoch",
        "Learning curves against epochs. Line: mean over seeds; band: their range, where rows are few.",
    ),
    "train_s": ("curve_seconds", "Learning curves against training time (evaluation excluded)."),
    "train_tflop": ("curve_flops", "Learning curves against floating-point operations of the training steps taken."),
}
TITLES: dict[Abscissa, str] = {"epoch": "epoch", "train_s": "training time, s", "train_tflop": "training, TFLOP"}


def section(results: Results) -> Iterator[Block]:
    look, points = counted(ordered(results.runs)), points_of(results)
    for x, (name, caption) in CAPTIONS.items():
        yield from picture(name, caption, learning_curves(points, x), look)


def points_of(results: Results) -> pd.DataFrame:
    """The curves of runs that ended well, with `train_tflop`."""
    ok = finished(ordered(results.runs))
    points = with_flops(results.curves[results.curves["run_id"].isin(ok["run_id"])], ok)
    return points.assign(train_tflop=1e-12 * points["train_flops"])


def figure(results: Results, x: str, column: str | None) -> Figure | None:
    """The curves against x: of a column, or as the report has them. Raises: ConfigError for an unknown name."""
    points = points_of(results)
    abscissa = next((name for name in TITLES if name == x), None)
    if abscissa is None:
        raise ConfigError(unknown("abscissa", x, TITLES))
    others = (*TITLES, "seed", "step", "train_flops")
    columns = [str(name) for name in points.select_dtypes("number") if name not in others]
    if column is not None and column not in columns:
        raise ConfigError(unknown("column of curves", column, [*columns, *TITLES]))
    return drawn(learning_curves(points, abscissa, column), counted(ordered(results.runs)))


def learning_curves(points: pd.DataFrame, x: Abscissa, column: str | None = None) -> list[Panel]:
    """Validation accuracy, or the training loss where none was measured: mean and range over seeds, by data set.

    A line ends where the first of its seeds stopped, for beyond that point it would be a mean of the rest.
    column: to be drawn instead, as it is.
    """
    points = points.dropna(subset=[x])
    points = points[points["val_acc"].notna() | points["train_loss"].notna()] if column is None else points
    panels = []
    for dataset in datasets_of(points):
        panel = points[points["dataset"] == dataset]
        by_loss = panel["val_acc"].isna().all()
        values = panel["train_loss"] if by_loss else 100 * panel["val_acc"]
        panel = panel.assign(y=values if column is None else panel[column]).dropna(subset=["y"])
        if panel.empty:
            continue
        seeds = panel.groupby(KEY, as_index=False).agg(n_all=("run_id", "nunique"))
        at = panel.groupby([*KEY, "epoch"], sort=False).agg(
            x=(x, "mean"), n=("run_id", "nunique"), y=("y", "mean"), low=("y", "min"), high=("y", "max")
        )
        banded = len(seeds) <= MOST_BANDS
        series = [_line(key, line, banded=banded) for key, line in by_row(at.reset_index().merge(seeds, on=KEY))]
        y = Axis("training loss (no validation)") if by_loss else Axis("validation accuracy, %", highest=HIGHEST)
        y = y if column is None else Axis(column)
        along = Axis(TITLES[x], whole=True) if x == "epoch" else cost_axis(TITLES[x], panel.groupby("run_id")[x].max())
        panels.append(Panel(dataset, along, y, series, dataset))
    return panels


def _line(key: Key, line: pd.DataFrame, *, banded: bool) -> Series:
    line = line[line["n"] == line["n_all"]].sort_values("epoch")
    x, y, low, high = (line[name].tolist() for name in ("x", "y", "low", "high"))
    return Series(key, "line", x, y, low, high) if banded else Series(key, "line", x, y)
