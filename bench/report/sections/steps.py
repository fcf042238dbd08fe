"""Accuracy of trained nets by sampler and number of inference steps."""

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.record.results import Results
from bench.report.blocks import Block, Data, Picture
from bench.report.panels import HIGHEST, by_row, datasets_of, legend, line_handle, log_axis, panel_per
from bench.report.rows import counted
from bench.report.style import DASHES, Key, Look
from bench.report.summary import ordered
from bench.report.text import figure as figure_text
from bench.stats import ROW, finished

TABLE = "ways"
CAPTION = "Accuracy of the trained nets on held-out images against the number of inference steps: means over seeds."


def section(results: Results) -> Iterator[Block]:
    ways = results.table(TABLE)
    if ways.empty:
        return
    runs = ordered(results.runs)
    means = steps_frame(ways, runs)
    yield Data(TABLE, means)
    drawn = accuracy_steps(means, counted(runs))
    if drawn is not None:
        yield Picture("accuracy_steps", CAPTION, drawn)


def steps_frame(ways: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (a fraction, mean over the seeds that ended `ok`) per row, sampler and number of steps.

    Missing where the sampler gave numbers in `n_runs` of them alone, not in `n_failed`: their mean would flatter it.
    """
    ok = ways[ways["run_id"].isin(finished(runs)["run_id"])]
    groups = ok.groupby([*ROW, "sampler", "steps", "n_images"], as_index=False)
    means: pd.DataFrame = groups.agg(
        accuracy=("accuracy", lambda of: of.mean(skipna=False)),
        n_runs=("accuracy", "count"),
        n_failed=("accuracy", lambda of: of.isna().sum()),
    )
    return means


def accuracy_steps(points: pd.DataFrame, look: Mapping[Key, Look]) -> Figure | None:
    """Accuracy against the number of inference steps: a colour per method, dashes per sampler, mean over seeds.

    points: as `steps_frame` gives them; a gap where the sampler failed for a seed.
    """
    if points.empty:
        return None
    dashes = {str(s): DASHES[i % len(DASHES)] for i, s in enumerate(sorted(points["sampler"].unique()))}
    figure, per_dataset = panel_per(datasets_of(points))
    shown: set[Key] = set()
    for dataset, ax in per_dataset:
        panel = points[points["dataset"] == dataset]
        for key, group in by_row(panel):
            shown.add(key)
            for sampler, line in group.groupby("sampler"):
                style = look[key]._replace(dashes=dashes[str(sampler)])
                ax.plot(
                    line["steps"],
                    100 * line["accuracy"],
                    **style.line,
                    markersize=3.5,
                )
        log_axis(ax, (1.0, 2.0, 5.0))
        ax.set_ylim(top=min(ax.get_ylim()[1], HIGHEST))
        ax.set_xlabel("inference steps")
        counts = " to ".join(f"{n:.0f}" for n in sorted({panel["n_images"].min(), panel["n_images"].max()}))
        ax.set_ylabel(f"accuracy on {counts} held-out images, %")
    rows = {style.label: line_handle(style._replace(dashes="")) for key, style in look.items() if key in shown}
    samplers = {f"sampler: {figure_text(s)}": Line2D([], [], color="0.3", ls=ls) for s, ls in dashes.items()}
    legend(figure, rows | samplers)
    return figure
