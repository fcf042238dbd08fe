"""`bench estimate`: what a training would take, of any size, from shapes alone."""

from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.flags import Flags, takes
from bench.cli.options import Assign, Config, DataDir, Plugins, Preset, catalog_of
from bench.display.printing import BAD_INPUT, note, say, table
from bench.experiment.config import Experiment, resolve

if TYPE_CHECKING:
    from bench.api.column import Value

PEAK_S = 1.0  # in which to find the peak of products
NOTE = (
    "memory and FLOPs of one training step, from shapes alone; an epoch takes at least as long as its FLOPs do at the "
    "highest rate of matrix products here, {peak:.3g} GFLOP/s"
)
AS_MEASURED = "as measured, s"
NOTE_MEASURED = "as measured: at the rate that runs of the method on the net reached in {folder}"


@takes(Experiment, "methods", "datasets", "net", "batch_size", "val_fraction")
def estimate(
    flags: Flags,
    assign: Assign = None,
    preset: Preset = None,
    config: Config = None,
    plugin: Plugins = None,
    data_dir: DataDir = None,
    results: Annotated[Path | None, typer.Option(help="Run records, for the rates that methods reached there.")] = None,
) -> int:
    """What a training would take: parameters, memory by kind, FLOPs, time; nothing is allocated, any size will do."""
    asked = resolve(preset, config, {**flags, "device": "cpu"}, assign or [])
    catalog, broken = catalog_of(plugin)

    import torch

    from bench.command import rates, sketch
    from bench.experiment.plan import refusal
    from bench.measure.peak_flops import matmul_rate
    from bench.report.numbers import shown
    from bench.runner.estimate import columns_by_shapes
    from bench.runner.estimate import estimate as of

    sketched = sketch(asked, catalog, data_dir=data_dir)
    peak, reached = matmul_rate(torch.device("cpu"), PEAK_S), rates(results, catalog) if results else {}
    columns = columns_by_shapes(catalog)
    rows = []
    for run, shape in sketched:
        if reason := refusal(run.spec, run.load(), shape):
            say(f"left out: {run.spec.label}: {reason}")
            continue
        found = of(run.spec, run.load(), shape)
        steps = max(1, shape.n_train // run.spec.batch_size)
        flops, rate = _number(found.get("flops_per_step")), reached.get((run.spec.method, run.spec.net))
        times = [_seconds(flops, steps, peak), _seconds(flops, steps, rate)]
        cells = [shown(column, _number(found.get(column.name))) for column in columns]
        rows.append([run.spec.dataset, run.spec.method, run.spec.net, str(run.spec.batch_size), *cells, *times])
    heads = [
        "data set",
        "method",
        "net",
        "batch",
        *(column.title for column in columns),
        "epoch, s at least",
        AS_MEASURED,
    ]
    kept = [k for k in range(len(heads)) if any(row[k] for row in rows)]
    table([heads[k] for k in kept], [[row[k] or "-" for k in kept] for row in rows])
    note(NOTE.format(peak=peak / 1e9))
    if reached:
        note(NOTE_MEASURED.format(folder=results))
    return BAD_INPUT if broken else 0


def _number(value: "Value | Any") -> float:
    return float(value) if isinstance(value, (int, float)) else nan


def _seconds(flops: float, steps: int, rate: float | None) -> str:
    return "" if rate is None or isnan(flops) else f"{steps * flops / rate:,.3g}"
