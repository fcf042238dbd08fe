"""How a setting is written on the command line: declared at its field, read by the verbs and by repeating commands."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bench.experiment import strict_yaml

GROUPS = ("What to run", "How long", "How to run it", "Where")  # panels of --help, in their order
Group = Literal["What to run", "How long", "How to run it", "Where"]
Kind = type[bool] | type[int] | type[float] | type[str]


@dataclass(frozen=True)
class Flag:
    """Metadata of a field that is an option. group: its panel of --help. metavar: what stands for the value there.

    also: a second spelling of the option.
    """

    group: Group
    metavar: str | None = None
    also: str | None = None


@dataclass(frozen=True)
class Option:
    """A field as an option of the command line."""

    name: str
    flag: Flag
    field: FieldInfo

    @property
    def spelling(self) -> str:
        return spelling(self.name)

    @property
    def help(self) -> str:
        """The field's description as a sentence."""
        text = self.field.description or ""
        return f"{text[:1].upper()}{text[1:]}."

    @property
    def kind(self) -> Kind:
        """The type of the value as it is typed; lists and choices are text."""
        types = list(_types(self.field.annotation))
        scalars: tuple[Kind, ...] = (bool, int, float)
        return next((kind for kind in scalars if kind in types), str)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a field that takes one of several words, else none."""
        types = list(_types(self.field.annotation))
        return get_args(types[0]) if len(types) == 1 and get_origin(types[0]) is Literal else ()

    @property
    def metavar(self) -> str | None:
        names = "NAME,..." if names_in(self.field) else None
        return self.flag.metavar or names or "|".join(self.choices) or None


def options(model: type[BaseModel]) -> dict[str, Option]:
    """The fields that are options, by name. Order: groups; in a group the model's own fields, then inherited ones."""
    own = [name for name in model.model_fields if name in model.__annotations__]
    fields = {name: model.model_fields[name] for name in [*own, *model.model_fields]}
    found = [
        Option(name, flag, field) for name, field in fields.items() for flag in field.metadata if isinstance(flag, Flag)
    ]
    return {option.name: option for option in sorted(found, key=lambda option: GROUPS.index(option.flag.group))}


def names_in(field: FieldInfo) -> type | None:
    """The type of a field that holds several words, as methods and metrics do; None for any other."""
    for of in _types(field.annotation):
        if get_origin(of) in (list, tuple) and int not in _types(get_args(of)[0]):
            found: type = get_origin(of)
            return found
    return None


def spelling(name: str) -> str:
    """The option of a field of this name."""
    return f"--{name.replace('_', '-')}"


def words(model: type[BaseModel], values: Mapping[str, Any]) -> list[str]:
    """Options that set a model's fields to these values; those that are empty, None or left out are not among them."""
    found: list[str] = []
    for name, option in options(model).items():
        value = values.get(name)
        if isinstance(value, bool):
            found += [option.spelling] if value else []
        elif value is not None and value not in ([], (), ""):
            found += [option.spelling, _listed(value) if isinstance(value, (list, tuple)) else _plain(value)]
    return found


def assignments(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Options `--set` that give methods and nets these settings."""
    return [
        word
        for owner, values in settings.items()
        for name, value in sorted(values.items())
        for word in ("--set", f"{owner}.{name}={_yaml(value)}")
    ]


def _types(annotation: Any) -> Iterator[Any]:
    """The alternatives of a type, without None and metadata."""
    if get_origin(annotation) is Annotated:
        yield from _types(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for alternative in get_args(annotation):
            yield from _types(alternative)
    elif annotation is not NoneType:
        yield annotation


def _listed(values: list[Any] | tuple[Any, ...]) -> str:
    """With commas between; a number by itself has one behind it, since alone it is a count."""
    text = ",".join(map(_plain, values))
    return f"{text}," if len(values) == 1 and not isinstance(values[0], str) else text


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _yaml(value: Any) -> str:
    """A setting's value as `--set` reads it: words bare where they are read as such, everything else as JSON."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        is_bare = "," not in value and strict_yaml.parse(value) == value
    except ValueError:
        is_bare = False
    return value if is_bare else json.dumps(value, ensure_ascii=False)
