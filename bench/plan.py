"""From an experiment to its ordered runs, and what makes a run the same run."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from bench.config import Experiment, epochs_for, validate_settings
from bench.data import check_name
from bench.errors import ConfigError, unknown
from bench.nets import NETS, net_class

if TYPE_CHECKING:
    from bench.method import Method
    from bench.registry import Registry

OF_NET = "net."  # in a variant: a setting of the net that the row runs on
EVAL_DRAWS = 5  # inference draws averaged into one test accuracy where inference is stochastic


class RunSpec(BaseModel):
    """Everything that decides a run's numbers; its hash is the run's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    method_settings: dict[str, Any]
    method_source: str
    net: str
    net_settings: dict[str, Any]
    dataset: str
    data_id: str
    seed: int
    epochs: int
    batch_size: int
    val_fraction: float
    eval_draws: int
    device: str
    alignment: bool = False
    tuned: tuple[str, ...] = ()  # the settings that a search has chosen
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False

    @property
    def run_id(self) -> str:
        # a field added later has a default, and leaves the identity of older records alone
        fields = self.model_dump(mode="json", exclude_defaults=True)
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        return f"{self.method} on {self.net}, {self.dataset}, seed {self.seed}"


@dataclass(frozen=True)
class Run:
    """A spec and where its method is found on this machine."""

    spec: RunSpec
    module: str | None
    file: Path


def check(experiment: Experiment, registry: "Registry") -> None:
    """Raises: ConfigError or DataError for a name or setting that does not exist, before anything is loaded or run."""
    for dataset in experiment.datasets:
        check_name(dataset)
        for method in experiment.methods:
            epochs_for(experiment.epochs, dataset, method)
            if experiment.tune:
                epochs_for(experiment.tune.epochs, dataset, method)
    for name in [*experiment.methods, *experiment.nets]:
        registry[name]
    for net in [*([] if experiment.net == "auto" else [experiment.net]), *chain(*experiment.nets.values())]:
        net_class(net)
    owners = {*registry.entries, *NETS}
    for owner in experiment.settings:
        if owner not in owners:
            raise ConfigError(unknown("method or net in settings", owner, owners))
    for owner in experiment.variants:
        if owner not in registry.entries:
            raise ConfigError(unknown("method in variants", owner, registry.entries))


def plan(experiment: Experiment, registry: "Registry", *, device: str, data_ids: Mapping[str, str]) -> list[Run]:
    """The runs of a checked experiment, seeds outermost so that an interrupted experiment is balanced.

    data_ids: the fingerprint of each data set. Raises: ConfigError for a setting out of its bounds, or
    settings that do not go together.
    """
    rows = [
        (
            name,
            net,
            validate_settings(registry[name].load().Config, settings, name),
            validate_settings(net_class(net).Settings, net_settings, net),
        )
        for name, net in _nets(experiment, registry)
        for settings, net_settings in _variants(experiment, name, net)
    ]
    runs = []
    for seed in experiment.seeds:
        for dataset in experiment.datasets:
            for name, net, settings, net_settings in rows:
                entry, epochs = registry[name], epochs_for(experiment.epochs, dataset, name)
                method = entry.load()
                spec = RunSpec(
                    method=name,
                    method_settings=settings,
                    method_source=entry.source_hash(),
                    net=net,
                    net_settings=net_settings,
                    dataset=dataset,
                    data_id=data_ids[dataset],
                    seed=seed,
                    epochs=epochs,
                    batch_size=experiment.batch_size,
                    val_fraction=experiment.val_fraction,
                    eval_draws=EVAL_DRAWS,
                    device=device.partition(":")[0],
                    alignment=experiment.alignment,
                    precision=experiment.precision,
                    channels_last=experiment.channels_last,
                    compile=experiment.compile,
                )
                chosen = net_class(net).Settings(**net_settings).model_dump()
                method.check_run(method.Config(**settings), chosen, spec)
                runs.append(Run(spec, entry.module, entry.file))
    return runs


def _variants(experiment: Experiment, name: str, net: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The settings of method and net in each row: one row unless `variants` asks for several."""
    for variant in experiment.variants.get(name, [{}]):
        of_net = {key.removeprefix(OF_NET): value for key, value in variant.items() if key.startswith(OF_NET)}
        of_method = {key: value for key, value in variant.items() if not key.startswith(OF_NET)}
        yield {**experiment.settings.get(name, {}), **of_method}, {**experiment.settings.get(net, {}), **of_net}


def _nets(experiment: Experiment, registry: "Registry") -> list[tuple[str, str]]:
    """(method, net) pairs. Under `auto` a method that runs on any net is given every net that another one uses.

    The experiment's `nets` go before both.
    """
    from bench.method import ANY_NET

    classes: dict[str, type[Method]] = {name: registry[name].load() for name in experiment.methods}
    if experiment.net != "auto":
        return [(name, experiment.net) for name in classes]
    own = {name: cls.info.nets[0] for name, cls in classes.items() if cls.info.nets != ANY_NET}
    used = list(dict.fromkeys(own.values())) or ["mlp"]
    nets = {name: [own[name]] if name in own else used for name in classes} | experiment.nets
    return [(name, net) for name in classes for net in nets[name]]
