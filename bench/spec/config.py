"""What a user may ask for: the experiment's schema, read from a preset, a YAML file and flags, in that order."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.api.errors import ConfigError, unknown
from bench.spec import threads
from bench.spec.budget import MATCHED, Budget, Protocol
from bench.spec.identity import Compute
from bench.spec.reading import load_preset, load_yaml, parse_value

Count = Annotated[int, Field(ge=1)]
Epochs = Count | dict[str, Count]


class Tuning(BaseModel):
    """Search settings of every method with equal effort before the runs that are reported."""

    model_config = ConfigDict(extra="forbid")

    settings: list[str] | Literal["all"] = Field(["lr"], description="what to search, by name; each declares its range")
    trials: int = Field(12, ge=2, description="runs per method, net and data set, before a range is widened")
    epochs: Epochs | None = Field(None, description="passes over the data in a trial; left out: as in reported runs")
    seed: int = Field(1000, ge=0, description="seed of the trials and of their choice; not among those reported")

    @field_validator("settings", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return comma_list(value) if isinstance(value, str) and value != "all" else value


class Experiment(Compute, Budget):
    """A set of runs: every method on every data set with every seed. What its runs share it has from Compute."""

    model_config = ConfigDict(extra="forbid")

    experiment: str = Field(
        "default", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="name of the results folder"
    )
    methods: list[str] = Field(min_length=1, description="learning rules, by name")
    datasets: list[str] = Field(["digits"], min_length=1, description="data sets, by name")
    net: str = Field("auto", description="the net for all methods; auto gives each method its own and its twin")
    nets: dict[str, list[str]] = Field({}, description="by method: its nets, where auto would choose others")
    threads: Count = Field(default_factory=threads.default, description=Compute.model_fields["threads"].description)
    seeds: list[int] = Field([0], min_length=1, description="one run per seed")
    epochs: Epochs = Field(10, description="passes over the training data, for all runs, or by data set or method")
    protocols: list[Protocol] = Field(
        [], description="matched, convergence, or both side by side: which budgets each row is trained under"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    settings: dict[str, dict[str, Any]] = Field(
        {}, description="settings by method or net name; lists of values span a grid of rows"
    )
    variants: dict[str, list[dict[str, Any]]] = Field(
        {}, description="by method: the settings of each of its rows, those of its net as net.KEY"
    )
    tune: Tuning | None = Field(None, description="search settings on validation data first")
    tuned: bool = Field(False, description="use the settings that `bench tune --save` left beside each method")

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, value: Any) -> Any:
        return parse_seeds(value) if isinstance(value, (str, int)) else value

    @field_validator("methods", "datasets", "instruments", "protocols", mode="before")
    @classmethod
    def _comma_list(cls, value: Any) -> Any:
        return comma_list(value) if isinstance(value, str) else value

    @field_validator("methods", "datasets", "instruments", "protocols", "seeds")
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
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_seeds(text: str | int) -> list[int]:
    """'3' is the seeds 0, 1, 2; '0,1,7' and '5,' are those. Raises: ValueError, with the mend, for none at all."""
    parts = str(text).split(",")
    try:
        seeds = list(range(int(parts[0]))) if len(parts) == 1 else [int(part) for part in parts if part.strip()]
    except ValueError:
        seeds = []
    if not seeds:
        raise ValueError("write how many, from 1 (3), or which (0,1,7; one alone: 7,)")
    return seeds


def resolve(preset: str | None, config: Path | None, flags: Mapping[str, Any], assignments: list[str]) -> Experiment:
    """The experiment that a command line asks for. Raises: ConfigError naming the key, its place and the mend."""
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if preset is not None or config is None:
        name = preset or "default"
        merged, place = load_preset(name), f"preset {name}"
        sources = dict.fromkeys(merged, place)
    if config is not None:
        values = load_yaml(config)
        sources |= dict.fromkeys(values, str(config))
        merged = _layered(merged, values)
    given = {key: value for key, value in flags.items() if value is not None}
    sources |= {key: f"--{key.replace('_', '-')}" for key in given}
    merged = _layered(merged, given)
    for assignment in assignments:
        owner, key, value = _assignment(assignment)
        settings = merged.setdefault("settings", {}) or {}
        merged["settings"] = _overlay(settings, {owner: {key: value}})
        sources["settings"] = "--set"
    try:
        return Experiment.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error, Experiment, sources)) from error


def explain(error: ValidationError, model: type[BaseModel], sources: Mapping[str, str] | str) -> str:
    """The first complaint in one line: which key, where it stands, what is allowed."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    root = str(first["loc"][0]) if first["loc"] else ""
    key = key.removesuffix(".constrained-int").removesuffix(".int")  # the branch of a union is no part of the key
    place = sources if isinstance(sources, str) else sources.get(root, "configuration")
    if first["type"] == "extra_forbidden":
        return f"{place}: {unknown('key', key, model.model_fields)}"
    if first["type"] == "missing":
        return f"{place}: '{key}' is missing"
    message = re.sub(r"^Value error, ", "", first["msg"])
    if not key:
        return f"{place}: {message}"
    return f"{place}: {key}={first['input']!r} is refused: {message[0].lower()}{message[1:]}"


def validate_settings(model: type[BaseModel], values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The complete settings of a method or net. Raises: ConfigError naming a wrong key or value."""
    for key in values:
        if key not in model.model_fields:
            raise ConfigError(unknown(f"setting of {owner}", key, model.model_fields))
    try:
        return model.model_validate(dict(values)).model_dump(mode="json")
    except ValidationError as error:
        raise ConfigError(explain(error, model, f"settings of {owner}")) from error


def _one_or_several(text: str) -> Any:
    """A setting's value, or a list of values where commas part them."""
    value = parse_value(text)
    if isinstance(value, str) and "," in value:
        return [parse_value(part) for part in text.split(",") if part.strip()]
    return value


def _assignment(text: str) -> tuple[str, str, Any]:
    target, equals, value = text.partition("=")
    owner, dot, key = target.partition(".")
    if not (equals and dot and owner and key):
        raise ConfigError(f"--set {text}: write it as method.key=value or net.key=value")
    try:
        return owner, key, _one_or_several(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML") from error


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


def describe_settings(model: type[BaseModel]) -> list[list[str]]:
    """Name, default, bounds, search range and description of every setting, as text."""
    rows = []
    for name, field in model.model_fields.items():
        schema = model.model_json_schema()["properties"][name]
        bounds = [f"{sign} {schema[key]}" for key, sign in _BOUNDS.items() if key in schema]
        choices = schema.get("enum", [])
        search = schema.get("search", ())
        rows.append(
            [
                name,
                "required" if field.is_required() else str(field.default),
                ", ".join(bounds) or " | ".join(map(str, choices)),
                " ".join(map(str, search)),
                field.description or "",
            ]
        )
    return rows


_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
