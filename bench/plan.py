"""From an experiment to its ordered runs, and what makes a run the same run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from bench.config import Experiment, validate_settings
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
    for name in experiment.methods:
        registry[name]
    if experiment.net != "auto":
        net_class(experiment.net)
    owners = {*registry.entries, *NETS}
    for owner in experiment.settings:
        if owner not in owners:
            raise ConfigError(unknown("method or net in settings", owner, owners))


def plan(experiment: Experiment, registry: "Registry", *, device: str, data_ids: Mapping[str, str]) -> list[Run]:
    """The runs of a checked experiment, seeds outermost so that an interrupted experiment is balanced.

    data_ids: the fingerprint of each data set. Raises: ConfigError for a setting out of its bounds.
    """
    pairs = _nets(experiment, registry)
    runs = []
    for seed in experiment.seeds:
        for dataset in experiment.datasets:
            for name, net in pairs:
                entry = registry[name]
                spec = RunSpec(
                    method=name,
                    method_settings=validate_settings(entry.load().Config, experiment.settings.get(name, {}), name),
                    method_source=entry.source_hash(),
                    net=net,
                    net_settings=validate_settings(net_class(net).Settings, experiment.settings.get(net, {}), net),
                    dataset=dataset,
                    data_id=data_ids[dataset],
                    seed=seed,
                    epochs=experiment.epochs,
                    batch_size=experiment.batch_size,
                    val_fraction=experiment.val_fraction,
                    eval_draws=EVAL_DRAWS,
                    device=device.partition(":")[0],
                    alignment=experiment.alignment,
                )
                runs.append(Run(spec, entry.module, entry.file))
    return runs


def _nets(experiment: Experiment, registry: "Registry") -> list[tuple[str, str]]:
    """(method, net) pairs. Under `auto` a method that runs on any net is given every net that another one uses."""
    from bench.method import ANY_NET

    classes: dict[str, type[Method]] = {name: registry[name].load() for name in experiment.methods}
    if experiment.net != "auto":
        return [(name, experiment.net) for name in classes]
    own = {name: cls.info.nets[0] for name, cls in classes.items() if cls.info.nets != ANY_NET}
    used = list(dict.fromkeys(own.values())) or ["mlp"]
    return [(name, net) for name in classes for net in ([own[name]] if name in own else used)]
