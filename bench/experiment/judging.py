"""By which objective a task is learnt, and by which metrics it is judged: what is asked for, else what suits it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.api.dataset import DataSetInfo
from bench.api.errors import ConfigError
from bench.api.kinds import Output
from bench.catalog.catalog import KINDS, Catalog, Shelf
from bench.catalog.entry import Entry
from bench.experiment.identity import Compute

if TYPE_CHECKING:
    from bench.api.metric import Metric
    from bench.api.objective import Objective

# by kind of output; the first metric is the primary one
OBJECTIVES = {
    "classes": "cross-entropy",
    "class probabilities": "cross-entropy",
    "values": "squared-error",
    "next token": "next-token",
}
METRICS = {
    "classes": ("accuracy", "nll", "ece"),
    "class probabilities": ("accuracy", "nll", "ece"),
    "values": ("r2", "rmse"),
    "next token": ("perplexity",),
}


def judges(
    asked: Compute, info: DataSetInfo, output: Output, catalog: Catalog, learnt: Output | None = None
) -> tuple[Entry, tuple[Entry, ...]]:
    """The objective and the metrics of the runs on a data set: asked for, else named by its card, else usual.

    learnt: what labels are in training, where transforms make them other than those of validation and test.

    Raises: ConfigError for a name that is not there or stands twice, or one that cannot judge this output.
    """
    objective = asked.objective or info.objective or OBJECTIVES[output.kind]
    metrics = asked.metrics or info.metrics or METRICS[output.kind]
    if len(set(metrics)) < len(metrics):
        raise ConfigError(f"metrics: {', '.join(metrics)}: name each once")
    (chosen,) = _fitting(catalog.objectives, [objective], info.name, learnt or output)
    found = tuple(_fitting(catalog.metrics, metrics, info.name, output))
    _refuse_taken_keys(found, catalog)
    return chosen, found


def _refuse_taken_keys(chosen: Sequence[Entry], catalog: Catalog) -> None:
    """Raises: ConfigError where the columns of a metric are those of another one, too."""
    owners: dict[str, list[str]] = {}
    for name, entry in catalog.metrics.items():
        for column in entry.load().columns():
            owners.setdefault(column.name, []).append(name)
    for entry in chosen:
        for column in entry.load().columns():
            if len(several := owners[column.name]) > 1:
                raise ConfigError(f"metrics {' and '.join(several)} both record {column.name}; choose another key")


def _fitting(shelf: Shelf, names: Sequence[str], dataset: str, output: Output) -> list[Entry]:
    for name in names:
        judge: type[Objective | Metric] = shelf[name].load()
        if output.kind not in judge.outputs:
            fits = [other for other, entry in shelf.items() if output.kind in entry.load().outputs]
            raise ConfigError(
                f"the {KINDS[shelf.kind]} {name} judges {', '.join(judge.outputs)}; {dataset} has {output.kind}, "
                f"which {', '.join(fits) or 'none'} judges"
            )
        judge(output)  # which refuses what it cannot judge
    return [shelf[name] for name in names]
