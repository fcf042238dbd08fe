"""What each layer tells of the class: the accuracy of a linear read-out against the layer."""

from collections.abc import Iterator

import pandas as pd

from bench.record.results import Results
from bench.report.blocks import Axis, Block, Panel, Series
from bench.report.charts import picture
from bench.report.panels import HIGHEST, by_row
from bench.report.rows import ends_of_bar
from bench.report.style import looks
from bench.report.summary import ordered
from bench.stats import finished, t_interval

TABLE = "read-out"
CAPTION = (
    "Accuracy on held-out examples of a linear classifier fitted to what each layer gives once training is over; layer "
    "0 is the input itself. Means over seeds."
)
INTERVALS = CAPTION.replace("Means", "Means and 95% intervals")
MOST_INTERVALS = 5  # lines in a panel; more would hide each other


def section(results: Results) -> Iterator[Block]:
    points = results.table(TABLE)
    if points.empty:
        return
    runs = ordered(results.runs)
    points = points[points["run_id"].isin(finished(runs)["run_id"])].dropna(subset=["accuracy"])
    if len(points):
        rows = points[["dataset", "net", "method", "variant"]].drop_duplicates()
        few = rows.groupby(["dataset", "net"]).size().max() <= MOST_INTERVALS
        panels = by_layer(points, intervals=few)
        yield from picture(TABLE, INTERVALS if few else CAPTION, panels, looks(runs))


def by_layer(points: pd.DataFrame, *, intervals: bool = True) -> list[Panel]:
    """One panel per data set and net, one line per row of the tables.

    points: the store's view with columns method, net, variant, dataset, layer, accuracy (a fraction).
    """
    panels = []
    for (dataset, net), here in points.groupby(["dataset", "net"]):
        series = []
        for key, group in by_row(here):
            layers = sorted(group["layer"].unique().tolist())
            of_layers = [t_interval(100 * group.loc[group["layer"] == layer, "accuracy"]) for layer in layers]
            means = [interval.mean for interval in of_layers]
            ends = [ends_of_bar(interval) for interval in of_layers] if intervals else []
            low, high = [end[0] for end in ends], [end[1] for end in ends]
            series.append(Series(key, "line", layers, means, low, high))
        y = Axis("read-out accuracy, %", highest=HIGHEST)
        panels.append(Panel(f"{dataset}, {net}", Axis("layer", whole=True), y, series, str(dataset)))
    return panels
