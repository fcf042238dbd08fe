"""What each layer tells of the class: the accuracy of a linear read-out against the layer."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.record.results import Results
from bench.report.blocks import Block, Picture
from bench.report.panels import HIGHEST, by_row, legend, line_handle, panel_per
from bench.report.rows import bar
from bench.report.style import Key, Look, looks
from bench.report.summary import ordered
from bench.stats import finished, t_interval

TABLE = "read-out"
CAPTION = (
    "Accuracy on held-out images of a linear classifier fitted to what each layer gives once training is over; layer 0 "
    "is the image itself. Means over seeds."
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
        yield Picture(TABLE, INTERVALS if few else CAPTION, by_layer(points, looks(runs), intervals=few))


def by_layer(points: pd.DataFrame, look: dict[Key, Look], *, intervals: bool = True) -> Figure:
    """One panel per data set and net, one line per row of the tables.

    points: the store's view with columns method, net, variant, dataset, layer, accuracy (a fraction).
    """
    places = points["dataset"] + ", " + points["net"]
    figure, panels = panel_per(sorted(places.unique()))
    for place, ax in panels:
        for key, group in by_row(points[places == place]):
            style = look[key]
            layers = sorted(group["layer"].unique().tolist())
            of_layers = [t_interval(100 * group.loc[group["layer"] == layer, "accuracy"]) for layer in layers]
            means = [interval.mean for interval in of_layers]
            ax.plot(layers, means, **style.line, ms=4)
            for layer, interval in zip(layers, of_layers, strict=True) if intervals else ():
                ax.errorbar(layer, interval.mean, yerr=bar(interval), color=style.colour, alpha=0.5, lw=1)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel("layer")
        ax.set_ylabel("read-out accuracy, %")
        ax.set_ylim(top=min(ax.get_ylim()[1], HIGHEST))
    shown = {key for key, _ in by_row(points)}
    legend(figure, {style.label: line_handle(style) for key, style in look.items() if key in shown})
    return figure
