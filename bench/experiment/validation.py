"""Values against a pydantic model: strict types, finite numbers, sane bounds; one line where one is refused."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from bench.api.errors import ConfigError, unknown

Model = TypeVar("Model", bound=BaseModel)

LARGEST_INT = 100_000  # of a setting that declares no upper bound of its own
LARGEST_FLOAT = 1e30  # of any setting; float32 ends at 3.4e38
SHOWN = 60  # characters of a refused value
_BRANCH = re.compile(r"constrained-\w+|int|float|str|bool|(list|dict|tuple)\[.*\]|literal\[.*\]")  # of a union


def validated(model: type[Model], values: Mapping[str, Any], place: Mapping[str, str] | str) -> Model:
    """The model of these values.

    Types are JSON's, strictly: no text, boolean or 3.0 for a whole number, no text or boolean for a number; lists stand
    for tuples. place: where the values stand, or where each does. Raises: ConfigError.
    """
    for key, value in values.items():
        for path, number in _numbers(value, key):
            if isinstance(number, float) and not math.isfinite(number):
                raise ConfigError(f"{_place(place, key)}: {path}={number} is refused: numbers must be finite")
    try:
        text = to_json(dict(values), fallback=_plain)
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{_place(place, '')}: a value is no plain number, text, list or mapping") from error
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(explain(error, model, place)) from error


def validate_settings(model: type[BaseModel], values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The complete settings of a method, net or executor. Raises: ConfigError naming a wrong key or value."""
    for key in values:
        if key not in model.model_fields:
            raise ConfigError(unknown(f"setting of {owner}", key, model.model_fields))
    place = f"settings of {owner}"
    complete: dict[str, Any] = validated(model, values, place).model_dump(mode="json")
    schemas = model.model_json_schema().get("properties", {})
    for key in values:
        for path, number in _numbers(complete[key], key):
            whole = isinstance(number, int)
            most = LARGEST_INT if whole and not _has_bound(schemas.get(key, {})) else LARGEST_FLOAT
            if abs(number) > most:
                raise ConfigError(f"{place}: {path}={shown(number)} is refused: it must be at most {most:,}")
    return complete


def explain(error: ValidationError, model: type[BaseModel], sources: Mapping[str, str] | str) -> str:
    """The first complaint in one line: which key, where it stands, what is allowed."""
    errors = error.errors()
    root = str(errors[0]["loc"][0]) if errors[0]["loc"] else ""
    of_root = [one for one in errors if one["loc"][:1] == errors[0]["loc"][:1]]
    first = max(of_root, key=lambda one: len(one["loc"]))  # of a union's branches the one that came farthest
    key = ".".join(part for part in map(str, first["loc"]) if not _BRANCH.fullmatch(part))
    place = _place(sources, key if key in sources else root)
    if first["type"] == "extra_forbidden":
        return f"{place}: {unknown('key', key, model.model_fields)}"
    if first["type"] == "missing":
        return f"{place}: '{key}' is missing"
    message = re.sub(r"^Value error, ", "", first["msg"])
    if not key:
        return f"{place}: {message}"
    return f"{place}: {key}={shown(first['input'])} is refused: {message[0].lower()}{message[1:]}"


def shown(value: Any) -> str:
    """A value as Python writes it, shortened."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


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


def _place(place: Mapping[str, str] | str, key: str) -> str:
    return place if isinstance(place, str) else place.get(key, "configuration")


def _numbers(value: Any, path: str) -> Iterator[tuple[str, int | float]]:
    """The numbers in a value, each with its place; booleans left out."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner, path)


def _plain(value: Any) -> Any:
    """numpy's scalars and arrays as Python's. Raises: TypeError."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, range):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no plain value")


def _has_bound(schema: Mapping[str, Any]) -> bool:
    """Whether a field, or an alternative of it, declares an upper bound."""
    return "maximum" in schema or "exclusiveMaximum" in schema or any(map(_has_bound, schema.get("anyOf", ())))


_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
