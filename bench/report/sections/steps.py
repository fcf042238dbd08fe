"""Accuracy of trained nets by sampler and number of inference steps."""

from collections.abc import Iterator

import pandas as pd

from bench.record.results import Results
from bench.report.blocks import Axis, Block, Data, Panel, Series
from bench.report.charts import picture
from bench.report.panels import HIGHEST, by_row, datasets_of
from bench.report.rows import counted
from bench.report.style import DASHES
from bench.report.summary import ordered
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
    yield from picture("accuracy_steps", CAPTION, accuracy_steps(means), counted(runs))


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


def accuracy_steps(points: pd.DataFrame) -> list[Panel]:
    """Accuracy against the number of inference steps: a line per row and sampler, dashes per sampler, mean over seeds.

    points: as `steps_frame` gives them; a gap where the sampler failed for a seed.
    """
    dashes = {str(s): DASHES[i % len(DASHES)] for i, s in enumerate(sorted(points["sampler"].unique()))}
    panels = []
    for dataset in datasets_of(points):
        panel = points[points["dataset"] == dataset]
        counts = " to ".join(f"{n:.0f}" for n in sorted({panel["n_images"].min(), panel["n_images"].max()}))
        lines = [(key, str(s), line) for key, group in by_row(panel) for s, line in group.groupby("sampler")]
        series = [
            Series(key, "line", line["steps"].tolist(), (100 * line["accuracy"]).tolist(),
                   dashes=dashes[sampler], note=f"sampler: {sampler}")
            for key, sampler, line in lines
        ]  # fmt: skip
        y = Axis(f"accuracy on {counts} held-out images, %", highest=HIGHEST)
        panels.append(Panel(dataset, Axis("inference steps", log=True), y, series, dataset))
    return panels
