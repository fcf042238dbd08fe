"""Which rule runs on which net and learns which kind of output, and why not, before anything runs."""

from dataclasses import replace
from typing import NamedTuple

from bench.api.errors import ConfigError
from bench.api.kinds import ALL, Input, Output, OutputKind
from bench.api.method import Method
from bench.api.net import Net
from bench.api.objective import Objective
from bench.api.task import Facts, Task
from bench.catalog.catalog import Catalog
from bench.experiment.judging import OBJECTIVES

SIZE, N_TRAIN = 10, 1000  # of the task that is asked about
FACTS = Facts("cpu", epochs=12, batch_size=32)


class Cell(NamedTuple):
    """reason: why not; empty where the rule runs."""

    method: str
    net: str
    output: OutputKind
    reason: str


def matrix(catalog: Catalog, given: Input, kinds: tuple[OutputKind, ...] = ALL) -> list[Cell]:
    """Each rule on each net at its small settings, at the rule's defaults, for each kind of output."""
    outputs = {kind: Output(kind, SIZE, positions=given.shape[0] if kind == "next token" else 0) for kind in kinds}
    objectives = {kind: catalog.objectives[OBJECTIVES[kind]].load()(output) for kind, output in outputs.items()}
    return [
        Cell(method, net, kind, why_not(rule.load(), made.load(), given, outputs[kind], objectives[kind]) or "")
        for method, rule in sorted(catalog.methods.items())
        for net, made in sorted(catalog.nets.items())
        for kind in kinds
    ]


def why_not(method: type[Method], net: type[Net], given: Input, output: Output, objective: Objective) -> str | None:
    """The reason why a rule does not run on a net for a task; None where it does."""
    task = Task("task", given, output, objective, N_TRAIN, net, net.small)
    task = replace(task, net_settings=task.net_config.model_dump())
    if misfit := net.misfit(given, output, task.net_settings):
        return misfit
    try:
        return method.refuse(task, method.Config(), FACTS)
    except ConfigError as error:
        return str(error)
