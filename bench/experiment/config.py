"""What a user may ask for: the experiment's schema, read from a preset, a YAML file and flags, in that order."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from bench.api.errors import ConfigError
from bench.experiment import strict_yaml, threads
from bench.experiment.budget import LONG, MATCHED, Budget, Protocol
from bench.experiment.flag import Flag, names_in, spelling
from bench.experiment.identity import HOW, WHAT, Compute
from bench.experiment.reading import load_preset, load_yaml
from bench.experiment.validation import shown, validated

MOST_EPOCHS = 1_000_000
LAST_SEED = 2**32 - 1  # what numpy, too, takes as a seed; exact in JSON, CSV and a browser
MOST_SEEDS = 10_000

Count = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Epochs = Count | dict[str, Count]
Seed = Annotated[int, Field(ge=0, le=LAST_SEED)]

# what the store has names for (bench.record); an experiment's folder of such a name would be taken for that
RESERVED = frozenset("scaling spec.json summary.json plan.json records.zip summary.csv winners.json".split())
RESERVED_END = ".tuning"


class Tuning(BaseModel):
    """Search settings of every method with equal effort before the runs that are reported."""

    model_config = ConfigDict(extra="forbid")

    settings: Annotated[list[str] | Literal["all"], WHAT] = Field(
        ["lr"], description="settings to search, or all; each declares its range"
    )
    trials: Annotated[int, LONG] = Field(
        12, ge=2, le=100_000, description="runs for each method, net and data set, before a range is widened"
    )
    epochs: Annotated[Epochs | None, LONG] = Field(
        None, description="passes over the data in a trial; left out: as in reported runs"
    )
    seed: Annotated[Seed, WHAT] = Field(
        1000, description="seed of the trials and of their choice; not among those reported"
    )

    @field_validator("settings", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return comma_list(value) if isinstance(value, str) and value != "all" else value


class Experiment(Compute, Budget):
    """A set of runs: every method on every data set with every seed. What its runs share it has from Compute.

    A field declares a setting, and nothing else does: its key in YAML, its keyword in Python, its option on the command
    line (with a Flag) and its part of the command that repeats a run all follow from it.
    """

    model_config = ConfigDict(extra="forbid")

    experiment: Annotated[str, Flag("Where")] = Field(
        "default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,91}$", description="name of the results folder"
    )
    methods: Annotated[list[str], WHAT] = Field(min_length=1, description="learning rules, by name")
    datasets: Annotated[list[str], WHAT] = Field(
        ["digits"], min_length=1, description="data sets, by name, npz:PATH or imagefolder:PATH"
    )
    net: Annotated[str, WHAT] = Field(
        "auto", description="the net for all methods; auto gives each method its own and its twin"
    )
    nets: dict[str, list[str]] = Field({}, description="by method: its nets, where auto would choose others")
    threads: Annotated[Count, HOW] = Field(
        default_factory=threads.default, description=Compute.model_fields["threads"].description
    )
    seeds: Annotated[list[Seed], Flag("What to run", "N|N,...")] = Field(
        [0], min_length=1, description="how many (3) or which (0,1,7; one alone: 7,), each from 0 to 2^32 - 1"
    )
    epochs: Annotated[Epochs, LONG] = Field(
        10, description="passes over the training data; in a file also a table by data set or method"
    )
    protocols: Annotated[list[Protocol], LONG] = Field(
        [], description="budgets that each row is trained under: matched, convergence, or both side by side"
    )
    device: Annotated[str, HOW] = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="where to compute: auto, cpu, cuda or cuda:N"
    )
    settings: dict[str, dict[str, Any]] = Field(
        {}, description="settings by method or net name; lists of values span a grid of rows"
    )
    variants: dict[str, list[dict[str, Any]]] = Field(
        {}, description="by method: the settings of each of its rows, those of its net as net.KEY"
    )
    keep_weights: Annotated[bool, HOW] = Field(
        False, description="keep what each run learnt, for `bench.load(...).method(RUN)`; no part of a run"
    )
    log: Annotated[list[str], Flag("How to run it", "NAME[:TO],...")] = Field(
        [], description="log to tensorboard, wandb, mlflow, csv or a plugin's listener; no part of a run"
    )
    tune: Tuning | None = Field(None, description="search settings on validation data first")
    tuned: Annotated[bool, WHAT] = Field(
        False, description="use settings that `bench tune --save` kept, or that ship with a method"
    )

    _basis: str = PrivateAttr("Python")
    _must_use: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def basis(self) -> str:
        """What the flags were laid on: a preset, a file, or the documented defaults."""
        return self._basis

    @property
    def must_use(self) -> Mapping[str, str]:
        """Methods and nets whose settings the user wrote for these very runs, each with the place."""
        return self._must_use

    @field_validator("experiment")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        """Below a results folder these names mean something else."""
        if value.lower() in RESERVED or value.lower().endswith(RESERVED_END):
            raise ValueError("the results folder uses this name itself; choose another")
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, value: Any) -> Any:
        is_count = isinstance(value, (str, int)) and not isinstance(value, bool)
        return parse_seeds(value) if is_count else value

    @field_validator("*", mode="before")
    @classmethod
    def _comma_list(cls, value: Any, info: ValidationInfo) -> Any:
        """Names with commas between them, for every field that holds names."""
        of = names_in(cls.model_fields[info.field_name or ""])
        names = comma_list(value) if of and isinstance(value, str) else value
        return tuple(names) if of is tuple and isinstance(names, list) else names

    @field_validator("instruments")
    @classmethod
    def _in_no_order(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(value))  # in another order they measure the same

    @field_validator("methods", "datasets", "instruments", "protocols", "log", "seeds")
    @classmethod
    def _once_each(cls, value: Any) -> Any:
        return type(value)(dict.fromkeys(value))

    @model_validator(mode="after")
    def _one_budget_a_protocol(self) -> "Experiment":
        given = [kind for kind in MATCHED if getattr(self, kind) is not None]
        if self.patience is not None and not self.protocols:
            given.append("patience")
        if len(given) > 1:
            either = ", or run them side by side with protocols: matched, convergence" if "patience" in given else ""
            raise ValueError(f"{' and '.join(given)} are different budgets; choose one{either}")
        return self

    @model_validator(mode="after")
    def _tuning_is_possible(self) -> "Experiment":
        if self.tune and self.tune.seed in self.seeds:
            raise ValueError(f"the tuning seed {self.tune.seed} is among the seeds to report; choose another")
        if self.tune and self.val_fraction == 0:
            raise ValueError("tune needs validation data; set val_fraction above 0")
        if self.tune and self.tuned:
            raise ValueError("tune searches the settings that tuned would use; choose one")
        return self


def epochs_for(epochs: int | dict[str, int], dataset: str, method: str) -> int:
    """The budget of a method on a data set; in a table the method's entry goes before the data set's.

    Raises: ConfigError where a table of budgets leaves both out.
    """
    if isinstance(epochs, int):
        return epochs
    for name in (method, dataset):
        if name in epochs:
            return epochs[name]
    raise ConfigError(f"epochs: none given for {dataset}, only for {', '.join(sorted(epochs))}; add it or use --epochs")


def comma_list(text: str) -> list[str]:
    """The names in a list. Raises: ValueError where there are none, or nothing between two commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError("a name is empty; write names with commas between them, or leave the option out")
    return parts


def parse_seeds(text: str | int) -> list[int]:
    """'3' is the seeds 0, 1, 2; '0,1,7' and '5,' are those. Raises: ValueError, with the mend, for none at all."""
    if not re.fullmatch(r" *[0-9]{1,20} *(, *[0-9]{1,20} *)*,? *", str(text)):
        raise ValueError(f"write how many, from 1 (3), or which, from 0 to {LAST_SEED} (0,1,7; one alone: 7,)")
    first, *others = str(text).split(",")
    if others:
        return [int(part) for part in (first, *others) if part.strip()]
    if not 1 <= int(first) <= MOST_SEEDS:
        raise ValueError(f"write how many, from 1 (3) to {MOST_SEEDS:,}, or which (0,1,7; one alone: 7,)")
    return list(range(int(first)))


def resolve(preset: str | None, config: Path | None, flags: Mapping[str, Any], assignments: list[str]) -> Experiment:
    """The experiment that a command line asks for.

    Flags lie on the file, the file on the preset. Without any of these the preset `default` is run; where flags alone
    name the methods, nothing lies below them but the defaults of `Experiment`, methods and nets, as in a file.

    Raises: ConfigError naming the key, its place and the mend.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    bases = []
    if preset is not None or (config is None and "methods" not in given):
        name = "default" if preset is None else preset
        merged = load_preset(name)
        bases.append(f"preset {name}")
        sources = dict.fromkeys(merged, bases[0])
    must_use: dict[str, str] = {}
    if config is not None:
        values = load_yaml(config)
        sources |= dict.fromkeys(values, str(config))
        merged = _layered(merged, values)
        bases.append(str(config))
        if not given.keys() & {"methods", "net", "nets", "datasets"}:  # flags may leave out some of a file's runs
            must_use |= dict.fromkeys(_owners(values), str(config))
    sources |= {key: spelling(key) for key in given}
    sources |= {f"tune.{key}": spelling(key) for key in Tuning.model_fields if isinstance(given.get("tune"), Mapping)}
    must_use |= dict.fromkeys(_owners(given), "settings")
    merged = _layered(merged, given)
    for assignment in assignments:
        owner, key, value = _assignment(assignment)
        settings = merged.get("settings")
        merged["settings"] = _overlay(settings if isinstance(settings, Mapping) else {}, {owner: {key: value}})
        sources["settings"] = "--set"
        must_use[owner] = "--set"
    asked = validated(Experiment, merged, sources)
    asked._basis = " and ".join(bases) or "no preset"
    asked._must_use = must_use
    return asked


def _owners(values: Mapping[str, Any]) -> Iterable[str]:
    """The methods and nets that have settings, nets or variants there."""
    tables = [table for key in ("settings", "nets", "variants") if isinstance(table := values.get(key), Mapping)]
    return [str(name) for table in tables for name in table]


def _one_or_several(text: str) -> Any:
    """A setting's value, or a list of values where commas part them."""
    value = strict_yaml.parse(text)
    if isinstance(value, str) and "," in value and text.strip()[:1] not in ("'", '"'):
        parts = text.split(",")
        if not all(part.strip() for part in parts):
            raise ValueError("nothing stands between two commas")
        return [strict_yaml.parse(part) for part in parts]
    return value


def _assignment(text: str) -> tuple[str, str, Any]:
    target, equals, value = text.partition("=")
    owner, dot, key = target.partition(".")
    if not (equals and dot and owner and key and value.strip()):
        raise ConfigError(f"--set {shown(text)}: write it as method.key=value or net.key=value")
    try:
        return owner, key, _one_or_several(value)
    except ValueError as error:
        raise ConfigError(f"--set {shown(text)}: the value is not valid YAML: {error}") from error


def _layered(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on `base`, in which a matched budget of one kind gives way to one of another."""
    replaced = MATCHED if any(kind in over for kind in MATCHED) else ()
    return _overlay({key: value for key, value in base.items() if key not in replaced}, over)


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on `base`; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _overlay(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
