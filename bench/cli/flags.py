"""Options of a verb that follow from a model of settings: a field each, declared where the field is."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import typer
from pydantic import BaseModel

from bench.experiment.flag import Option, options

Verb = Callable[..., Any]
Flags = Mapping[str, Any]  # of the fields that were given on the command line


def takes(model: type[BaseModel], *names: str, into: str = "flags") -> Callable[[Verb], Verb]:
    """Give a verb the options of these fields of a model, or of all; the mapping `into` holds those that are given."""
    declared = options(model)
    taken = [declared[name] for name in names] if names else list(declared.values())

    def decorate(verb: Verb) -> Verb:
        own = [of for of in inspect.signature(verb, eval_str=True).parameters.values() if of.name != into]
        parameters = [*map(_parameter, taken), *(of.replace(kind=of.KEYWORD_ONLY) for of in own)]

        def call(**given: Any) -> Any:
            flags = {option.name: given.pop(option.name) for option in taken}
            return verb(**given, **{into: {name: value for name, value in flags.items() if value is not None}})

        call.__name__, call.__doc__ = verb.__name__, verb.__doc__
        call.__annotations__ = {of.name: of.annotation for of in parameters}
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads options from it
        return call

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    """A parameter as typer reads it; None where the option is not given."""
    shown = typer.Option(
        None,
        option.spelling,
        *([option.flag.also] if option.flag.also else []),
        metavar=option.metavar,
        help=option.help,
        rich_help_panel=option.flag.group,
        autocompletion=_completing(option.choices) if option.choices else None,
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(option.name, keyword, default=shown, annotation=option.kind | None)


def _completing(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]
