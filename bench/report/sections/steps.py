"""The primary metric of trained nets by sampler and number of inference steps."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from bench.record.primary import ACCURACY, Primary, apart
from bench.record.results import Results
from bench.report.blocks import Axis, Block, Data, Panel, Series
from bench.report.charts import metric_axis, picture
from bench.report.panels import by_row, datasets_of
from bench.report.rows import counted, named
from bench.report.style import DASHES
from bench.report.summary import ordered
from bench.stats import ROW, finished

TABLE = "ways"
CAPTION = "{word} of the trained nets on held-out examples against the number of inference steps: means over seeds."


def section(results: Results) -> Iterator[Block]:
    ways, runs = results.table(TABLE), ordered(results.runs)
    if ways.empty:
        return
    for primary, of in apart(runs, results.primaries):
        means = steps_frame(ways, of, primary)
        if len(means):
            yield Data(named(TABLE, primary), means)
            caption = CAPTION.format(word="Accuracy" if primary.key == ACCURACY.key else primary.word)
            yield from picture(named("accuracy_steps", primary), caption, accuracy_steps(means, primary), counted(runs))


def steps_frame(ways: pd.DataFrame, runs: pd.DataFrame, primary: Primary = ACCURACY) -> pd.DataFrame:
    """The primary metric (mean over the seeds that ended `ok`) per row, sampler and number of steps.

    Missing where the sampler gave numbers in `n_runs` of them alone, not in `n_failed`: their mean would flatter it.
    """
    ok, name = ways[ways["run_id"].isin(finished(runs)["run_id"])], _column(primary)
    if name not in ok:
        return ok[:0]
    groups = ok.groupby([*ROW, "sampler", "steps", "n_images"], as_index=False)
    means: pd.DataFrame = groups.agg(
        **{name: (name, lambda of: of.mean(skipna=False))},
        n_runs=(name, "count"),
        n_failed=(name, lambda of: of.isna().sum()),
    )
    return means


def _column(primary: Primary) -> str:
    """Of the table that runs bring."""
    return "accuracy" if primary.key == ACCURACY.key else primary.key


def accuracy_steps(points: pd.DataFrame, primary: Primary = ACCURACY) -> list[Panel]:
    """The primary metric against the number of inference steps: a line per row and sampler, the mean over seeds; dashes
    tell the sampler.

    points: as `steps_frame` gives them; a gap where the sampler failed for a seed.
    """
    dashes = {str(s): DASHES[i % len(DASHES)] for i, s in enumerate(sorted(points["sampler"].unique()))}
    panels = []
    for dataset in datasets_of(points):
        panel = points[points["dataset"] == dataset]
        counts = " to ".join(f"{n:.0f}" for n in sorted({panel["n_images"].min(), panel["n_images"].max()}))
        lines = [(key, str(s), line) for key, group in by_row(panel) for s, line in group.groupby("sampler")]
        series = [
            Series(key, "line", line["steps"].tolist(), (primary.scale * line[_column(primary)]).tolist(),
                   dashes=dashes[sampler], note=f"sampler: {sampler}")
            for key, sampler, line in lines
        ]  # fmt: skip
        unit = f", {primary.unit}" if primary.unit else ""
        y = replace(metric_axis(primary, ""), title=f"{primary.word} on {counts} held-out examples{unit}")
        panels.append(Panel(dataset, Axis("inference steps", log=True), y, series, dataset))
    return panels
