"""Learning curves, against epochs, seconds and FLOPs."""

import math
from collections.abc import Iterator
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure

from bench.api.errors import ConfigError, unknown
from bench.record.primary import ACCURACY, Primary, apart
from bench.record.results import Results
from bench.report.blocks import Axis, Block, Panel, Series
from bench.report.charts import cost_axis, drawn, metric_axis, picture
from bench.report.panels import by_row, datasets_of
from bench.report.rows import counted, named
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
    runs, points = ordered(results.runs), points_of(results)
    look = counted(runs)
    for primary, of in apart(runs, results.primaries):
        own = points[points["run_id"].isin(of["run_id"])]
        for x, (name, caption) in CAPTIONS.items():
            yield from picture(named(name, primary), caption, learning_curves(own, x, primary=primary), look)


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
    runs = ordered(results.runs)
    primary, of = next(apart(runs, results.primaries))  # one picture is of one metric
    points = points[points["run_id"].isin(of["run_id"])] if column is None else points
    return drawn(learning_curves(points, abscissa, column, primary), counted(runs))


def learning_curves(
    points: pd.DataFrame, x: Abscissa, column: str | None = None, primary: Primary = ACCURACY
) -> list[Panel]:
    """The primary metric on validation data, or the training loss where none was measured, a panel per data set: mean
    and range over seeds.

    A line ends where the first of its seeds stopped, for beyond that point it would be a mean of the rest.
    column: to be drawn instead, as it is.
    """
    points = points.dropna(subset=[x])
    points = points.assign(val=points.get(primary.val, math.nan))
    points = points[points["val"].notna() | points["train_loss"].notna()] if column is None else points
    panels = []
    for dataset in datasets_of(points):
        panel = points[points["dataset"] == dataset]
        by_loss = panel["val"].isna().all()
        values = panel["train_loss"] if by_loss else primary.scale * panel["val"]
        panel = panel.assign(y=values if column is None else panel[column]).dropna(subset=["y"])
        if panel.empty:
            continue
        seeds = panel.groupby(KEY, as_index=False).agg(n_all=("run_id", "nunique"))
        at = panel.groupby([*KEY, "epoch"], sort=False).agg(
            x=(x, "mean"), n=("run_id", "nunique"), y=("y", "mean"), low=("y", "min"), high=("y", "max")
        )
        banded = len(seeds) <= MOST_BANDS
        series = [_line(key, line, banded=banded) for key, line in by_row(at.reset_index().merge(seeds, on=KEY))]
        y = Axis("training loss (no validation)") if by_loss else metric_axis(primary, "validation")
        y = y if column is None else Axis(column)
        along = Axis(TITLES[x], whole=True) if x == "epoch" else cost_axis(TITLES[x], panel.groupby("run_id")[x].max())
        panels.append(Panel(dataset, along, y, series, dataset))
    return panels


def _line(key: Key, line: pd.DataFrame, *, banded: bool) -> Series:
    line = line[line["n"] == line["n_all"]].sort_values("epoch")
    x, y, low, high = (line[name].tolist() for name in ("x", "y", "low", "high"))
    return Series(key, "line", x, y, low, high) if banded else Series(key, "line", x, y)
