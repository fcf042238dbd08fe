"""`--executor NAME`, and the options that the executor of that name declares: settings of its own, as flags."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

import typer
from typer.core import TyperOption

from bench.api.errors import ConfigError
from bench.cli.command import Command
from bench.cli.options import how

if TYPE_CHECKING:
    from pydantic import BaseModel

    from bench.catalog.catalog import Catalog
    from bench.executors.executor import Executor

LOCAL = "local"
GIVEN = "bench.executor"  # where in the notes on a command line the values of an executor's options lie

ExecutorName = Annotated[
    str, how(help="Where: local, ray, slurm, or a plugin's. With a name, --help shows its options.")
]


class WithExecutor(Command):
    """A verb that takes the options of the executor which its command line names."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[GIVEN] = {}
        self._of_executor = [_option(*declared) for declared in _declared(args)]
        return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> list[Any]:
        return [*super().get_params(ctx), *getattr(self, "_of_executor", ())]


def executor_of(catalog: "Catalog", name: str, ctx: typer.Context) -> "Executor":
    """The executor that a command line asks for. Raises: ConfigError."""
    from bench.executors.executor import make

    return make(catalog, name, ctx.meta.get(GIVEN, {}))


def _declared(args: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """Executor, setting and its field, for the executor that is named; none for one that does not exist: told later."""
    name = next(_values(args, "--executor"), LOCAL)
    if name == LOCAL:
        return
    from bench.catalog.catalog import Catalog

    try:
        entry = Catalog([Path(path) for path in _values(args, "--plugin")]).executors[name]
    except ConfigError:
        return
    settings: type[BaseModel] = entry.load().Settings
    for key, field in settings.model_fields.items():
        yield name, key, field


def _values(args: Sequence[str], flag: str) -> Iterator[str]:
    for k, word in enumerate(args):
        if word == flag and k + 1 < len(args):
            yield args[k + 1]
        elif word.startswith(f"{flag}="):
            yield word.partition("=")[2]


def _typed(text: str, field: Any) -> Any:
    """A value as its field's type reads it: words stay as they are where the field takes any text."""
    from pydantic import TypeAdapter, ValidationError

    from bench.experiment import strict_yaml

    try:
        value = strict_yaml.parse(text)
        TypeAdapter(field.annotation).validate_python(value, strict=True)
    except (ValueError, ValidationError):
        return text
    return value


def _option(executor: str, key: str, field: Any) -> TyperOption:
    is_flag, several = field.annotation is bool, get_origin(field.annotation) is list

    def keep(ctx: Any, _: Any, value: Any) -> None:
        if is_flag or several:
            if value:
                ctx.meta[GIVEN][key] = list(value) if several else True
        elif value is not None:
            ctx.meta[GIVEN][key] = _typed(value, field)

    default = "" if field.default in (None, False, []) else f" [default: {field.default}]"
    return TyperOption(
        param_decls=[f"--{key.replace('_', '-')}"],
        metavar=None if is_flag else key.upper(),
        is_flag=is_flag,
        multiple=several,
        help=f"{field.description}{default}",
        expose_value=False,
        callback=keep,
        rich_help_panel=f"Executor {executor}",
    )
