"""What every verb refuses in an argument before its own code reads it: one kind of text, one place."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from typer.core import TyperCommand

from bench.api.errors import ConfigError
from bench.record.files import local

LONGEST = 4096  # characters of an argument
SHOWN = 40
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,4})?")


class Command(TyperCommand):
    """A verb whose arguments are printable and not empty; numbers are finite and written in ASCII digits."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        refuse_texts(args)
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for parameter in self.get_params(ctx):
            for text in _texts(given.get(parameter.name or "")):
                _refuse_value(_told(parameter), text, parameter.type.name)
                if parameter.type.name == "path":
                    local(text, _told(parameter))
            if isinstance(parameter.envvar, str) and parameter.type.name == "path":
                local(os.environ.get(parameter.envvar, ""), f"${parameter.envvar}")
        return super().parse_args(ctx, args)


def refuse_texts(args: Sequence[str]) -> None:
    """Raises: ConfigError for an argument that no terminal should print."""
    for place, text in enumerate(args, 1):
        name = text.partition("=")[0] if text.startswith("--") and _is_plain(text.partition("=")[0]) else ""
        name = name or (args[place - 2] if place > 1 and args[place - 2].startswith("--") else "")
        told = name if name and _is_plain(name) else f"argument {place}"
        if len(text) > LONGEST:
            raise ConfigError(f"{told}: {len(text):,} characters; at most {LONGEST:,} are read")
        if _CONTROL.search(text):
            raise ConfigError(f"{told}: {ascii(text)[:SHOWN]} holds a control character or is no text; leave it out")


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"--[A-Za-z0-9-]{1,40}", name) is not None


def _refuse_value(name: str, text: str, kind: str) -> None:
    """kind: click's name of the type. Raises: ConfigError."""
    if not text.strip():
        raise ConfigError(f"{name}: the value is empty; give one, or leave it out")
    if kind.startswith("int") and not _WHOLE.fullmatch(text):
        raise ConfigError(f"{name} {text[:SHOWN]}: write a whole number of at most 18 digits, 0 to 9")
    if kind.startswith("float") and not (_NUMBER.fullmatch(text) and math.isfinite(float(text))):
        raise ConfigError(f"{name} {text[:SHOWN]}: write a finite number, as 0.5 or 1e-3")


def _told(parameter: Any) -> str:
    return next((opt for opt in parameter.opts if opt.startswith("--")), (parameter.name or "").upper())


def _texts(value: Any) -> Iterator[str]:
    """The texts given for a parameter: none, one, or several."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
