"""The ranges over which settings are searched, as methods declare them: json_schema_extra={"search": [kind, ...]}.

["log", low, high]       a float, evenly in its logarithm
["linear", low, high]    a float, evenly
["int", low, high]       a whole number, both ends included
["choice", a, b, ...]    one of these
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from pydantic import BaseModel

from bench.api.errors import ConfigError, unknown
from bench.experiment.config import Experiment

Kind = Literal["log", "linear", "int", "choice"]
Side = Literal["low", "high"]
EDGE = 0.1  # of a range, in its own scale: what counts as next to its end
DECADE = 10.0  # by which a logarithmic range grows; others grow by half of their width


@dataclass(frozen=True)
class Range:
    """Where a setting is searched. least, most: the setting's own bounds, beyond which no range grows."""

    kind: Kind
    low: float
    high: float
    options: tuple[Any, ...] = ()
    least: float = -math.inf
    most: float = math.inf

    def at(self, u: float) -> Any:
        """The value at a place u in [0, 1) of the range; floats to three digits."""
        if self.kind == "choice":
            return self.options[int(u * len(self.options))]
        if self.kind == "int":
            return int(self.low) + int(u * (self.high - self.low + 1))
        if self.kind == "log":
            return self.tidy(self.low * (self.high / self.low) ** u)
        return self.tidy(self.low + (self.high - self.low) * u)

    def place(self, value: float) -> float:
        """Where in [0, 1] a number of the range lies."""
        if self.high == self.low:
            return 0.5
        if self.kind == "log":
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def tidy(self, value: Any) -> Any:
        """The value, a float to three digits."""
        if self.kind in ("choice", "int"):
            return value
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    def is_open(self, side: Side) -> bool:
        """Whether there is anything beyond this end."""
        if self.kind == "choice":
            return False
        return self.low > self.least if side == "low" else self.high < self.most

    def beyond(self, side: Side) -> "Range":
        """The part that lies beyond an open end, as far as the range may grow in one step."""
        low, high = self.low, self.high
        if self.kind == "log":
            below, above = low / DECADE, high * DECADE
        else:
            step = (high - low) / 2 if self.kind == "linear" else math.ceil((high - low) / 2) or 1
            below, above = low - step, high + step
        apart = 1 if self.kind == "int" else 0
        if side == "low":
            return replace(self, low=max(below, self.least), high=low - apart)
        return replace(self, low=high + apart, high=min(above, self.most))

    def joined(self, part: "Range") -> "Range":
        return replace(self, low=min(self.low, part.low), high=max(self.high, part.high))

    def declaration(self) -> list[Any]:
        """As a method would write it."""
        return [self.kind, *self.options] if self.kind == "choice" else [self.kind, self.low, self.high]


Space = dict[str, Range]


def spaces(experiment: Experiment, configs: Mapping[str, type[BaseModel]]) -> dict[str, Space]:
    """What the experiment's search is over, by method; empty for a method without ranges where all are asked for.

    Settings in which the rows of a method differ (`variants`) are left as they are.
    Raises: ConfigError for a setting that does not exist or has no range.
    """
    assert experiment.tune is not None
    asked = experiment.tune.settings
    known = {key for config in configs.values() for key in config.model_fields}
    for key in asked if asked != "all" else ():
        if key not in known:
            raise ConfigError(f"tune: {unknown('setting to search', key, known)}")
    return {name: _space(name, config, asked, experiment.variants.get(name, [])) for name, config in configs.items()}


def declared(method: str, config: type[BaseModel]) -> Space:
    """The range of each setting that declares one. Raises: ConfigError for a range that is none."""
    properties = config.model_json_schema().get("properties", {})
    return {key: _range(schema, f"{method}.{key}") for key, schema in properties.items() if "search" in schema}


def _space(method: str, config: type[BaseModel], asked: list[str] | str, variants: list[dict[str, Any]]) -> Space:
    ranges, properties = declared(method, config), config.model_fields
    varied = {key for variant in variants for key in variant}
    if asked == "all":
        return {key: found for key, found in ranges.items() if key not in varied}
    for key in asked:
        if key in varied:
            raise ConfigError(f"tune: the variants of {method} differ in '{key}'; search another setting")
        if key in properties and key not in ranges:
            raise ConfigError(
                f"tune: {method} declares no range for '{key}'; leave it out or add search=['log', low, high]"
            )
    if not any(key in ranges for key in asked):
        raise ConfigError(f"tune: {method} has none of {', '.join(asked)}; its ranges: {', '.join(ranges) or 'none'}")
    return {key: ranges[key] for key in asked if key in ranges}


def _range(schema: Mapping[str, Any], setting: str) -> Range:
    kind, *ends = schema["search"]
    if kind == "choice" and ends:
        return Range("choice", 0, len(ends) - 1, tuple(ends))
    least, most = _bounds(schema)
    if kind in get_args(Kind) and len(ends) == 2 and least <= ends[0] < ends[1] <= most:
        low, high = ends
        if kind != "log" or low > 0:
            return Range(kind, low, high, least=least, most=most)
    raise ConfigError(
        f"{setting}: search={schema['search']} is none of ['log', low, high], ['linear', low, high], "
        "['int', low, high] within the setting's bounds, ['choice', a, b]"
    )


def _bounds(schema: Mapping[str, Any]) -> tuple[float, float]:
    """The least and the largest value that the setting may have."""
    least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    apart = (lambda bound, to: bound + math.copysign(1, to)) if schema.get("type") == "integer" else math.nextafter
    if "exclusiveMinimum" in schema:
        least = apart(schema["exclusiveMinimum"], math.inf)
    if "exclusiveMaximum" in schema:
        most = apart(schema["exclusiveMaximum"], -math.inf)
    return least, most
