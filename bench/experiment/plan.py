"""From an experiment to its ordered runs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, product
from typing import TYPE_CHECKING, Any, get_origin

from pydantic import BaseModel

from bench.api.errors import ConfigError, unknown
from bench.api.kinds import AXES, InputKind
from bench.catalog.catalog import Catalog
from bench.catalog.entry import Entry
from bench.experiment.budget import LONGEST, MATCHED, PATIENCE
from bench.experiment.config import Experiment, epochs_for
from bench.experiment.identity import Compute, RunSpec
from bench.experiment.judging import judges
from bench.experiment.ranges import spaces
from bench.experiment.transforming import after, fitting
from bench.experiment.validation import shown, validate_settings

if TYPE_CHECKING:
    from bench.api.dataset import DataSet
    from bench.api.instrument import Instrument
    from bench.api.method import Method
    from bench.api.metric import Metric
    from bench.api.net import Net, Prototypes
    from bench.api.objective import Objective
    from bench.api.task import Task
    from bench.api.transform import Transform
    from bench.data.outline import Outlined

OF_NET = "net."  # in a variant: a setting of the net that the row runs on
KIND_NETS: dict[InputKind, str] = {"image": "mlp", "vector": "mlp", "sequence": "rnn", "tokens": "transformer"}
EVAL_DRAWS = 5  # inference draws averaged into one test accuracy where inference is stochastic


@dataclass(frozen=True)
class Parts:
    """What a run is made of, imported."""

    method: "type[Method]"
    net: "type[Net]"
    dataset: "DataSet"
    instruments: "tuple[type[Instrument], ...]"
    objective: "type[Objective]"
    metrics: "tuple[type[Metric], ...]"
    transforms: "tuple[type[Transform], ...]" = ()

    def task(self, spec: RunSpec, shape: "Outlined", prototypes: "Prototypes | None" = None) -> "Task":
        """What is to be learnt in a run of these parts: labels are those that transforms leave."""
        from bench.api.task import Task

        learnt = after(self.transforms, shape.output)
        objective = self.objective(learnt)
        return Task(
            spec.dataset, shape.input, learnt, objective, shape.n_train, self.net, spec.net_settings, prototypes,
            self.metrics,
        )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A spec, and where its parts are found on this machine. dataset has what stands before the colon in its name."""

    spec: RunSpec
    method: Entry
    net: Entry
    dataset: Entry
    instruments: tuple[Entry, ...]
    objective: Entry
    metrics: tuple[Entry, ...]
    transforms: tuple[Entry, ...] = ()

    def load(self) -> Parts:
        """Raises: PluginError where a part cannot be imported, SourceError where its code is not that of the spec."""
        argument = self.spec.dataset.partition(":")[2]
        instruments = tuple(entry.load() for entry in self.instruments)
        method, net = self.method.load(), self.net.load()
        self.method.check(method, self.spec.method_source)
        self.net.check(net, self.spec.net_source)
        judges = (self.objective, *self.metrics)
        objective, *metrics = (entry.load() for entry in judges)
        for entry, cls in zip(judges, (objective, *metrics), strict=True):
            if not entry.is_ours:
                entry.check(cls, self.spec.judged_by[entry.name])
        transforms = tuple(entry.load() for entry in self.transforms)
        for entry, transform in zip(self.transforms, transforms, strict=True):
            if not entry.is_ours:
                entry.check(transform, self.spec.transformed_by[entry.name])
        return Parts(method, net, self.dataset.load()(argument), instruments, objective, tuple(metrics), transforms)


@dataclass(frozen=True)
class Row:
    """A row of the tables: a method on a net, with all settings of both."""

    method: str
    net: str
    settings: dict[str, Any]
    net_settings: dict[str, Any]


def check(experiment: Experiment, catalog: Catalog) -> None:
    """Raises: ConfigError for a name or setting that does not exist, before any data is loaded or anything run."""
    for dataset in experiment.datasets:
        catalog.dataset(dataset)
        for method in experiment.methods:
            epochs_for(experiment.epochs, dataset, method)
            if experiment.tune and experiment.tune.epochs is not None:
                epochs_for(experiment.tune.epochs, dataset, method)
    for name in [*experiment.methods, *experiment.nets]:
        catalog.methods[name]
    for net in [*([] if experiment.net == "auto" else [experiment.net]), *chain(*experiment.nets.values())]:
        catalog.nets[net]
    for name in experiment.instruments:
        if not is_asked_for(catalog.instruments[name]):
            raise ConfigError(f"instrument '{name}' is part of every run; leave it out")
    for name in experiment.log:
        catalog.listeners[name.partition(":")[0]]
    owners = {*catalog.methods, *catalog.nets}
    for owner in experiment.settings:
        if owner not in owners:
            raise ConfigError(unknown("method or net in settings", owner, owners))
    for owner in experiment.variants:
        catalog.methods[owner]
    tables = [experiment.epochs, experiment.tune.epochs if experiment.tune else None]
    for name in chain(*(table for table in tables if isinstance(table, dict))):
        if name not in catalog.methods and name.partition(":")[0] not in catalog.datasets:
            raise ConfigError(unknown("method or data set in epochs", name, [*catalog.methods, *catalog.datasets]))
    _check_use(experiment, catalog)
    if experiment.tune:
        spaces(experiment, {name: catalog.methods[name].load().Config for name in experiment.methods})


def _check_use(experiment: Experiment, catalog: Catalog) -> None:
    """Raises: ConfigError for settings of a method or net that is not among the runs, where the user wrote them."""
    if not experiment.must_use:
        return
    cards = [catalog.dataset(name).info.given for name in experiment.datasets]
    kinds = list(AXES) if None in cards else [card.kind for card in cards if card]  # files may hold any kind
    pairs = list(dict.fromkeys(pair for kind in kinds for pair in _nets(experiment, catalog, kind)))
    for owner, place in experiment.must_use.items():
        if not any(owner in pair for pair in pairs):
            used = list(dict.fromkeys(chain(*zip(*pairs, strict=True))))
            names = ", ".join(used[:10]) + (", ..." if len(used) > 10 else "")
            raise ConfigError(f"{place}: no run uses {shown(owner)}; the runs are of {names}")


def plan(experiment: Experiment, catalog: Catalog, *, device: str, datasets: "Mapping[str, Outlined]") -> list[Run]:
    """The runs of a checked experiment, seeds outermost so that an interrupted experiment is balanced.

    Raises: ConfigError for a setting out of its bounds, or settings that do not go together.
    """
    rows = {name: list(_rows(experiment, catalog, datasets[name].input.kind)) for name in experiment.datasets}
    shared = {name: getattr(experiment, name) for name in Compute.model_fields}
    asked = {name: is_asked_for(entry) for name, entry in catalog.instruments.items()}
    instruments = tuple(
        e for name, e in catalog.instruments.items() if not asked[name] or name in experiment.instruments
    )
    runs = []
    transforms = {
        name: fitting(experiment.transforms, name, datasets[name].input, datasets[name].output, catalog)
        for name in experiment.datasets
    }
    judged = {
        name: judges(experiment, catalog.dataset(name).info, datasets[name].output, catalog, learnt)
        for name, (_, learnt) in transforms.items()
    }
    cells = [(s, name, row) for s, name in product(experiment.seeds, experiment.datasets) for row in rows[name]]
    for seed, dataset, row in cells:
        objective, metrics = judged[dataset]
        judged_by = {entry.name: entry.source_hash() for entry in (objective, *metrics) if not entry.is_ours}
        changes = transforms[dataset][0]
        transformed_by = {entry.name: entry.source_hash() for entry in changes if not entry.is_ours}
        method, net = catalog.methods[row.method], catalog.nets[row.net]
        for budget in _budgets(experiment, dataset, row.method, datasets[dataset]):
            spec = RunSpec(
                method=row.method,
                method_settings=row.settings,
                method_source=method.source_hash(),
                net=row.net,
                net_settings=row.net_settings,
                net_source=net.source_hash(),
                dataset=dataset,
                data_id=datasets[dataset].fingerprint,
                judged_by=judged_by,
                transformed_by=transformed_by,
                seed=seed,
                eval_draws=EVAL_DRAWS,
                device=device.partition(":")[0],
                **budget,
                **shared,
            )
            place = catalog.datasets[dataset.partition(":")[0]]
            runs.append(Run(spec, method, net, place, instruments, objective, metrics, changes))
    for run in runs[: len(runs) // len(experiment.seeds)]:
        refusal(run.spec, run.load(), datasets[run.spec.dataset])
    return runs


def _budgets(experiment: Experiment, dataset: str, method: str, loaded: "Outlined") -> Iterator[dict[str, Any]]:
    """The budget of a row's runs under each protocol: `epochs`, and what may end them before.

    Raises: ConfigError where own convergence finds no validation images.
    """
    epochs = epochs_for(experiment.epochs, dataset, method)
    if experiment.steps is not None:
        epochs = math.ceil(experiment.steps / experiment.steps_per_epoch(loaded.n_train))
    protocols = experiment.protocols or ["matched" if experiment.patience is None else "convergence"]
    for protocol in protocols:
        if protocol == "matched":
            yield {"epochs": epochs, **{kind: getattr(experiment, kind) for kind in MATCHED}}
        elif not loaded.n_val:
            raise ConfigError(
                f"own convergence needs validation data, and {dataset} has none; set val_fraction above 0"
            )
        else:
            longest = epochs * LONGEST if "matched" in protocols else epochs
            yield {"epochs": longest, "patience": experiment.patience or PATIENCE}


def refusal(spec: RunSpec, parts: Parts, loaded: "Outlined") -> str | None:
    """The method's reason not to learn this task, or the net's not to take its images; None where neither has one.

    Raises: ConfigError where the method's settings contradict each other or what is known of the run.
    """
    from bench.api.task import Facts

    task = parts.task(spec, loaded)
    facts = Facts(spec.device, spec.epochs, spec.batch_size, spec.compile)
    return parts.method.refuse(task, parts.method.Config(**spec.method_settings), facts) or parts.net.misfit(
        task.input, task.output, spec.net_settings
    )


def is_asked_for(instrument: Entry) -> bool:
    """Whether it measures only where an experiment names it."""
    from bench.api.instrument import EdgeProbe, EndProbe

    return issubclass(instrument.load(), (EdgeProbe, EndProbe))


def _rows(experiment: Experiment, catalog: Catalog, kind: InputKind) -> Iterator[Row]:
    for name, net in _nets(experiment, catalog, kind):
        config, of_net = catalog.methods[name].load().Config, catalog.nets[net].load().Settings
        for settings, net_settings in _variants(experiment, name, net):
            for chosen, net_chosen in product(_grid(config, settings), _grid(of_net, net_settings)):
                yield Row(
                    name, net, validate_settings(config, chosen, name), validate_settings(of_net, net_chosen, net)
                )


def _variants(experiment: Experiment, name: str, net: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The settings of method and net in each row: one row unless `variants` asks for several."""
    for variant in experiment.variants.get(name, [{}]):
        of_net = {key.removeprefix(OF_NET): value for key, value in variant.items() if key.startswith(OF_NET)}
        of_method = {key: value for key, value in variant.items() if not key.startswith(OF_NET)}
        yield {**experiment.settings.get(name, {}), **of_method}, {**experiment.settings.get(net, {}), **of_net}


def _grid(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the settings that are given as lists of values; those that are lists themselves are one."""
    several = {
        key: value for key, value in values.items() if value and isinstance(value, list) and not _is_list(model, key)
    }
    for combination in product(*several.values()):
        yield {**values, **dict(zip(several, combination, strict=True))}


def _is_list(model: type[BaseModel], key: str) -> bool:
    return key in model.model_fields and get_origin(model.model_fields[key].annotation) in (list, tuple)


def _nets(experiment: Experiment, catalog: Catalog, kind: InputKind) -> list[tuple[str, str]]:
    """(method, net) pairs for inputs of a kind. Under `auto` a method that runs on any net is given every net that
    another one uses; a method that could run on another net is given the one of KIND_NETS where its own does not take
    such inputs.

    The experiment's `nets` go before both.
    """
    from bench.api.method import ANY_NET

    classes: dict[str, type[Method]] = {name: catalog.methods[name].load() for name in experiment.methods}
    if experiment.net != "auto":
        return [(name, experiment.net) for name in classes]
    own = {name: cls.info.nets[0] for name, cls in classes.items() if cls.info.nets != ANY_NET}
    used = list(dict.fromkeys(own.values())) or ["mlp"]
    nets = {name: [own[name]] if name in own else used for name in classes}
    for name, cls in classes.items():
        if cls.info.needs is not None:
            nets[name] = list(dict.fromkeys(_taking(kind, net, catalog) for net in nets[name]))
    nets |= experiment.nets
    return [(name, net) for name in classes for net in nets[name]]


def _taking(kind: InputKind, net: str, catalog: Catalog) -> str:
    """The net, or the one of KIND_NETS where it is not made for such inputs."""
    return net if kind in catalog.nets[net].load().takes else KIND_NETS[kind]
