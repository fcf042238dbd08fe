"""From an experiment to its ordered runs, and what makes a run the same run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
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
        epochs_for(experiment.epochs, dataset)
        if experiment.tune:
            epochs_for(experiment.tune.epochs, dataset)
    for name in experiment.methods:
        registry[name]
    if experiment.net != "auto":
        net_class(experiment.net)
    owners = {*registry.entries, *NETS}
    for owner in experiment.settings:
        if owner not in owners:
            raise ConfigError(unknown("method or net in settings", owner, owners))
    for owner in experiment.variants:
        if owner not in registry.entries:
            raise ConfigError(unknown("method in variants", owner, registry.entries))


def plan(experiment: Experiment, registry: "Registry", *, device: str, data_ids: Mapping[str, str]) -> list[Run]:
    """The runs of a checked experiment, seeds outermost so that an interrupted experiment is balanced.

    data_ids: the fingerprint of each data set. Raises: ConfigError for a setting out of its bounds.
    """
    rows = [
        (name, net, validate_settings(registry[name].load().Config, settings, name))
        for name, net in _nets(experiment, registry)
        for settings in _variants(experiment, name)
    ]
    runs = []
    for seed in experiment.seeds:
        for dataset in experiment.datasets:
            for name, net, settings in rows:
                entry = registry[name]
                spec = RunSpec(
                    method=name,
                    method_settings=settings,
                    method_source=entry.source_hash(),
                    net=net,
                    net_settings=validate_settings(net_class(net).Settings, experiment.settings.get(net, {}), net),
                    dataset=dataset,
                    data_id=data_ids[dataset],
                    seed=seed,
                    epochs=epochs_for(experiment.epochs, dataset),
                    batch_size=experiment.batch_size,
                    val_fraction=experiment.val_fraction,
                    eval_draws=EVAL_DRAWS,
                    device=device.partition(":")[0],
                    alignment=experiment.alignment,
                )
                runs.append(Run(spec, entry.module, entry.file))
    return runs


def _variants(experiment: Experiment, name: str) -> list[dict[str, Any]]:
    """The settings of each row of a method: one row unless `variants` asks for several."""
    common = experiment.settings.get(name, {})
    return [{**common, **variant} for variant in experiment.variants.get(name, [{}])]


def _nets(experiment: Experiment, registry: "Registry") -> list[tuple[str, str]]:
    """(method, net) pairs. Under `auto` a method that runs on any net is given every net that another one uses."""
    from bench.method import ANY_NET

    classes: dict[str, type[Method]] = {name: registry[name].load() for name in experiment.methods}
    if experiment.net != "auto":
        return [(name, experiment.net) for name in classes]
    own = {name: cls.info.nets[0] for name, cls in classes.items() if cls.info.nets != ANY_NET}
    used = list(dict.fromkeys(own.values())) or ["mlp"]
    return [(name, net) for name in classes for net in ([own[name]] if name in own else used)]
